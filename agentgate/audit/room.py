"""Space for records that must not fail any more: kept free for an audit segment before a token
is burned.

Rules: the file system itself keeps the space (Linux fallocate without a change of size, so that
whoever follows the file sees records only); where it cannot, the space must be free at that
moment. A limit of the process (RLIMIT_FSIZE) counts as a full disk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Callable

ROOM = 1 << 20  # bytes: at_once is 1024 at most, and a record of a redemption about 1 kB
# bytes that are asked for ahead: some ten records after the disk is full, the log says so
STEP = 16 << 10
FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})
_KEEP_SIZE = 1
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def _found() -> Callable[[int, int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError):  # macOS
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return lambda *given: int(function(*given))


_fallocate = _found()


def check_limit(end: int) -> None:
    """A file may grow to `end` bytes, as far as this process is concerned; else OSError."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and end > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def reserve(descriptor: int, start: int, end: int) -> None:
    """Keep space for bytes `start` to `end` of a file.

    Raises:
        OSError: there is none.
    """
    while _fallocate is not None:
        if _fallocate(descriptor, _KEEP_SIZE, start, end - start) == 0:
            return
        code = ctypes.get_errno()
        if code in _CANNOT:
            break
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    free = os.fstatvfs(descriptor)
    if free.f_bavail * free.f_frsize < end - start:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

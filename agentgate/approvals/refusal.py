"""Why something that reviewers signed is not in force: a closed list of names, each with file,
field, what it got, what was expected.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from agentgate.errors import Failure, Refused
from agentgate.values.visible import visible

_LONGEST = 300


class ApprovalRefusal(StrEnum):
    """The names. Closed."""

    UNAPPROVED = "UNAPPROVED"  # the signatures do not reach the threshold
    TAMPERED = "TAMPERED"  # something differs from what was signed; the field says what
    EXPIRED = "EXPIRED"  # an approval, a key or the root has expired
    REVOKED = "REVOKED"  # a reviewer revoked this version
    ROLLBACK = "ROLLBACK"  # older than what was in force before
    STALE_INDEX = "STALE INDEX"  # the list of newest versions is absent, unsigned or too old
    WRONG_PLACE = "WRONG PLACE"  # not in the file it was approved for
    # not the pinned root, nor one its signers handed over to
    ROOT_NOT_TRUSTED = "ROOT NOT TRUSTED"
    MISSING = "MISSING"  # a signed file, or its signature, is not there


(
    UNAPPROVED,
    TAMPERED,
    EXPIRED,
    REVOKED,
    ROLLBACK,
    STALE_INDEX,
    WRONG_PLACE,
    ROOT_NOT_TRUSTED,
    MISSING,
) = ApprovalRefusal


class ApprovalRefused(Refused):
    """A trust file, a signature or an approval was refused; `refused` says why."""

    @property
    def refused(self) -> Failure:
        """Why: `reason` is from the closed list; `data` has the file (as seen from the workflow
        directory), workflow and version.
        """
        return self.failures[0]


def refused(
    name: ApprovalRefusal,
    file: str,
    field: str,
    got: object,
    expected: str,
    *,
    workflow: str = "",
    version: int = 0,
) -> Failure:
    """One refusal; what came from a file (its name too) is made printable and short.

    Args:
        name: from the closed list.
        file: the file it is about, as seen from the workflow directory.
        field: dotted path or name of what was looked at.
        got: what the file says.
        expected: what would be accepted, and where it helps what to do next.
        workflow: id of the workflow that is refused; empty for a trust file (then nothing
            loads).
        version: version that is refused; 0 when it has none.
    """
    data = {"file": printable(file), "workflow": workflow, "version": version}
    return Failure(name, printable(field), printable(got), printable(expected), data=data)


def version_of(refusal: Failure) -> tuple[str, int]:
    """The workflow and the version that are refused."""
    return refusal.data["workflow"], refusal.data["version"]


def refuse(
    name: ApprovalRefusal, file: str, field: str, got: object, expected: str, **data: Any
) -> ApprovalRefused:
    """The exception for one refusal."""
    return ApprovalRefused.of(refused(name, file, field, got, expected).with_data(**data))


def printable(value: object) -> str:
    """A value as a message may show it: one printable line of at most 300 characters."""
    return visible(value if isinstance(value, str) else repr(value), _LONGEST)

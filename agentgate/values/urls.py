"""Where secrets may be sent: over TLS, or without leaving this machine. Pure."""

from typing import Any


def is_secure(url: Any) -> bool:
    """Whether a URL (its parts, as of `urllib.parse.urlsplit`) is https, or http to loopback."""
    return bool(url.hostname) and (
        url.scheme == "https"
        or (url.scheme == "http" and url.hostname in {"127.0.0.1", "localhost", "::1"})
    )

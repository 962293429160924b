"""Where secrets may be sent: over TLS, or without leaving this machine. Pure."""


def is_secure(scheme: str, host: str | None) -> bool:
    """Whether a URL of this scheme and host is https, or http to loopback."""
    return bool(host) and (
        scheme == "https" or (scheme == "http" and host in {"127.0.0.1", "localhost", "::1"})
    )

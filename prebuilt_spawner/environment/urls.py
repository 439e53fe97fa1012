"""URLs of indexes and wheels, without what must not be kept."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def without_credentials(url: str) -> str:
    """The URL without user name and password (RFC 3986, userinfo); everything else is left as it is.

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def canonical_index_url(url: str | None) -> str:
    """One spelling for each index: no credentials, scheme and host in lower case, no default port, no slash at the end.

    None and "" both stand for the resolver's own default index, and give "".

    Raises:
        ValueError: It is no URL.
    """
    if not url or not url.strip():
        return ""
    parts = urlsplit(url.strip())
    return urlunsplit((parts.scheme.lower(), _canonical_host(parts), parts.path.rstrip("/"), parts.query, ""))


def _canonical_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme.lower()):
        return host
    return f"{host}:{parts.port}"

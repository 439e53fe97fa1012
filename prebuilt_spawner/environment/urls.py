"""URLs of indexes and wheels, without what must not be kept."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
# `name=https://…`, as uv's variables have it: the name is one that uv accepts, so no URL with a `=` in it is taken for
# one.
_NAMED_INDEX = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)=(?P<url>.+)", re.DOTALL)


def without_credentials(url: str) -> str:
    """The URL without user name and password (RFC 3986, userinfo); everything else is left as it is.

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def public_index_url(url: str) -> str:
    """An index's URL without what may be a secret: user name, password, query (where some indexes want a token) and
    fragment.

    Raises:
        ValueError: It is no URL.
    """
    return urlunsplit(urlsplit(without_credentials(url))._replace(query="", fragment=""))


def index_name_and_url(entry: str) -> tuple[str, str]:
    """(name or "", URL) of an index that is perhaps written as `name=url`."""
    match = _NAMED_INDEX.fullmatch(entry)
    return (match["name"], match["url"]) if match else ("", entry)


def is_readable(entry: str) -> bool:
    """Whether an index's entry can be taken apart. A password with a `/` or a `#` that is not percent-encoded ends the
    host's part early; then nothing could tell the secret from the rest."""
    try:
        parts = urlsplit(index_name_and_url(entry.strip())[1])
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


UNREADABLE = (
    "the URL of a package index cannot be read; in its user name and password, write characters such as / # ? @ [ "
    "as %2F %23 %3F %40 %5B"
)
"""What to say of it: without the URL, because nobody knows which part of it is the secret."""


def canonical_index_url(url: str | None) -> str:
    """One spelling for each index: scheme and host in lower case, no default port, no slash at the end, and neither a
    name before it nor credentials, a query or a fragment.

    None and "" both stand for the resolver's own default index, and give "".

    Raises:
        ValueError: It is no URL.
    """
    if not url or not url.strip():
        return ""
    parts = urlsplit(index_name_and_url(url.strip())[1])
    return urlunsplit((parts.scheme.lower(), _canonical_host(parts), parts.path.rstrip("/"), "", ""))


def _canonical_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme.lower()):
        return host
    return f"{host}:{parts.port}"

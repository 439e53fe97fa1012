"""What uv says when its surroundings fail: the disk, or the way to an index. Pure."""

from __future__ import annotations

import re

from ..build.failure import TELL, Failure, Kind, disk_full
from ..errors import PrebuiltError

_LOCKED_OUT = re.compile(
    r"lack of valid authentication credentials|returned a (?:401|403)|\((?:401 Unauthorized|403 Forbidden|407 Proxy)"
    r"|proxy authorization required"
)
_NOT_FETCHED = re.compile(
    r"Failed to fetch|error sending request|Request failed after|tunnel error|timed out|Failed to download|HTTP status"
    r"|dns error|invalid peer certificate|error decoding response body|Failed to read metadata"
    r"|Received some unexpected",
    re.IGNORECASE,
)
_DISK_FULL = re.compile(r"os error (?:28|122)\b|No space left on device|Disk quota exceeded", re.IGNORECASE)
_DISK = re.compile(r"os error (?:13|30)\b|Read-only file system", re.IGNORECASE)
_CERTIFICATE = re.compile(r"invalid peer certificate|certificate verify|UnknownIssuer|tls handshake", re.IGNORECASE)
_SILENT = re.compile(r"timed out|timeout", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"dns error|client error \(Connect\)|tcp connect error|Connection refused|tunnel error|unreachable", re.IGNORECASE
)


def surroundings_error(text: str, output: str) -> PrebuiltError | None:
    """The error for what uv says of the disk or of an index; None where it speaks of packages.

    Args:
        text: What it said, on one line.
        output: The same as it came, for the error's detail.
    """
    failure, to_check = None, ""
    if _DISK_FULL.search(text):
        failure = disk_full()
    elif _DISK.search(text):
        failure = Failure(kind=Kind.STORAGE, what="The hub cannot write to its disk.", advice=TELL)
    elif _LOCKED_OUT.search(text):
        what = "The package index, or the proxy before it, refused this hub's credentials."
        failure = Failure(kind=Kind.INDEX_CREDENTIALS, what=what, advice=TELL)
        to_check = "Check the credentials in index_url, extra_index_urls, netrc and the proxy's URL.\n"
    elif not _NOT_FETCHED.search(text):
        return None
    elif _CERTIFICATE.search(text):
        what = "The package index cannot be reached: its certificate is not trusted."
        failure = Failure(kind=Kind.INDEX_CERTIFICATE, what=what, advice=TELL)
        to_check = "Install the certificate authority in the hub's system store, or name its file in SSL_CERT_FILE.\n"
    else:
        failure = _unanswered(text)
        to_check = "Check index_url and extra_index_urls, HTTP_PROXY, HTTPS_PROXY and NO_PROXY.\n"
    return failure.error(detail=f"{to_check}{output}")


def _unanswered(text: str) -> Failure:
    advice = "Try again later, or tell the administrator of this hub."
    if _UNREACHABLE.search(text):
        return Failure(kind=Kind.INDEX_UNREACHABLE, what="The package index cannot be reached.", advice=advice)
    if _SILENT.search(text):
        return Failure(kind=Kind.INDEX_SILENT, what="The package index does not answer.", advice=advice)
    return Failure(kind=Kind.INDEX_BROKEN, what="The package index does not answer as it should.", advice=advice)

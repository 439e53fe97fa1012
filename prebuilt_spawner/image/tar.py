"""Tar entries as bytes: POSIX ustar where it suffices, a PAX extended header where it does not.

Written by hand because `tarfile` needs some 100 microseconds for each header and keeps what it wrote. A header here
depends on its arguments only, never on the clock, the user, the locale or the umask.
"""

from __future__ import annotations

import re
from typing import Literal

from .layer import SOURCE_DATE_EPOCH

BLOCK_BYTES = 512
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
"""Two blocks of zeros end an archive (POSIX.1-2017, pax, "ustar Interchange Format")."""

Kind = Literal["file", "folder"]

_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MAX_OCTAL_ID = 0o7777777
_MAX_OCTAL_SIZE = 0o77777777777
_TYPE_FLAGS: dict[Kind, bytes] = {"file": b"0", "folder": b"5"}
_PAX_HEADER = b"x"


def padding(size_bytes: int) -> bytes:
    """The zeros that fill a content of this size up to a whole block."""
    return bytes(-size_bytes % BLOCK_BYTES)


def tar_header(path: str, *, size_bytes: int = 0, mode: int, kind: Kind, uid: int = 0, gid: int = 0) -> bytes:
    """The header of one entry, its extended header included; a multiple of 512 bytes.

    Args:
        path: In the archive, without slashes at its ends.
        size_bytes: Of the content that follows; 0 for a folder.
        mode: Permission bits.
        kind: What the entry is.
        uid, gid: Its owner.
    """
    name = path.encode() + (b"/" if kind == "folder" else b"")
    extended: dict[str, bytes] = {}
    place = _split(name)
    if place is None:
        extended["path"] = name
        place = b"", re.sub(rb"[^\x20-\x7e]", b"?", name)[-_NAME_BYTES:]
    numbers = {"size": size_bytes, "uid": uid, "gid": gid}
    for key, number in numbers.items():
        if number > (_MAX_OCTAL_SIZE if key == "size" else _MAX_OCTAL_ID):
            extended[key] = str(number).encode()
            numbers[key] = 0
    header = _ustar(place, mode=mode, flag=_TYPE_FLAGS[kind], **numbers)
    return _extended_header(extended) + header if extended else header


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name as ustar keeps them; None where they do not fit, or are not ASCII."""
    if not name.isascii():
        return None
    if len(name) <= _NAME_BYTES:
        return b"", name
    slash = name.find(b"/", len(name) - _NAME_BYTES - 1, len(name) - 1)
    return None if slash < 1 or slash > _PREFIX_BYTES else (name[:slash], name[slash + 1 :])


def _ustar(place: tuple[bytes, bytes], *, mode: int, flag: bytes, size: int, uid: int, gid: int) -> bytes:
    prefix, name = place
    start = name.ljust(_NAME_BYTES, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        mode,
        uid,
        gid,
        size,
        SOURCE_DATE_EPOCH,
    )
    # Link name, magic and version, no user and group name, device numbers, prefix, and what fills the block.
    end = flag + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\0" + prefix.ljust(167, b"\0")
    checksum = sum(start) + sum(end) + 8 * ord(" ")  # the field itself counts as spaces
    return start + b"%06o\0 " % checksum + end


def _extended_header(records: dict[str, bytes]) -> bytes:
    body = b"".join(_record(key.encode(), value) for key, value in sorted(records.items()))
    header = _ustar((b"", b"././@PaxHeader"), mode=0o644, flag=_PAX_HEADER, size=len(body), uid=0, gid=0)
    return header + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits too."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest

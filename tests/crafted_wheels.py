"""Small wheels, made for tests."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


def normalise(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A distribution file as the index lists it."""

    name: str
    version: str
    filename: str
    content: bytes
    requires_python: str = ""
    metadata: bytes | None = None
    yanked: str = ""

    @property
    def sha256(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of the content."""
        return len(self.content)


def wheel_metadata(
    name: str, version: str, *, requires: Iterable[str] = (), python_requires: str = "", extras: Iterable[str] = ()
) -> bytes:
    """The METADATA file of a wheel."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python_requires}"] if python_requires else []
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return "\n".join([*lines, "", ""]).encode()


def build_wheel(
    name: str,
    version: str,
    *,
    requires: Iterable[str] = (),
    files: Mapping[str, str | bytes] | None = None,
    tags: str = "py3-none-any",
    python_requires: str = "",
    extras: Iterable[str] = (),
    entry_points: str = "",
) -> tuple[str, bytes, bytes]:
    """A small wheel: its file name, its bytes and its METADATA.

    Args:
        files: Archive path -> content; without it, a module of the distribution's name with `__version__`.
        tags: `python-abi-platform`; compressed tag sets are allowed.
    """
    stem = f"{normalise(name).replace('-', '_')}-{version}"
    metadata = wheel_metadata(name, version, requires=requires, python_requires=python_requires, extras=extras)
    if files is None:
        files = {f"{normalise(name).replace('-', '_')}/__init__.py": f"__version__ = {version!r}\n"}
    pythons, abis, platforms = tags.split("-")
    expanded = [f"{p}-{a}-{m}" for p in pythons.split(".") for a in abis.split(".") for m in platforms.split(".")]
    purelib = "true" if platforms == "any" else "false"
    wheel = "\n".join(
        ["Wheel-Version: 1.0", "Generator: tests", f"Root-Is-Purelib: {purelib}", *(f"Tag: {tag}" for tag in expanded)]
    )
    content = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    content[f"{stem}.dist-info/METADATA"] = metadata
    content[f"{stem}.dist-info/WHEEL"] = (wheel + "\n").encode()
    if entry_points:
        content[f"{stem}.dist-info/entry_points.txt"] = entry_points.encode()
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in content.items()
    )
    content[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return f"{stem}-{tags}.whl", buffer.getvalue(), metadata

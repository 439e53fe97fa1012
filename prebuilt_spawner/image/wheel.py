"""A wheel as a source of files, and every reason to refuse one before a byte of it is installed."""

from __future__ import annotations

import csv
import errno
import hashlib
import re
import stat
import struct
import zipfile
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from installer.exceptions import InstallerError
from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file
from installer.sources import WheelFile
from installer.utils import SCHEME_NAMES, parse_metadata_file
from packaging.utils import InvalidName, InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from ..errors import UnbuildableEnvironment
from .entry_points import EntryPoint, InvalidEntryPoints, entry_points_text, parse_entry_points

CHUNK_BYTES = 256 * 1024
MAX_METADATA_BYTES = 64 * 1024 * 1024
"""What is read into memory whole: metadata files, and scripts whose first line is rewritten."""

_INSTALLERS_OWN = frozenset({"INSTALLER", "REQUESTED", "direct_url.json"})
"""Files of a dist-info folder that only an installer writes; a wheel has no say in them
(https://packaging.python.org/en/latest/specifications/recording-installed-packages/)."""
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
"""Files of a dist-info folder that are made after RECORD, so that it does not list them."""
_MAJOR_VERSION = 1
"""Of the wheel specification; what a newer minor version adds may be passed over."""
_WHITEOUT_PREFIX = ".wh."
"""In a layer, a file of this name deletes another one (OCI image spec, "Whiteouts")."""
_HASH_NAMES = frozenset({"sha256", "sha384", "sha512"})
"""The specification asks for SHA-256 or better of those that Python always has."""
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Control characters, and what else ends a line of RECORD."""
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4095
_ENCRYPTED = 0x1

_WRAPPER_SUFFIX = re.compile(r"(\.exe|-script\.py|\.pya)$", re.IGNORECASE)

# What zipfile and installer raise for an archive that is malformed. OSError is not among them: that is our disk.
_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,
    UnicodeDecodeError,
    KeyError,
    csv.Error,
    InstallerError,
    InvalidRecordEntry,
)


class WheelMember:
    """A file of a wheel that has not been read yet.

    It goes through `installer.install` in the place of a stream, so that the whole wheel is laid out before any content
    is read: once, in the order of the paths in the image.
    """

    __slots__ = ("info", "record")

    def __init__(self, info: zipfile.ZipInfo, record: RecordEntry) -> None:
        self.info = info
        self.record = record
        """What the wheel says of the file. The size is there, and the hash of all but RECORD and its signatures."""

    @property
    def listed_sha256(self) -> str | None:
        """64 hex digits; None where RECORD has another kind of hash. Right once `CheckedWheel.read` has ended."""
        hash_ = self.record.hash_
        if hash_ is None or hash_.name != "sha256":
            return None
        try:
            return urlsafe_b64decode(f"{hash_.value}=").hex()
        except ValueError:
            return None


class CheckedWheel(WheelFile):
    """A wheel that passed every check that needs no file's content; `read` checks the rest."""

    def __init__(self, archive: zipfile.ZipFile, *, max_unpacked_bytes: int) -> None:
        self.name = Path(archive.filename or "").name.partition("-")[0]
        with self.readable():
            try:
                normalised_name, version, _, _ = parse_wheel_filename(Path(archive.filename or "").name)
            except InvalidWheelFilename as error:
                self.refuse("has a file name that is not a wheel's", detail=str(error))
            self.name = normalised_name
            super().__init__(archive)
            self._archive = archive
            self._version = version
            self._check_members(max_unpacked_bytes)
            self._check_metadata()
            self._check_wheel_version()
            self._check_entry_points()
            self._check_record()

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, max_unpacked_bytes: int) -> Iterator[CheckedWheel]:
        """The wheel at this path, whose last part is the wheel's file name.

        Args:
            path: A file on the hub's disk.
            max_unpacked_bytes: Refuse a wheel whose files are larger than this together.

        Raises:
            UnbuildableEnvironment: The wheel is malformed, or holds what cannot be installed.
        """
        try:
            archive = zipfile.ZipFile(path)
        except (*_MALFORMED, ValueError, OverflowError, OSError) as error:
            # Seeking to where a damaged directory points is "invalid argument"; any other OSError is our disk's.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            name = printable(path.name.partition("-")[0])
            raise UnbuildableEnvironment(
                f"The wheel of {name} is not a readable archive. Try another version of it.",
                detail=f"{path}: {error!r}",
            ) from error
        with archive:
            yield cls(archive, max_unpacked_bytes=max_unpacked_bytes)

    def refuse(self, why: str, *, member: str = "", detail: str = "") -> NoReturn:
        """Say that this wheel cannot be installed.

        Args:
            why: Goes on after "The wheel of <name>".
            member: The file that is at fault.
            detail: For the log.
        """
        where = f' (file "{printable(member)}")' if member else ""
        raise UnbuildableEnvironment(
            f"The wheel of {self.name} {why}{where}. Try another version of it.", detail=detail
        )

    @cached_property
    def metadata(self) -> Message:
        """The core metadata."""
        return parse_metadata_file(self.read_dist_info("METADATA"))

    @property
    def data_dir(self) -> str:
        """What `get_contents` calls the folder of files for other places than the site folder."""
        return self.dist_info_dir.removesuffix(".dist-info") + ".data"

    def read_dist_info(self, filename: str) -> str:
        """A file of the dist-info folder, as text.

        Of two that `installer.install` reads it gets what they mean, as it reads them otherwise than pip does: WHEEL,
        where it knows `true` in one spelling only, and the scripts of entry_points.txt.
        """
        if filename == "WHEEL":
            purelib = str(self._wheel_metadata.get("Root-Is-Purelib", "")).strip().lower() == "true"
            return f"Wheel-Version: {_MAJOR_VERSION}.0\nRoot-Is-Purelib: {str(purelib).lower()}\n"
        if filename == "entry_points.txt":
            return entry_points_text(self.scripts)
        return self._read(filename)

    def get_contents(self) -> Iterator[tuple[tuple[str, str, str], BinaryIO, bool]]:
        """What is to be installed: see `installer.sources.WheelSource`. The streams are `WheelMember`s.

        Left out are bytecode, which would hide the sources, and what only the installer writes. A script that goes by
        the name of an entry point is left out too, as pip does: old tools put a wrapper of their own beside the
        declaration.
        """
        commands = {script.name for script in self.scripts}
        for info in self._archive.infolist():
            path = info.filename
            *folders, name = path.split("/")
            if folders and folders[0].endswith(".data"):
                folders[0] = self.data_dir  # from whatever spelling: `_check_metadata` found it to be its own
                path = "/".join((*folders, name))
            is_own = folders == [self.dist_info_dir] and name in _INSTALLERS_OWN
            is_wrapper = folders == [self.data_dir, "scripts"] and _WRAPPER_SUFFIX.sub("", name) in commands
            if info.is_dir() or is_own or is_wrapper or "__pycache__" in folders:
                continue
            mode = info.external_attr >> 16
            is_executable = stat.S_ISREG(mode) and mode & 0o111 != 0
            yield (path, "", ""), cast("BinaryIO", WheelMember(info, self._record_of(info))), is_executable

    def read(self, member: WheelMember) -> Iterator[bytes]:
        """The member's content in pieces; a wrong size, check sum or hash is found at its end at the latest.

        Raises:
            UnbuildableEnvironment: The content is not what the wheel's RECORD says.
        """
        with self.readable(member.info.filename):
            hash_ = member.record.hash_
            hashed = hashlib.new("sha256" if hash_ is None else hash_.name)
            size_bytes = 0
            with self._archive.open(member.info) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    hashed.update(chunk)
                    size_bytes += len(chunk)
                    yield chunk
            value = urlsafe_b64encode(hashed.digest()).decode().rstrip("=")
            if size_bytes != member.record.size or (hash_ is not None and value != hash_.value):
                self.refuse("does not hold what its RECORD lists", member=member.info.filename)

    def begins_with(self, member: WheelMember, start: bytes) -> bool:
        """Whether the member's content begins so."""
        with self.readable(member.info.filename), self._archive.open(member.info) as stream:
            return stream.read(len(start)) == start

    @cached_property
    def scripts(self) -> tuple[EntryPoint, ...]:
        """Its console and gui scripts."""
        if "entry_points.txt" not in self.dist_info_filenames:
            return ()
        return parse_entry_points(self._read("entry_points.txt"))

    @cached_property
    def _wheel_metadata(self) -> Message:
        return parse_metadata_file(self._read("WHEEL"))

    @cached_property
    def _records(self) -> dict[str, RecordEntry]:
        rows = parse_record_file(self._read("RECORD").splitlines())
        return {path: RecordEntry.from_elements(path, hash_, size) for path, hash_, size in rows}

    def _record_of(self, info: zipfile.ZipInfo) -> RecordEntry:
        """RECORD's row for a member: with a size always, with a hash for all but RECORD and its signatures."""
        record = self._records.get(info.filename, RecordEntry(info.filename, None, None))
        return record if record.size is not None else RecordEntry(record.path, record.hash_, info.file_size)

    @contextmanager
    def readable(self, member: str = "") -> Iterator[None]:
        """Translate what the libraries say of a malformed wheel."""
        try:
            yield
        except _MALFORMED as error:
            self.refuse("is malformed", member=member, detail=repr(error))

    def _read(self, filename: str) -> str:
        info = self._archive.getinfo(f"{self.dist_info_dir}/{filename}")
        if info.file_size > MAX_METADATA_BYTES:
            self.refuse("has metadata of an absurd size", member=info.filename)
        return self._archive.read(info).decode("utf-8")

    def _check_members(self, max_unpacked_bytes: int) -> None:
        seen: set[str] = set()
        unpacked_bytes = 0
        archive_bytes = Path(self._archive.filename or "").stat().st_size
        for info in self._archive.infolist():
            path = info.filename
            if (flaw := path_flaw(path.removesuffix("/"))) is not None:
                self.refuse(f"names a file in a way that cannot be installed: {flaw}", member=path)
            if path in seen:
                self.refuse("holds two files of one name", member=path)
            seen.add(path)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in ((0, stat.S_IFDIR) if info.is_dir() else (0, stat.S_IFREG)):
                self.refuse("holds a link or a device, which wheels cannot have", member=path)
            if info.flag_bits & _ENCRYPTED:
                self.refuse("is encrypted", member=path)
            if not 0 <= info.header_offset < archive_bytes or (info.is_dir() and info.file_size):
                self.refuse("is malformed", member=path)
            # zipfile never yields more of a member than is announced here, so that this is also what will be read.
            unpacked_bytes += info.file_size
        if unpacked_bytes > max_unpacked_bytes:
            self.refuse(
                f"is too large: unpacked it has more than {max_unpacked_bytes // 1024**2} MiB",
                detail=f"{unpacked_bytes} bytes",
            )

    def _check_metadata(self) -> None:
        stem = self.dist_info_dir.removesuffix(".dist-info")  # raises where there is none, or more than one
        try:
            folder_name, _, folder_version = stem.rpartition("-")
            names = {canonicalize_name(str(self.metadata["Name"]), validate=True), canonicalize_name(folder_name)}
            versions = {Version(str(self.metadata["Version"])), Version(folder_version.replace("_", "-"))}
        except (InvalidName, InvalidVersion) as error:
            self.refuse("has metadata without a proper name and version", detail=str(error))
        if names != {self.name} or versions != {self._version}:
            self.refuse(
                "has another name or version in its metadata than in its file name", detail=f"{names} {versions}"
            )
        for path in self._archive.namelist():
            top, *rest = path.split("/")
            if not top.endswith(".data") or path.endswith("/"):
                continue
            if len(rest) < 2 or rest[0] not in SCHEME_NAMES:
                self.refuse("has a file for a place that wheels cannot write to", member=path)
            if not self._is_own(top.removesuffix(".data")):
                self.refuse("has a file in the data folder of another distribution", member=path)
            if rest[1].endswith(".dist-info") and rest[0] in ("purelib", "platlib") and rest[1] != self.dist_info_dir:
                self.refuse("has a file in the metadata of another distribution", member=path)

    def _is_own(self, stem: str) -> bool:
        """Whether `name-version` are those of this wheel, in whatever spelling."""
        name, _, version = stem.rpartition("-")
        try:
            return canonicalize_name(name) == self.name and Version(version.replace("_", "-")) == self._version
        except InvalidVersion:
            return False

    def _check_wheel_version(self) -> None:
        text = str(self._wheel_metadata.get("Wheel-Version", "")).strip()
        try:
            major, *_ = map(int, text.split("."))
        except ValueError:
            self.refuse("does not say which version of the wheel format it has", detail=text)
        if major > _MAJOR_VERSION:
            self.refuse(f"has a newer format than can be installed: Wheel-Version {printable(text)}")

    def _check_record(self) -> None:
        not_listed = {f"{self.dist_info_dir}/{name}" for name in ("RECORD", *_SIGNATURES)}
        for info in self._archive.infolist():
            if info.is_dir() or info.filename in not_listed:
                continue
            record = self._records.get(info.filename)
            if record is None or record.hash_ is None:
                self.refuse("has a file that its RECORD does not list with a hash", member=info.filename)
            if record.hash_.name not in _HASH_NAMES:
                self.refuse("lists a file with a hash that wheels cannot have", member=info.filename)

    def _check_entry_points(self) -> None:
        try:
            names = [script.name for script in self.scripts]
        except InvalidEntryPoints as error:
            self.refuse(f"declares its entry points in a way that cannot be read: {printable(str(error))}")
        for name in names:
            if path_flaw(name) is not None:
                self.refuse("declares a command whose name is not a file name", member=name)


def path_flaw(path: str) -> str | None:
    """Why a relative path cannot name a file of an image; None where it can."""
    if path.startswith("/"):
        return "it begins with a slash"
    if _CONTROL_CHARACTER.search(path):
        return "it has a control character"
    if "\\" in path:
        return "it has a backslash"
    if len(path.encode()) > _MAX_PATH_BYTES:
        return "it is too long"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f'it has "{part}" as a part'
        if part.startswith(_WHITEOUT_PREFIX):
            return f'it has a part that begins with "{_WHITEOUT_PREFIX}"'
        if len(part.encode()) > _MAX_NAME_BYTES:
            return "it has a part that is too long"
    return None


def printable(text: str) -> str:
    """Text of strangers for a message: short, and on one line."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."

"""Image plans: which layers make a base and a lock's fragments an environment. Pure: nothing is read or copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..environment.base import BaseImage, BaseProbe, FolderEntry
from ..environment.lock import Lock
from .conflicts import FragmentPart, without_conflicts
from .fragment import Fragment
from .layer import FileRange, ImagePlan, Layer, LowerLayers, Part
from .replacement import RealPaths, parents, replacement
from .tar import END_OF_ARCHIVE, padding, tar_header

HEAVY_FRAGMENT_BYTES = 10 * 1024**2
"""From this size on a wheel has a layer of its own, stored once for all environments that begin with it."""
MAX_HEAVY_LAYERS = 20
MAX_LAYERS = 120
"""Of the whole image, base included. overlay2 stops at about 125."""

_FILE_MODE = 0o644
_NEW_FOLDER = FolderEntry(mode=0o755, uid=0, gid=0)
_OTHER_LAYERS = 3
"""Whiteouts, light wheels, our own files."""


def plan_image(
    *,
    base: BaseImage,
    probe: BaseProbe,
    lock: Lock,
    fragments: Sequence[Fragment],
    own_files: Mapping[str, bytes],
    labels: Mapping[str, str],
    environment: Mapping[str, str],
    digest: str,
    protected: frozenset[str] = frozenset(),
) -> ImagePlan:
    """The image that has the base and what the lock adds.

    Lowest first: whiteouts of what is replaced, alone; a layer for each heavy wheel; one for all others; one for our
    own files. A group that is empty makes no layer. In each layer every folder has one entry, before its content and as
    the base has it; no path is there twice.

    Args:
        base: What lies below.
        probe: What is in it.
        lock: What is installed.
        fragments: One for each wheel of the lock.
        own_files: Our files by path, absolute without the leading slash.
        labels, environment: Added to the base's.
        digest: The environment digest, 64 hex digits.
        protected: Normalised names of the distributions that the server is made of, and of all that they need.

    Raises:
        UnbuildableEnvironment: The wheels' files cannot live together, or cannot live in the base.
    """
    real = RealPaths(probe.links)
    ours = {real(path): content for path, content in own_files.items()}
    replaced = replacement(probe, lock)
    parts = without_conflicts(fragments, probe=probe, replaced=replaced, own_paths=ours, protected=protected)
    heavy, light = _by_weight(parts, room=MAX_LAYERS - len(base.diff_ids) - _OTHER_LAYERS)
    pins = lock.pins
    layers = [
        _whiteout_layer(replaced.removed, names=replaced.former, probe=probe),
        *(_fragment_layer([part], comment=_named(part, pins), probe=probe) for part in heavy),
        _fragment_layer(light, comment=" ".join(_named(part, pins) for part in light), probe=probe),
        _own_layer(ours, probe=probe),
    ]
    return ImagePlan(
        base=base,
        lower=LowerLayers(image_id=base.image_id, diff_ids=base.diff_ids),
        layers=tuple(layer for layer in layers if layer is not None),
        labels=dict(labels),
        environment=dict(environment),
        digest=digest,
    )


def _by_weight(parts: Sequence[FragmentPart], *, room: int) -> tuple[list[FragmentPart], list[FragmentPart]]:
    """The parts that get a layer each, largest first, and the others by name."""
    by_size = sorted(parts, key=lambda part: (-part.fragment.size_bytes, part.fragment.distribution))
    heavy = [part for part in by_size if part.fragment.size_bytes >= HEAVY_FRAGMENT_BYTES]
    heavy = heavy[: max(0, min(MAX_HEAVY_LAYERS, room))]
    names = {part.fragment.distribution for part in heavy}
    return heavy, [part for part in parts if part.fragment.distribution not in names]


def _named(part: FragmentPart, pins: Mapping[str, str]) -> str:
    name = part.fragment.distribution
    return f"{name}=={pins[name]}" if name in pins else name


def _whiteout_layer(removed: Iterable[str], *, names: Iterable[str], probe: BaseProbe) -> Layer | None:
    """Empty files named `.wh.<name>` (OCI image spec, "Whiteouts"), in entries for folders that the base has."""
    whiteouts = {}
    for path in removed:
        folder, slash, name = path.rpartition("/")
        whiteouts[f"{folder}{slash}.wh.{name}"] = b""
    return _layer(f"without the base's {' '.join(sorted(names))}", whiteouts, _small_files(whiteouts), probe=probe)


def _own_layer(files: Mapping[str, bytes], *, probe: BaseProbe) -> Layer | None:
    return _layer("what this image is made of", files, _small_files(files), probe=probe)


def _fragment_layer(parts: Sequence[FragmentPart], *, comment: str, probe: BaseProbe) -> Layer | None:
    paths = [file.path for part in parts for file in part.files]
    ranges = [
        FileRange(path=file.body, offset_bytes=file.offset_bytes, length_bytes=file.length_bytes)
        for part in parts
        for file in part.files
    ]
    return _layer(comment, paths, _coalesced(ranges), probe=probe)


def _layer(comment: str, paths: Iterable[str], content: Iterable[Part], *, probe: BaseProbe) -> Layer | None:
    """A whole layer; None where it would be empty."""
    folders = {folder for path in paths for folder in parents(path)}
    parts = tuple(content)
    if not parts:
        return None
    return Layer(comment=comment, parts=(_folder_entries(folders, probe.folders), *parts, END_OF_ARCHIVE))


def _folder_entries(folders: Iterable[str], present: Mapping[str, FolderEntry]) -> bytes:
    """In the order of their paths, which puts each before what it holds."""
    entries = []
    for path in sorted(folders):
        entry = present.get(f"/{path}", _NEW_FOLDER)
        entries.append(tar_header(path, mode=entry.mode, kind="folder", uid=entry.uid, gid=entry.gid))
    return b"".join(entries)


def _small_files(files: Mapping[str, bytes]) -> tuple[bytes, ...]:
    entries = [
        tar_header(path, size_bytes=len(content), mode=_FILE_MODE, kind="file") + content + padding(len(content))
        for path, content in sorted(files.items())
    ]
    return (b"".join(entries),) if entries else ()


def _coalesced(ranges: Iterable[FileRange]) -> list[FileRange]:
    """Neighbours in one file joined, so that a whole fragment is one range."""
    joined: list[FileRange] = []
    for piece in ranges:
        last = joined[-1] if joined else None
        if last and last.path == piece.path and last.offset_bytes + last.length_bytes == piece.offset_bytes:
            length_bytes = last.length_bytes + piece.length_bytes
            joined[-1] = FileRange(path=last.path, offset_bytes=last.offset_bytes, length_bytes=length_bytes)
        else:
            joined.append(piece)
    return joined

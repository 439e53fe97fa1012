"""Image plans: which layers make a base and a lock's fragments an environment. Pure: nothing is read or copied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..environment.base import BaseImage, BaseProbe, FolderEntry
from ..environment.lock import Lock
from .archive import layer_digest
from .conflicts import check_conflicts
from .fragment import Fragment
from .layer import FileRange, ImagePlan, Layer, LowerLayers, Part
from .paths import RealPaths, parents
from .replacement import Replacement, replacement
from .stacking import Stack, best_first
from .tar import END_OF_ARCHIVE, padding, tar_header

HEAVY_FRAGMENT_BYTES = 10 * 1024**2
"""From this size on a wheel has a layer of its own, stored once for all environments that begin with it."""
MAX_HEAVY_LAYERS = 20
MAX_LAYERS = 120
"""Of the whole image, base included. overlay2 stops at about 125."""

_FILE_MODE = 0o644
_PROGRAM_MODE = 0o755
_NEW_FOLDER = FolderEntry(mode=0o755, uid=0, gid=0)
_OTHER_LAYERS = 3
"""Whiteouts, light wheels, our own files."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What an environment adds to its base, checked: everything but how it is laid out in layers.

    Attributes:
        base: What lies below.
        probe: What is in it.
        lock: What is installed.
        fragments: One for each wheel of the lock, by name of their distribution.
        replaced: What goes from the base.
        own_files: Our files by path, absolute without the leading slash, links of the base resolved.
    """

    base: BaseImage
    probe: BaseProbe
    lock: Lock
    fragments: tuple[Fragment, ...]
    replaced: Replacement
    own_files: Mapping[str, bytes]

    def stacks(self, known: Iterable[Stack]) -> list[Stack]:
        """What of these images the environment can be stacked on, those that save most first."""
        whiteouts = self._whiteouts(frozenset())
        return best_first(
            known,
            sizes_bytes={fragment.wheel_sha256: fragment.size_bytes for fragment in self.fragments},
            whiteouts=None if whiteouts is None else layer_digest(whiteouts),
            max_layers=MAX_LAYERS - len(self.base.diff_ids) - _OTHER_LAYERS,
        )

    def plan(
        self,
        *,
        labels: Mapping[str, str],
        environment: Mapping[str, str],
        digest: str,
        below: tuple[Stack, str] | None = None,
        popularity: Mapping[str, int] | None = None,
    ) -> ImagePlan:
        """An image of it. The files are the same whatever it is stacked on and however popular its wheels are.

        Lowest first: whiteouts of what is replaced, alone; a layer for each heavy wheel, those first that most
        environments have; one for all others; one for our own files. A group that is empty makes no layer. In each
        layer every folder has one entry, before its content and as the base has it; no path is there twice. A layer
        holds each of its wheels whole, so that it can lie below other environments.

        Args:
            labels, environment: Added to the base's.
            digest: The environment digest, 64 hex digits.
            below: One of `stacks`, and the ID of the image that has it; None for the base.
            popularity: How many environments have a wheel, by its SHA-256.
        """
        stack, image_id = below if below is not None else (Stack(digest=digest, layers=()), self.base.image_id)
        diff_ids = (*self.base.diff_ids, *(layer.diff_id for layer in stack.layers))
        missing = [fragment for fragment in self.fragments if fragment.wheel_sha256 not in stack.wheels]
        heavy, light = _by_weight(missing, popularity or {}, most=most_heavy_layers(len(diff_ids)))
        takes_away = any(not layer.wheels for layer in stack.layers)
        layers = [
            None if takes_away else self._whiteouts(stack.wheels),
            *(fragment_layer([fragment], lock=self.lock, probe=self.probe) for fragment in heavy),
            fragment_layer(light, lock=self.lock, probe=self.probe),
            _small_layer("what this image is made of", self.own_files, probe=self.probe),
        ]
        return ImagePlan(
            base=self.base,
            lower=LowerLayers(image_id=image_id, diff_ids=diff_ids),
            layers=tuple(layer for layer in layers if layer is not None),
            labels=dict(labels),
            environment=dict(environment),
            digest=digest,
        )

    def _whiteouts(self, present: frozenset[str]) -> Layer | None:
        """Empty files named `.wh.<name>` (OCI image spec, "Whiteouts"), in entries for folders that the base has.

        Not for what the wheels that are present below have put into the place of the base's.
        """
        kept = {file.path for each in self.fragments if each.wheel_sha256 in present for file in each.files}
        whiteouts = {}
        for path in self.replaced.removed - kept:
            folder, slash, name = path.rpartition("/")
            whiteouts[f"{folder}{slash}.wh.{name}"] = b""
        names = " ".join(sorted(self.replaced.former))
        return _small_layer(f"without the base's {names}", whiteouts, probe=self.probe)


def is_heavy(fragment: Fragment) -> bool:
    """Whether a wheel is to have a layer of its own."""
    return fragment.size_bytes >= HEAVY_FRAGMENT_BYTES


def most_heavy_layers(below: int) -> int:
    """How many heavy wheels can have a layer of their own on top of so many layers."""
    return max(0, min(MAX_HEAVY_LAYERS, MAX_LAYERS - below - _OTHER_LAYERS))


def fragment_layer(fragments: Sequence[Fragment], *, lock: Lock, probe: BaseProbe) -> Layer | None:
    """One layer with these wheels, each whole; None where they have no files.

    Args:
        lock: Names their versions.
        probe: What is in the base.
    """
    pins = lock.pins
    names = [fragment.distribution for fragment in fragments]
    comment = " ".join(f"{name}=={pins[name]}" if name in pins else name for name in names)
    # What several wheels have to the byte is kept once; each of them is whole with the others.
    files = {file.path: file for fragment in reversed(fragments) for file in fragment.files}
    ranges = [
        FileRange(path=file.body, offset_bytes=file.offset_bytes, length_bytes=file.length_bytes)
        for fragment in fragments
        for file in fragment.files
        if files[file.path] is file
    ]
    wheels = frozenset(fragment.wheel_sha256 for fragment in fragments)
    return _layer(comment, files, _coalesced(ranges), probe=probe, wheels=wheels)


def contents(
    *,
    base: BaseImage,
    probe: BaseProbe,
    lock: Lock,
    fragments: Sequence[Fragment],
    own_files: Mapping[str, bytes],
    protected: frozenset[str] = frozenset(),
) -> Contents:
    """Check that the wheels can live together and in the base.

    Args:
        base: What lies below.
        probe: What is in it.
        lock: What is installed.
        fragments: One for each wheel of the lock.
        own_files: Our files by path, absolute without the leading slash.
        protected: Normalised names of the distributions that the server is made of, and of all that they need.

    Raises:
        UnbuildableEnvironment: They cannot.
    """
    real = RealPaths(probe.links)
    ours = {real(path): content for path, content in own_files.items()}
    incoming = {file.path for fragment in fragments for file in fragment.files} | ours.keys()
    replaced = replacement(probe, lock, incoming=incoming)
    check_conflicts(fragments, probe=probe, replaced=replaced, own_paths=ours, protected=protected)
    return Contents(
        base=base,
        probe=probe,
        lock=lock,
        fragments=tuple(sorted(fragments, key=lambda fragment: fragment.distribution)),
        replaced=replaced,
        own_files=ours,
    )


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
    """The image that has the base and what the lock adds, stacked on nothing but the base.

    See `contents` and `Contents.plan` for the arguments.

    Raises:
        UnbuildableEnvironment: The wheels' files cannot live together, or cannot live in the base.
    """
    what = contents(base=base, probe=probe, lock=lock, fragments=fragments, own_files=own_files, protected=protected)
    return what.plan(labels=labels, environment=environment, digest=digest)


def _by_weight(
    fragments: Sequence[Fragment], popularity: Mapping[str, int], *, most: int
) -> tuple[list[Fragment], list[Fragment]]:
    """The fragments that get a layer each, the most popular and then the largest first, and the others by name."""
    heavy = [fragment for fragment in fragments if is_heavy(fragment)]
    # Where there are too many, the largest are worth most.
    heavy.sort(key=lambda fragment: (-fragment.size_bytes, fragment.distribution))
    heavy = heavy[:most]
    heavy.sort(key=lambda fragment: -popularity.get(fragment.wheel_sha256, 0))
    names = {fragment.distribution for fragment in heavy}
    return heavy, [fragment for fragment in fragments if fragment.distribution not in names]


def _small_layer(comment: str, files: Mapping[str, bytes], *, probe: BaseProbe) -> Layer | None:
    return _layer(comment, files, _small_files(files), probe=probe)


def _layer(
    comment: str,
    paths: Iterable[str],
    content: Iterable[Part],
    *,
    probe: BaseProbe,
    wheels: frozenset[str] = frozenset(),
) -> Layer | None:
    """A whole layer; None where it would be empty."""
    folders = {folder for path in paths for folder in parents(path)}
    parts = tuple(content)
    if not parts:
        return None
    return Layer(
        comment=comment, parts=(_folder_entries(folders, probe.folders), *parts, END_OF_ARCHIVE), wheels=wheels
    )


def _folder_entries(folders: Iterable[str], present: Mapping[str, FolderEntry]) -> bytes:
    """In the order of their paths, which puts each before what it holds."""
    entries = []
    for path in sorted(folders):
        entry = present.get(f"/{path}", _NEW_FOLDER)
        entries.append(tar_header(path, mode=entry.mode, kind="folder", uid=entry.uid, gid=entry.gid))
    return b"".join(entries)


def _small_files(files: Mapping[str, bytes]) -> tuple[bytes, ...]:
    entries = [
        tar_header(path, size_bytes=len(content), mode=_mode(content), kind="file") + content + padding(len(content))
        for path, content in sorted(files.items())
    ]
    return (b"".join(entries),) if entries else ()


def _mode(content: bytes) -> int:
    return _PROGRAM_MODE if content.startswith(b"#!") else _FILE_MODE


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

"""Values that describe a base image: what the engine says of it, and what its interpreter says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """An image that environments are stacked on, as one engine holds it.

    Attributes:
        reference: The name that the administrator uses.
        image_id: The engine's own ID (`sha256:…`); the two image stores give one image different IDs.
        digest: The identity by content, 64 hex digits: equal for one image in every store
            and under every name. See `prebuilt_spawner.environment.digest.base_digest`.
        diff_ids: The uncompressed layers' digests (`sha256:…`), lowest first (OCI image spec, `rootfs.diff_ids`).
        config: The runtime part of the image's configuration (OCI image spec `config`, and Docker's `Healthcheck`),
            with Docker's key names and without keys that are null or empty.
        os, architecture, variant: The OCI platform, as `linux`, `amd64`, ``.
    """

    reference: str
    image_id: str
    digest: str
    diff_ids: tuple[str, ...]
    config: Mapping[str, Any]
    os: str
    architecture: str
    variant: str = ""

    @property
    def platform(self) -> str:
        """The OCI platform in one word, as `linux/amd64` or `linux/arm64/v8`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, kw_only=True)
class InstallScheme:
    """Where the files of a wheel go: absolute POSIX paths in the base, symlinks resolved.

    The keys are those of the wheel specification's `.data` folders. `headers` is the folder in which each
    distribution gets a subfolder of its own name.
    """

    purelib: str
    platlib: str
    headers: str
    scripts: str
    data: str


@dataclass(frozen=True, kw_only=True)
class InstalledDistribution:
    """A package that the base holds already.

    Attributes:
        name: Normalised as PEP 503 says.
        version: As its metadata has it.
        location: The absolute folder that holds its metadata folder.
        metadata_directory: Name of the metadata folder or file in it, as `numpy-2.0.0.dist-info`.
        installer: What its INSTALLER file says (`pip`, `uv`, `conda`, `debian`, …) or "".
        requires: Its `Requires-Dist` lines.
        requires_python: Its `Requires-Python`, or "".
        provides_extra: Its `Provides-Extra` names.
        files: What its RECORD (or `installed-files.txt`, which setuptools wrote before) lists and the base has:
            absolute paths of files, symlinked folders resolved; None where it has no such list.
        scripts: The programs of its entry points that are in the scheme's folder for them and on nobody's list.
    """

    name: str
    version: str
    location: str
    metadata_directory: str
    installer: str = ""
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    provides_extra: tuple[str, ...] = ()
    files: tuple[str, ...] | None = None
    scripts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CondaPackage:
    """A package that conda installed and that holds at least one distribution.

    Attributes:
        name: Conda's, which can differ from the distribution's (`pytorch` for `torch`).
        metadata: The absolute paths of its distributions' metadata folders.
        files: Its files in the folders of packages that are on no distribution's list; absolute, symlinked folders
            resolved. Bytecode of listed sources is not among them.
        has_more: Whether it has files in other places that are on no distribution's list, as shared libraries.
    """

    name: str
    metadata: tuple[str, ...]
    files: tuple[str, ...] = ()
    has_more: bool = False


@dataclass(frozen=True, kw_only=True)
class FolderEntry:
    """Mode (permission bits) and owner of a folder that the base has."""

    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class BaseProbe:
    """What the base's own interpreter reports, once for each base digest.

    Attributes:
        python_version: Full, as `3.11.2`.
        implementation: `sys.implementation.name`; only `cpython` is built on.
        abi: The ABI tag of PEP 425, as `cp311` (`cp313t` for a free-threaded interpreter).
        cache_tag: `sys.implementation.cache_tag`, the middle of a pyc's name.
        build: `sys.version`, which tells builds of one version apart: the same build compiles to the same bytecode.
        machine: `platform.machine()`, as `x86_64`.
        glibc: (major, minor) of the C library, None where it is not glibc.
        interpreter: Absolute path that console scripts name after `#!`.
        stdlib: Folder of the standard library; PEP 668's notice goes there.
        virtual: True where the interpreter lives in a virtual environment (PEP 405).
        markers: The environment-marker values of PEP 508 (`packaging.markers.Environment`).
        scheme: Where a wheel's files go.
        import_path: The folders in which modules are looked for, first to last; absolute, symlinks resolved. Those of
            the image's PYTHONPATH come first, as they do for the server.
        customisers: `sitecustomize` and `usercustomize`, which every interpreter imports as it starts: the absolute
            path of each that is there.
        distributions: What is installed, by normalised name; where a name is there twice, the one that is imported.
        copies: The other ones of names that are there twice, and metadata without a name, which gets its folder's.
        conda: Conda's packages that hold distributions, by the absolute path of conda's record of them.
        folders: Every folder at and above the scheme's places and below them, by absolute path.
        links: Symlinks below the scheme's places that point at folders, by absolute path: target.
        compiled: Names of the bytecode files that are on no list, by their folder: those of listed sources, and in
            `__pycache__` beside listed files those whose source is gone.
        occupied: The folders that have a listed file and also something that is neither listed nor in `compiled`; each
            of the two in them or below.
        executables: The programs on the default user's PATH, by name: absolute path of the first.
        user, uid, gid, home: Who the image's default user is; `home` is absolute.
    """

    python_version: str
    implementation: str
    abi: str
    cache_tag: str
    machine: str
    glibc: tuple[int, int] | None
    interpreter: str
    stdlib: str
    virtual: bool
    markers: Mapping[str, str]
    scheme: InstallScheme
    user: str
    uid: int
    gid: int
    home: str
    import_path: tuple[str, ...] = ()
    customisers: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, InstalledDistribution] = field(default_factory=dict)
    copies: tuple[InstalledDistribution, ...] = ()
    conda: Mapping[str, CondaPackage] = field(default_factory=dict)
    folders: Mapping[str, FolderEntry] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    compiled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    occupied: frozenset[str] = frozenset()
    executables: Mapping[str, str] = field(default_factory=dict)
    build: str = ""

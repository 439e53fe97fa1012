"""Why an environment cannot be had: each cause has a name, a sentence on what is wrong, and one on what to try. Pure.

Adapters turn the words of uv, of an index, of the engine and of the disk into a `Failure`, and raise its error. What
the checks of wheels and files raise says its cause in its words alone; `failure_of` reads them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from packaging.utils import canonicalize_name

from ..errors import (
    BaseImageUnavailable,
    BuildRateExceeded,
    BuildTimeout,
    EngineFailure,
    EngineUnavailable,
    IndexUnavailable,
    MalformedRequest,
    PolicyRefusal,
    PrebuiltError,
    QueueFull,
    RegistryUnavailable,
    RequestError,
    ServerEnded,
    StorageFailure,
    SurroundingsError,
    UnbuildableEnvironment,
    UnresolvableRequest,
)

TELL = "Please tell the administrator of this hub."
"""What to do about what no user can mend."""

SOURCE_ADVICE = "Try another package, or an older version that has a wheel, or ask the administrator."
"""What to do where nothing is built from source."""


class Kind(str, Enum):
    """What went wrong, in a word that stays: the ledger and the metrics keep it, and failures are remembered by it.

    The first five groups are a user's to mend, the others the administrator's. Words that are an error class's `reason`
    stand for what is not told more finely.
    """

    NO_SUCH_PACKAGE = "no-such-package"
    NO_SUCH_VERSION = "no-such-version"
    CONFLICT = "conflict"
    SOURCE_ONLY = "source-only"
    NO_FITTING_WHEEL = "no-fitting-wheel"
    OTHER_PYTHON = "other-python"
    WITHDRAWN = "withdrawn"
    OUTSIDE_INDEX = "outside-index"
    UNRESOLVABLE = "unresolvable"

    TOO_LARGE = "too-large"
    FILE_CONFLICT = "file-conflict"
    UNBUILDABLE = "unbuildable"

    BUILD_TOOL = "build-tool"
    BUILD_HEADER = "build-header"
    BUILD_NETWORK = "build-network"
    BUILD_MEMORY = "build-memory"
    BUILD_PROCESSES = "build-processes"
    BUILD_TIME = "build-time"
    BUILD_DISK = "build-disk"
    BUILD_OUTPUT = "build-output"
    BUILD_METADATA = "build-metadata"
    BUILD_NO_WHEEL = "build-no-wheel"
    BUILD_FAILED = "build-failed"

    POLICY = "policy"
    MALFORMED = "malformed"
    REQUEST = "request"

    QUEUE = "queue"
    RATE = "rate"
    TIMEOUT = "timeout"

    HASH_MISMATCH = "hash-mismatch"
    FILE_MISSING = "file-missing"
    INDEX_BROKEN = "index-broken"
    INDEX_SILENT = "index-silent"
    INDEX_UNREACHABLE = "index-unreachable"
    INDEX_CREDENTIALS = "index-credentials"
    INDEX_CERTIFICATE = "index-certificate"
    INDEX = "index"

    DISK_FULL = "disk-full"
    STORAGE = "storage"
    ENGINE_DISK_FULL = "engine-disk-full"
    ENGINE_UNREACHABLE = "engine-unreachable"
    ENGINE = "engine"
    BASE = "base"
    SERVER = "server"
    REGISTRY = "registry"
    SURROUNDINGS = "surroundings"
    INTERNAL = "internal"


_UNRESOLVABLE = (
    *(Kind.NO_SUCH_PACKAGE, Kind.NO_SUCH_VERSION, Kind.CONFLICT, Kind.SOURCE_ONLY, Kind.NO_FITTING_WHEEL),
    *(Kind.OTHER_PYTHON, Kind.WITHDRAWN, Kind.OUTSIDE_INDEX, Kind.UNRESOLVABLE),
)
_UNBUILDABLE = (
    *(Kind.TOO_LARGE, Kind.FILE_CONFLICT, Kind.UNBUILDABLE),
    *(Kind.BUILD_TOOL, Kind.BUILD_HEADER, Kind.BUILD_NETWORK, Kind.BUILD_MEMORY, Kind.BUILD_PROCESSES, Kind.BUILD_TIME),
    *(Kind.BUILD_DISK, Kind.BUILD_OUTPUT, Kind.BUILD_METADATA, Kind.BUILD_NO_WHEEL, Kind.BUILD_FAILED),
)
_OF_PACKAGES = frozenset((*_UNRESOLVABLE, *_UNBUILDABLE))

_ERRORS: Mapping[Kind, type[PrebuiltError]] = {
    **dict.fromkeys(_UNRESOLVABLE, UnresolvableRequest),
    **dict.fromkeys(_UNBUILDABLE, UnbuildableEnvironment),
    Kind.POLICY: PolicyRefusal,
    Kind.MALFORMED: MalformedRequest,
    Kind.REQUEST: RequestError,
    Kind.QUEUE: QueueFull,
    Kind.RATE: BuildRateExceeded,
    Kind.TIMEOUT: BuildTimeout,
    **dict.fromkeys(
        (
            *(Kind.HASH_MISMATCH, Kind.FILE_MISSING, Kind.INDEX_BROKEN, Kind.INDEX_SILENT, Kind.INDEX_UNREACHABLE),
            *(Kind.INDEX_CREDENTIALS, Kind.INDEX_CERTIFICATE, Kind.INDEX),
        ),
        IndexUnavailable,
    ),
    **dict.fromkeys((Kind.DISK_FULL, Kind.STORAGE, Kind.ENGINE_DISK_FULL), StorageFailure),
    Kind.ENGINE_UNREACHABLE: EngineUnavailable,
    Kind.ENGINE: EngineFailure,
    Kind.BASE: BaseImageUnavailable,
    Kind.SERVER: ServerEnded,
    Kind.REGISTRY: RegistryUnavailable,
    Kind.SURROUNDINGS: SurroundingsError,
    Kind.INTERNAL: PrebuiltError,
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why it failed, for a user.

    Attributes:
        kind: The cause.
        what: One sentence: what is wrong, with the package's name where it is about one.
        advice: One sentence: what to try, or whom to tell; "" where `what` says it.
        package: The normalised name of the package, "" where there is none, or several.
    """

    kind: Kind
    what: str
    advice: str = ""
    package: str = ""

    @property
    def message(self) -> str:
        """Both sentences."""
        return f"{self.what} {self.advice}".strip()

    def error(self, *, detail: str = "") -> PrebuiltError:
        """The error that stands for it; `detail` is for the administrator's log alone."""
        return _ERRORS[self.kind](
            self.message,
            detail=detail,
            package=self.package,
            cause=self.kind.value,
            about="packages" if self.kind in _OF_PACKAGES else "",
            entry=self.package if self.kind in _OF_PACKAGES else "",
        )


def disk_failure(error: OSError) -> Failure:
    """A disk of the hub that refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    return Failure(kind=Kind.STORAGE, what="The hub cannot read or write its disk.", advice=TELL)


def disk_full() -> Failure:
    """No space on a disk of the hub."""
    return Failure(kind=Kind.DISK_FULL, what="The hub's disk is full.", advice=TELL)


# What the checks of wheels and of files in `image` say.
_OF_WHEEL = re.compile(r"The wheel of (?P<name>[A-Za-z0-9._-]+) (?P<rest>.*)", re.DOTALL)
_OF_FILES = re.compile(
    r'(?P<name>[A-Za-z0-9._-]+) (?:has a file "|brings a command "|\S+ of the base image cannot be replaced)'
)
_OF_TWO = re.compile(r'[A-Za-z0-9._-]+ and [A-Za-z0-9._-]+ both have "')


def failure_of(error: PrebuiltError) -> Failure:
    """The failure that an error stands for, whoever raised it."""
    kind, package = Kind(error.cause), error.package
    if isinstance(error, UnbuildableEnvironment) and kind is Kind.UNBUILDABLE:
        kind, found = _of_check(error.message)
        package = package or found
    return Failure(kind=kind, what=error.message, package=package)


def _of_check(message: str) -> tuple[Kind, str]:
    """(kind, package) of what a check says. Only beginnings are read: file names further on come from strangers."""
    wheel = _OF_WHEEL.match(message)
    if wheel is not None:
        too_large = wheel["rest"].startswith("is too large")
        return (Kind.TOO_LARGE if too_large else Kind.UNBUILDABLE), canonicalize_name(wheel["name"])
    files = _OF_FILES.match(message)
    if files is not None:
        return Kind.FILE_CONFLICT, canonicalize_name(files["name"])
    return (Kind.FILE_CONFLICT if _OF_TWO.match(message) else Kind.UNBUILDABLE), ""

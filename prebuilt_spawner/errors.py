"""Every exception of this package, on one screen.

Each says what happened, why, and what to do::

    PrebuiltError                     500
    ├── RequestError                       the request's fault: a user can mend it
    │   ├── MalformedRequest          400  not a request that we read at all
    │   ├── PolicyRefusal             403  read, and not allowed for this user
    │   ├── UnresolvableRequest       422  no set of wheels satisfies it on this base
    │   └── UnbuildableEnvironment    422  resolved, but its files cannot live together or in the base
    ├── QueueFull                     429  too many builds wait already
    │   └── BuildRateExceeded              this user has had enough prepared for a while
    ├── BuildTimeout                  504  resolving or building took longer than it may
    └── SurroundingsError             503  the administrator's: engine, index, registry or disk
        ├── EngineUnavailable              the engine cannot be reached
        ├── EngineFailure                  the engine answered, and refused or broke off
        │   └── LayersGone                 layers that an image was to be stacked on are not there any more
        ├── BaseImageUnavailable           the base image is absent and cannot be pulled, or cannot be used
        ├── IndexUnavailable               the package index cannot be reached, or answers nonsense
        ├── RegistryUnavailable            the registry cannot be reached, or answers nonsense
        ├── RegistryRefusal                the registry answered, and does not let this hub do it
        ├── StorageFailure                 a disk is full, or cannot be written
        └── ServerEnded                    the container was started, and ended before its server answered
"""

from __future__ import annotations

from typing import ClassVar


class PrebuiltError(Exception):
    """Base of all our errors.

    Args:
        message: One or two sentences for the user: what is wrong and what to try. Never a path, a
            credential or a traceback.
        detail: What the administrator's log gets besides; may be long. Never shown to a user.
        package: The normalised name of the package that it is about; "" where there is none, or several.
        cause: A short word for what went wrong, finer than the class: a `build.failure.Kind`. By it a failure is
            remembered and counted. Where nobody said, the class's `reason`.
        about: The user option that it is about: "packages", "profile", "image" or "refresh"; "" where nobody said.
        entry: The entry of the package list that it is about, or the package's name; "" where there is none.

    Attributes:
        build_id: The ledger's number of the build that it ended; 0 where there is none.
    """

    status: ClassVar[int] = 500
    """The HTTP status that stands for this error over REST."""
    reason: ClassVar[str] = "internal"
    """A short word for metrics; one for each class, so that labels stay few."""

    def __init__(
        self, message: str, *, detail: str = "", package: str = "", cause: str = "", about: str = "", entry: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.package = package
        self.cause = cause or self.reason
        self.about = about
        self.entry = entry
        self.build_id = 0


class RequestError(PrebuiltError):
    """What the user asked for cannot be; asking differently can."""

    status = 400
    reason = "request"


class MalformedRequest(RequestError):
    """The options or a requirement in them are not of the form that we read."""

    status = 400
    reason = "malformed"


class PolicyRefusal(RequestError):
    """The request is well-formed, and this user may not make it."""

    status = 403
    reason = "policy"


class UnresolvableRequest(RequestError):
    """No set of wheels satisfies the request on this base.

    Attributes:
        sources: Packages without a fitting wheel, as requirements by the versions that were looked for: wheels that are
            made of their sources might satisfy it. Empty where nobody said so.
    """

    status = 422
    reason = "unresolvable"
    sources: tuple[str, ...] = ()


class UnbuildableEnvironment(RequestError):
    """The wheels were found, and cannot be installed together or on this base."""

    status = 422
    reason = "unbuildable"


class QueueFull(PrebuiltError):
    """As many builds wait as may."""

    status = 429
    reason = "queue"


class BuildRateExceeded(QueueFull):
    """The user has had as much resolved and built within an hour as one may."""

    reason = "rate"


class BuildTimeout(PrebuiltError):
    """Preparing the environment took longer than it may."""

    status = 504
    reason = "timeout"


class SurroundingsError(PrebuiltError):
    """Something that no user can mend: the request may well work later."""

    status = 503
    reason = "surroundings"


class EngineUnavailable(SurroundingsError):
    """The container engine cannot be reached."""

    reason = "engine"


class EngineFailure(SurroundingsError):
    """The engine was reached, and refused or broke off what we asked."""

    reason = "engine"


class LayersGone(EngineFailure):
    """An image whose layers were needed is not in the engine any more; planning once more may do without it."""


class BaseImageUnavailable(SurroundingsError):
    """The base image is absent and cannot be pulled, or is nothing that we can build on."""

    reason = "base"


class IndexUnavailable(SurroundingsError):
    """A package index cannot be reached, or does not serve what it lists."""

    reason = "index"


class RegistryUnavailable(SurroundingsError):
    """The registry cannot be reached, takes too long, or answers nonsense. Never a user's: images are built then."""

    reason = "registry"


class RegistryRefusal(SurroundingsError):
    """The registry was reached, and does not let this hub do it. Never a user's: images are built then."""

    reason = "registry"


class StorageFailure(SurroundingsError):
    """A disk of the hub or of the engine is full, or cannot be written."""

    reason = "storage"


class ServerEnded(SurroundingsError):
    """The container was started, and ended before its server answered."""

    reason = "server"

"""Names of images, as the distribution reference grammar and Docker read them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import MalformedRequest
from .quoting import quoted

_DEFAULT_REGISTRY = "docker.io"
_REGISTRY_ALIASES = {"index.docker.io": _DEFAULT_REGISTRY, "registry-1.docker.io": _DEFAULT_REGISTRY}
_MAX_NAME_CHARACTERS = 255
_MAX_REFERENCE_CHARACTERS = 1024

# Grammar: `reference := name [":" tag] ["@" digest]`, `name := [domain "/"] path`.
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image's name in full.

    Attributes:
        registry: Host, with the port where one is named; `docker.io` where none is named.
        repository: The path below it, as `library/debian`.
        tag: "" where none is named.
        digest: `sha256:…`, or "" where none is named.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = self.tag or ("" if self.digest else "latest")
        return f"{self.registry}/{self.repository}{tag and f':{tag}'}{self.digest and f'@{self.digest}'}"


def environment_reference(repository: str, digest: str, registry: str | None = None) -> str:
    """The name of the image that holds an environment, `[<registry>/]<repository>:<digest>`.

    Raises:
        ValueError: The digest is not 64 hex digits.
    """
    if not _HEX_DIGEST.fullmatch(digest):
        raise ValueError(f"not an environment digest: {quoted(digest)}")
    name = f"{repository}:{digest}"
    return f"{registry.rstrip('/')}/{name}" if registry else name


def parse_reference(text: str) -> Reference:
    """The parts of an image's name, with Docker's defaults filled in.

    Raises:
        MalformedRequest: It is no name of an image; the engine's own image IDs are none either.
    """
    if not text or len(text) > _MAX_REFERENCE_CHARACTERS or _IMAGE_ID.fullmatch(text):
        raise _malformed(text)
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _malformed(text)
    # A colon before the last slash belongs to the port.
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, colon, tag = name, "", ""
    if colon and not _TAG.fullmatch(tag):
        raise _malformed(text)
    registry, repository = _split_registry(path)
    if not _DOMAIN.fullmatch(registry) or not _PATH.fullmatch(repository):
        raise _malformed(text)
    if len(registry) + 1 + len(repository) > _MAX_NAME_CHARACTERS:
        raise _malformed(text)
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)


def is_registry(host: str) -> bool:
    """Whether this is a registry, as it stands in the names of images; not Docker Hub, whose names leave it out."""
    try:
        named = parse_reference(f"{host}/a/b")
    except MalformedRequest:
        return False
    return named == Reference(registry=host, repository="a/b") and host != _DEFAULT_REGISTRY


def repository_places(repository: str, registry: str | None = None) -> tuple[str, ...]:
    """Where images of ours are named, without tag: with a registry, the repository of the same name without one, too.
    Images from before the registry was set up are there, and the names that keep images for a while."""
    return (f"{registry.rstrip('/')}/{repository}", repository) if registry else (repository,)


def is_in_repository(reference: str, repository: str, registry: str | None = None) -> bool:
    """Whether an image's name lies in this repository, whatever its spelling, tag or digest.

    With a registry there are two, see `repository_places`. An image ID names no repository; only the engine can say
    what it is.

    Raises:
        MalformedRequest: The reference is no name of an image.
    """
    if _IMAGE_ID.fullmatch(reference):
        return False
    return _place(reference) in {_place(name) for name in repository_places(repository, registry)}


def _place(name: str) -> tuple[str, str]:
    parsed = parse_reference(name)
    # Both ways to spell a default port reach the same registry.
    return re.sub(r":(?:80|443)\Z", "", parsed.registry), parsed.repository


def _split_registry(path: str) -> tuple[str, str]:
    """As Docker does: the first part is a host if it looks like one, otherwise the default registry is meant."""
    first, slash, rest = path.partition("/")
    if not slash or not (re.search(r"[.:]", first) or first == "localhost" or first != first.lower()):
        first, rest = _DEFAULT_REGISTRY, path
    if first != first.lower() and (re.search(r"[.:]", first) or first.lower() == "localhost"):
        # Host names have no case. One without a dot keeps it: the capital is what makes it a host.
        first = first.lower()
    registry = _REGISTRY_ALIASES.get(first, first)
    if registry == _DEFAULT_REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    return registry, rest


def _malformed(text: str) -> MalformedRequest:
    return MalformedRequest(f"{quoted(text)} is not an image name such as 'registry.example.org/group/name:tag'.")

"""One repository of a registry that speaks the OCI distribution specification: looked into, and written to.

Images are put there in one form, whatever engine made them: layers are not compressed, so that a layer's digest is its
diff ID, which is known before anything is sent. The base's layers are those of the base in the same registry where the
engine pulled it from there, and mounted from its repository; else they are sent uncompressed, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, TypeVar

from ..build.registry import BaseContent, PublishedImage, Push
from ..environment.base import BaseImage
from ..environment.reference import parse_reference
from ..errors import EngineFailure, PrebuiltError, RegistryRefusal, RegistryUnavailable
from ..image.archive import layer_digest, read_parts
from ..image.config import LAYER_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, derived_config, oci_manifest, sha256_of
from ..image.layer import ImagePlan
from .network import NetworkSettings
from .registry_session import RegistrySession
from .stoppable import Cancelled, StoppableThreads

T = TypeVar("T")

_log = logging.getLogger(__name__)

_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_IMAGE_TYPES = (MANIFEST_MEDIA_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
_ACCEPT = {"Accept": ", ".join((*_IMAGE_TYPES, *_INDEX_TYPES))}
_BINARY = {"Content-Type": "application/octet-stream"}
_LOOK_SECONDS = 5
_CHUNK_BYTES = 1 << 20


class OciRegistry:
    """Implements `prebuilt_spawner.build.registry.Registry`.

    Args:
        host: With its port, as it stands in an image's name.
        repository: Where the images are named.
        network: How the registry is reached; see `registry_network`.
        look_seconds: How long a look waits for each answer.
    """

    def __init__(
        self, host: str, repository: str, network: NetworkSettings, *, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._host = host
        self._repository = repository
        self._network = network
        self._look_seconds = look_seconds
        self._threads = StoppableThreads("prebuilt-registry")

    async def find(self, tag: str) -> PublishedImage | None:
        """See `Registry.find`."""

        def work(stop: threading.Event) -> PublishedImage | None:
            with closing(
                RegistrySession(self._host, self._network, stop, answer_seconds=self._look_seconds)
            ) as session:
                return _published(session, self._repository, tag)

        return await self._run(work)

    async def push(self, tag: str, plan: ImagePlan, base: BaseContent) -> Push:
        """See `Registry.push`."""

        def work(stop: threading.Event) -> Push:
            with closing(RegistrySession(self._host, self._network, stop)) as session:
                return _Pushing(session, self._host, self._repository, stop).push(tag, plan, base)

        return await self._run(work)

    async def close(self) -> None:
        """See `Registry.close`."""
        await self._threads.close()

    async def _run(self, work: Callable[[threading.Event], T]) -> T:
        try:
            return await self._threads.run(work)
        except Cancelled as error:  # by `close`
            raise RegistryUnavailable("The hub is being stopped. Try again in a few minutes.") from error
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise _nonsense(f"a document is not of its form: {type(error).__name__}: {error}") from error


# -- looking -----------------------------------------------------------------------------------------------------------


def _published(session: RegistrySession, repository: str, tag: str) -> PublishedImage | None:
    found = _manifest(session, repository, tag)
    if found is None:
        return None
    digest, manifest = found
    layers = manifest.get("layers")
    config = _config(session, repository, manifest) if isinstance(layers, list) else None
    sizes = [layer["size"] for layer in layers or () if isinstance(layer, dict) and isinstance(layer.get("size"), int)]
    return PublishedImage(manifest_digest=digest, config=config, size_bytes=sum(sizes))


def _manifest(session: RegistrySession, repository: str, reference: str) -> tuple[str, dict[str, Any]] | None:
    """Digest and content of what is under a tag or a digest; None where nothing is."""
    answer, body = session.small("GET", f"/v2/{repository}/manifests/{reference}", headers=_ACCEPT, expected=(200, 404))
    if answer.status_code == 404:
        return None
    digest = sha256_of(body)
    if reference.startswith("sha256:") and digest != reference:
        raise _nonsense(f"{repository}@{reference} has the digest {digest}")
    return digest, _object(body)


def _config(session: RegistrySession, repository: str, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration file that a manifest names; None where it names none, or one that is not there."""
    digest = _digest_of(manifest.get("config"))
    if not digest:
        return None
    answer, body = session.small("GET", f"/v2/{repository}/blobs/{digest}", expected=(200, 404))
    if answer.status_code == 404:
        return None
    if sha256_of(body) != digest:
        raise _nonsense(f"the blob {digest} of {repository} has another digest")
    return _object(body)


def _digest_of(descriptor: Any) -> str:
    return str(descriptor.get("digest") or "") if isinstance(descriptor, dict) else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise _nonsense("a document is no JSON") from error
    if not isinstance(found, dict):
        raise _nonsense("a document is no JSON object")
    return found


def _nonsense(detail: str) -> RegistryUnavailable:
    return RegistryUnavailable("The registry gives no usable answer. Tell your administrator.", detail=detail)


# -- writing -----------------------------------------------------------------------------------------------------------


class _Pushing:
    """One image on its way."""

    def __init__(self, session: RegistrySession, host: str, repository: str, stop: threading.Event) -> None:
        self._session = session
        self._host = host
        self._repository = repository
        self._stop = stop
        self._sent_bytes = self._present_bytes = self._mounted_bytes = 0

    def push(self, tag: str, plan: ImagePlan, base: BaseContent) -> Push:
        there = _manifest(self._session, self._repository, tag)
        if there is not None:
            return Push(manifest_digest=there[0], was_there=True)
        # Where others send the same at the same moment, a registry may miss a blob that it had said to have.
        for is_last in (False, False, False, True):
            pushed = self._pushed(tag, plan, base, is_last=is_last)
            if pushed is not None:
                return pushed
        raise AssertionError("unreachable")

    def _pushed(self, tag: str, plan: ImagePlan, base: BaseContent, *, is_last: bool) -> Push | None:
        """None where the registry confuses this with what others send at the same moment, and another try is left."""
        lower = self._published_base(plan.base, base.names) or self._sent_base(plan.base, base)
        diff_ids = []
        for layer in plan.layers:
            diff_ids.append(layer_digest(layer))
            self._have(diff_ids[-1], _SizedBody(read_parts(layer.parts), self._stop, layer.size_bytes))
        config = derived_config(plan, diff_ids)
        self._have(sha256_of(config), _SizedBody(iter([config]), self._stop, len(config)))
        manifest = oci_manifest(plan, config, diff_ids, lower)
        # Somebody else may have been quicker. The specification has no way to ask for "only if absent".
        try:
            there = _manifest(self._session, self._repository, tag)
        except RegistryUnavailable:  # a registry that keeps tags in files cannot read one that is just being written
            if is_last:
                raise
            return None
        if there is None:
            answer = self._session.request(
                "PUT",
                f"/v2/{self._repository}/manifests/{tag}",
                data=manifest,
                headers={"Content-Type": MANIFEST_MEDIA_TYPE},
                expected=(201,) if is_last else (201, 400, 404),
            )
            answer.close()
            if answer.status_code != 201:
                return None
            self._sent_bytes += len(manifest)
        return Push(
            manifest_digest=sha256_of(manifest) if there is None else there[0],
            was_there=there is not None,
            sent_bytes=self._sent_bytes,
            present_bytes=self._present_bytes,
            mounted_bytes=self._mounted_bytes,
        )

    # -- the base's layers -------------------------------------------------------------------------------------------

    def _published_base(self, base: BaseImage, names: Sequence[str]) -> list[dict[str, Any]] | None:
        """The descriptors of the base's layers as this registry has them, where the engine pulled it from here; they
        are in our repository afterwards."""
        for name in names:
            reference = parse_reference(name)
            if reference.registry != parse_reference(f"{self._host}/x").registry:
                continue
            try:
                layers = self._layers_of(base, reference.repository, reference.digest)
            except RegistryRefusal as error:
                _log.info("The layers of %s cannot be taken over: %s", name, error.detail)
                continue
            if layers is not None:
                for layer in layers:
                    self._take_over(layer, reference.repository)
                return layers
        return None

    def _layers_of(self, base: BaseImage, repository: str, reference: str) -> list[dict[str, Any]] | None:
        found = _manifest(self._session, repository, reference)
        if found is None:
            return None
        _, manifest = found
        for entry in manifest.get("manifests") or ():
            layers = self._layers_of(base, repository, _digest_of(entry)) if _digest_of(entry) else None
            if layers is not None:
                return layers
        layers = manifest.get("layers") or []
        if len(layers) != len(base.diff_ids) or any(layer.get("urls") for layer in layers):
            return None
        config = _config(self._session, repository, manifest) or {}
        diff_ids = tuple((config.get("rootfs") or {}).get("diff_ids") or ())
        # Annotations differ from copy to copy.
        kept = [{key: layer[key] for key in ("mediaType", "digest", "size")} for layer in layers]
        return [_as_oci(layer) for layer in kept] if diff_ids == base.diff_ids else None

    def _take_over(self, layer: Mapping[str, Any], source: str) -> None:
        digest, size_bytes = layer["digest"], int(layer["size"])
        if source == self._repository or self._present_size(digest) is not None:
            self._present_bytes += size_bytes
            return
        answer = self._session.request(
            "POST",
            f"/v2/{self._repository}/blobs/uploads/",
            params={"mount": digest, "from": source},
            expected=(201, 202),
        )
        answer.close()
        if answer.status_code == 201:
            self._mounted_bytes += size_bytes
            return
        # It does not mount, and has begun an upload instead.
        self._drop(self._session.place(answer))
        blob = self._session.request("GET", f"/v2/{source}/blobs/{digest}", expected=(200,))
        with blob:
            self._upload(_SizedBody(blob.iter_content(_CHUNK_BYTES), self._stop, size_bytes), digest)

    def _sent_base(self, base: BaseImage, content: BaseContent) -> list[dict[str, Any]]:
        """The descriptors of the base's layers, uncompressed; what is missing of them is sent."""
        sizes = {diff_id: self._present_size(diff_id) for diff_id in base.diff_ids}
        self._present_bytes += sum(size or 0 for size in sizes.values())

        def take(diff_id: str, chunks: Iterator[bytes]) -> None:
            wanted = {one for one, size in sizes.items() if size is None}
            if wanted and (not diff_id or diff_id in wanted):
                body = _Body(chunks, self._stop)
                found = self._upload(body, wanted=wanted)
                if found:
                    sizes[found] = body.passed_bytes

        if None in sizes.values():
            content.save(take, self._stop)
        missing = [diff_id for diff_id, size in sizes.items() if size is None]
        if missing:
            raise EngineFailure(
                "The container engine does not give a base image's layers. Tell your administrator.",
                detail=f"{base.reference}: saved without {', '.join(missing)}. Push the base image to the registry",
            )
        return [{"mediaType": LAYER_MEDIA_TYPE, "digest": diff_id, "size": sizes[diff_id]} for diff_id in base.diff_ids]

    # -- blobs -------------------------------------------------------------------------------------------------------

    def _present_size(self, digest: str) -> int | None:
        """The bytes of a blob in our repository; None where it is not there."""
        with self._session.request("HEAD", f"/v2/{self._repository}/blobs/{digest}", expected=(200, 404)) as answer:
            return int(answer.headers.get("Content-Length") or 0) if answer.status_code == 200 else None

    def _have(self, digest: str, body: _SizedBody) -> None:
        if self._present_size(digest) is None:
            self._upload(body, digest)
        else:
            self._present_bytes += len(body)

    def _upload(self, body: _Body, digest: str = "", *, wanted: Iterable[str] = ()) -> str:
        """Send a blob. Without a digest it is kept where it turns out to be a wanted one; "" where it is none.

        Raises:
            RegistryUnavailable: What was sent is not what it should be.
        """
        answer = self._session.request("POST", f"/v2/{self._repository}/blobs/uploads/", expected=(202,))
        answer.close()
        place = self._session.place(answer)
        try:
            answer = self._session.request("PATCH", place, data=body, headers=_BINARY, expected=(202, 204))
            answer.close()
            place = self._session.place(answer)
            found = body.digest
            if found not in (digest, *wanted):
                if digest:
                    raise _nonsense(f"{found} was sent instead of {digest}")
                self._drop(place)
                return ""
            self._session.request("PUT", place, params={"digest": found}, data=b"", expected=(201,)).close()
        except BaseException:
            self._drop(place)
            raise
        self._sent_bytes += body.passed_bytes
        return found

    def _drop(self, place: str) -> None:
        """Have the registry forget an upload; by itself it would keep it for days."""
        with suppress(PrebuiltError, Cancelled):
            self._session.request("DELETE", place, expected=(200, 202, 204, 404)).close()


class _Body:
    """What is sent, hashed on its way."""

    def __init__(self, chunks: Iterator[bytes], stop: threading.Event) -> None:
        self.passed_bytes = 0
        self._chunks = chunks
        self._stop = stop
        self._hashed = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if self._stop.is_set():
                raise Cancelled
            self._hashed.update(chunk)
            self.passed_bytes += len(chunk)
            if chunk:  # an empty one would end the message
                yield chunk

    @property
    def digest(self) -> str:
        """Of what has passed."""
        return f"sha256:{self._hashed.hexdigest()}"


class _SizedBody(_Body):
    """One whose length requests announces."""

    def __init__(self, chunks: Iterator[bytes], stop: threading.Event, size_bytes: int) -> None:
        super().__init__(chunks, stop)
        self._size_bytes = size_bytes

    def __len__(self) -> int:
        return self._size_bytes


def _as_oci(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's descriptor, by the names that an OCI manifest has for what Docker calls otherwise."""
    kinds = {
        "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER_MEDIA_TYPE}+gzip",
        "application/vnd.docker.image.rootfs.diff.tar": LAYER_MEDIA_TYPE,
    }
    return {**layer, "mediaType": kinds.get(str(layer["mediaType"]), layer["mediaType"])}

"""Images for a graphdriver store, loaded in pieces: while an engine unpacks one, it receives the next.

It unpacks nothing before it has an archive as a whole. So a large image is sent as several, each with some more layers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace

import docker
from docker.errors import NotFound

from ..build.events import Report, ignore
from ..environment.base import BaseImage
from ..errors import EngineFailure, LayersGone, PrebuiltError
from ..image.archive import docker_archive
from ..image.config import derived_config
from ..image.layer import ImagePlan, Layer, LowerLayers
from ..image.names import DIGEST_LABEL, STEP_LABEL
from . import docker_archives
from .docker_client import Cancelled, DockerClient
from .docker_images import discard
from .stoppable import daemon

_log = logging.getLogger(__name__)

PIECE_BYTES = 64 << 20
"""A large image is loaded in pieces of at least this size."""
_LOOK_SECONDS = 0.1


def load_docker_archives(
    client: docker.APIClient,
    stop: threading.Event,
    plan: ImagePlan,
    report: Report,
    *,
    open_client: Callable[[], docker.APIClient],
) -> tuple[str, tuple[str, ...]]:
    """Load the planned image into a graphdriver store, without a name.

    Args:
        open_client: Gives clients for the threads that send.

    Returns:
        The image's ID, and the digests of the plan's layers, lowest first. When it fails, nothing is left behind.

    Raises:
        LayersGone: Somebody has removed layers that were loaded just now.
    """
    *others, last = in_pieces(plan.layers)
    if not others:
        diff_ids = docker_archives.own_diff_ids(plan)
        image_id, archive = docker_archive(plan, derived_config(plan, diff_ids), diff_ids)
        docker_archives.load_archive(client, image_id, docker_archives.reported(archive, stop, plan, report))
        return image_id, diff_ids
    pieces = Pieces(open_client, stop, plan, report)
    try:
        for layers in others:
            pieces.begin(layers)
        pieces.begin(last, is_last=True)
        return pieces.finish()
    finally:
        pieces.leave(client)


def in_pieces(layers: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    """The layers, in groups of `PIECE_BYTES` at least; a smaller rest goes with the last of them."""
    left_bytes = sum(layer.size_bytes for layer in layers)
    group: list[Layer] = []
    group_bytes = 0
    for layer in layers:
        group.append(layer)
        group_bytes += layer.size_bytes
        if group_bytes >= PIECE_BYTES and left_bytes - group_bytes >= PIECE_BYTES:
            yield tuple(group)
            left_bytes -= group_bytes
            group, group_bytes = [], 0
    yield tuple(group)


class Pieces:
    """The archives of one image, each loaded on top of the one before.

    Args:
        open_client: Gives clients for the threads that send.
        stop: Set when nobody waits any more.
        plan: The image. Its layers count for the last piece only.
    """

    def __init__(
        self, open_client: Callable[[], docker.APIClient], stop: threading.Event, plan: ImagePlan, report: Report
    ) -> None:
        self._open_client = open_client
        self._stop = stop
        self._plan = plan
        self._report = report
        self._sent = docker_archives.Sent()
        self._word = secrets.token_hex(8)
        self._diff_ids: tuple[str, ...] = ()
        self._loads: list[Future[None]] = []
        self._images: list[str] = []
        self._made = ""
        self._halt = threading.Event()
        """Set when one has failed: the others are given up."""

    def begin(self, layers: tuple[Layer, ...], *, is_last: bool = False) -> None:
        """Hash these layers, and have them loaded. The last piece is the planned image, the others are on the way."""
        if self._halt.is_set():
            return
        lower = replace(self._plan.lower, diff_ids=(*self._plan.lower.diff_ids, *self._diff_ids))
        piece = replace(self._plan, lower=lower, layers=layers)
        diff_ids = docker_archives.own_diff_ids(piece)
        self._diff_ids += diff_ids
        if is_last:
            config = derived_config(self._plan, self._diff_ids)
        else:
            # Nobody else's, who could remove it while this needs it; and found by whoever puts in order what was left.
            labels = {DIGEST_LABEL: self._plan.digest, STEP_LABEL: self._word}
            config = derived_config(replace(piece, labels=labels, environment={}), diff_ids)
        image_id, archive = docker_archive(piece, config, diff_ids)
        before = tuple(self._loads[-2:])
        thread, load = daemon(lambda: self._load(image_id, archive, before), "prebuilt-load")
        self._images.append(image_id)
        self._loads.append(load)
        thread.start()

    def finish(self) -> tuple[str, tuple[str, ...]]:
        """Wait until all are loaded; the last one's image ID, and the digests of all layers."""
        failures = [failure for load in self._loads if (failure := load.exception()) is not None]
        if failures:
            first = min(failures, key=lambda each: isinstance(each, _GivenUpError))
            self._require_steps(first)
            raise first
        self._made = self._images[-1]
        return self._made, self._diff_ids

    def leave(self, client: docker.APIClient) -> None:
        """Give up what is not done, and remove the images on the way: what they hold is the last one's too."""
        self._halt.set()
        wait(self._loads)
        for image_id in self._images:
            if image_id != self._made:
                with contextlib.suppress(Exception):
                    discard(client, image_id)

    def _require_steps(self, failure: BaseException) -> None:
        """Say so, where what was loaded has gone."""
        if not isinstance(failure, EngineFailure):
            return
        loaded = [image for image, load in zip(self._images, self._loads, strict=True) if load.exception() is None]
        with contextlib.closing(self._open_client()) as client:
            for image_id in loaded:
                try:
                    client.inspect_image(image_id)
                except NotFound:
                    detail = f"{image_id} has gone, on which more was to be loaded: {failure.detail}"
                    raise LayersGone("An image that was needed has gone. Start again.", detail=detail) from failure

    def _load(self, image_id: str, archive: Iterator[bytes], before: Sequence[Future[None]]) -> None:
        try:
            self._await(before[:-1])  # one is unpacked, and one is sent
            with contextlib.closing(self._open_client()) as client:
                docker_archives.load_archive(client, image_id, self._held_back(archive, before))
        except BaseException:
            self._halt.set()
            raise

    def _held_back(self, archive: Iterator[bytes], before: Sequence[Future[None]]) -> Iterator[bytes]:
        """The archive; its end, with which the engine begins to unpack it, only when the one before is there."""
        held = b""
        for chunk in docker_archives.reported(archive, self._stop, self._plan, self._report, self._sent):
            if self._halt.is_set():
                raise _GivenUpError
            if held:
                yield held
            held = chunk
        self._await(before)
        yield held

    def _await(self, loads: Sequence[Future[None]]) -> None:
        """Until these are done."""
        while not all(load.done() for load in loads):
            if self._stop.is_set():
                raise Cancelled
            wait(loads, timeout=_LOOK_SECONDS)
        if any(load.exception() is not None for load in loads):
            raise _GivenUpError


class _GivenUpError(Exception):
    """Another piece has failed."""


class DockerCarrier:
    """Implements `prebuilt_spawner.build.interface.Carrier`: an image on the way to one that is not decided yet.

    Args:
        client: The engine.
        base: What the layers are put on.
        digest: The environment digest; whoever puts in order what was left finds the image by that.
        is_usable: Whether the engine takes archives in pieces; asked when the first layer comes.
    """

    def __init__(self, client: DockerClient, base: BaseImage, digest: str, is_usable: Callable[[], bool]) -> None:
        self._docker = client
        self._plan = ImagePlan(
            base=base,
            lower=LowerLayers(image_id=base.image_id, diff_ids=base.diff_ids),
            layers=(),
            labels={},
            environment={},
            digest=digest,
        )
        self._is_usable = is_usable
        self._layers: queue.SimpleQueue[Layer | None] = queue.SimpleQueue()
        self._work: asyncio.Task[LowerLayers] | None = None
        self._made: list[str] = []
        """The image's ID, once it is there; who takes it out removes it."""

    def add(self, layer: Layer) -> bool:
        """See `Carrier.add`."""
        if not self._is_usable():
            return False
        if self._work is None:
            self._work = asyncio.ensure_future(self._docker.run_slow(self._load))
        self._layers.put(layer)
        return True

    async def settle(self) -> LowerLayers | None:
        """See `Carrier.settle`."""
        if self._work is None:
            return None
        self._layers.put(None)
        try:
            return await self._work
        except PrebuiltError as error:
            _log.warning("Layers could not be loaded ahead: %s %s", error.message, error.detail)
            return None

    async def leave(self) -> None:
        """Remove the image, and what is still on the way to it."""
        if self._work is None:
            return
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        while self._made:
            image_id = self._made.pop()
            await self._docker.run(lambda client, stop: discard(client, image_id))  # noqa: B023 - awaited here

    def _load(self, client: docker.APIClient, stop: threading.Event) -> LowerLayers:
        pieces = Pieces(self._docker.open_client, stop, self._plan, ignore)
        try:
            for layers in self._groups(stop):
                pieces.begin(layers)
            image_id, diff_ids = pieces.finish()
            self._made.append(image_id)
        finally:
            pieces.leave(client)
        if stop.is_set():  # and `leave` may have looked already
            with contextlib.suppress(IndexError):
                discard(client, self._made.pop())
            raise Cancelled
        return LowerLayers(image_id=image_id, diff_ids=(*self._plan.lower.diff_ids, *diff_ids))

    def _groups(self, stop: threading.Event) -> Iterator[tuple[Layer, ...]]:
        """The layers, as they come; small ones that came together are one group."""
        ended = False
        while not ended:
            group: list[Layer] = []
            while not ended and sum(layer.size_bytes for layer in group) < PIECE_BYTES:
                try:
                    layer = self._layers.get(timeout=0 if group else _LOOK_SECONDS)
                except queue.Empty:
                    if group:
                        break
                    if stop.is_set():
                        raise Cancelled from None
                    continue
                ended = layer is None
                if layer is not None:
                    group.append(layer)
            if group:
                yield tuple(group)

"""How a planned image gets into a Docker Engine: as an archive, or through its builder where it refuses archives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias
from weakref import WeakValueDictionary

import docker

from ..build.events import BuildEvent, Phase, Report, ignore
from ..build.interface import DerivedImage
from ..environment.base import BaseImage
from ..errors import EngineFailure, LayersGone
from ..image.layer import ImagePlan, Layer
from ..image.names import DIGEST_LABEL
from ..image.tar import END_OF_ARCHIVE, padding, tar_header
from .docker_archives import load_oci_archive, own_diff_ids
from .docker_build import build, whiteout_files
from .docker_client import Cancelled, DockerClient
from .docker_images import checked, discard, has_lower_layers
from .docker_layers import DockerLayers
from .docker_pieces import DockerCarrier, load_docker_archives

_log = logging.getLogger(__name__)

Handover: TypeAlias = Literal["auto", "archive", "build"]

_LOOK_SECONDS = 0.1
_TRIAL = b"This image shows whether the engine takes images without the layers that it has.\n"


class DockerHandover:
    """Makes images of plans, and checks that they can be started.

    Args:
        layers: Knows the descriptors of layers, for the containerd store.
        labels: Put on every container that this makes, besides our own.
        way: "archive" or "build", or "auto" to find out before the first image which of them.
    """

    def __init__(
        self, client: DockerClient, layers: DockerLayers, *, labels: Mapping[str, str], way: Handover = "auto"
    ) -> None:
        self._docker = client
        self._layers = layers
        self._labels = labels
        self._way: Literal["archive", "build"] | None = None if way == "auto" else way
        self._containerd_store: bool | None = None
        self._choosing = asyncio.Lock()
        self._building: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    async def assemble(self, plan: ImagePlan, *, report: Report) -> DerivedImage:
        """See `prebuilt_spawner.build.interface.Engine.assemble`."""
        try:
            if await self._chosen(plan) == "build":
                return await self._build(plan, report)
            return await self._load(plan, report)
        except LayersGone:
            raise
        except EngineFailure as error:
            if await self._docker.run_slow(
                lambda client, stop: has_lower_layers(client, plan.lower, labels=self._labels)
            ):
                raise
            detail = f"{plan.lower.image_id} is not there, or not all of it: {error.detail}"
            raise LayersGone("An image that was needed has gone. Start again.", detail=detail) from error

    def carrier(self, base: BaseImage, digest: str) -> DockerCarrier:
        """For layers of an image that is not decided yet. It takes none where the engine is not known to take archives
        in pieces."""
        return DockerCarrier(
            self._docker, base, digest, lambda: self._way == "archive" and self._containerd_store is False
        )

    async def prepare(self, image_id: str) -> None:
        """Find out what takes long before something is stacked on this image.

        Raises:
            EngineFailure: The engine does not have it, or not whole.
        """
        if self._way == "build":
            return
        # Anew each time: an engine may be started again with another store.
        if await self._look_at_store():
            await self._layers.learn(image_id)

    async def _look_at_store(self) -> bool:
        """Whether the engine has the containerd store, remembered."""
        self._containerd_store = await self._docker.run(lambda client, stop: _has_containerd_store(client))
        return self._containerd_store

    async def _chosen(self, plan: ImagePlan) -> Literal["archive", "build"]:
        """The way that this engine takes, remembered once it is known.

        Raises:
            PrebuiltError: It could not be found out: the engine is down, its disk full, the layers gone.
        """
        async with self._choosing:
            if self._way is None:
                self._way = await self._tried(_trial_of(plan))
        return self._way

    async def _tried(self, trial: ImagePlan) -> Literal["archive", "build"]:
        try:
            made = await self._load(trial, ignore)
        except LayersGone:
            raise
        except EngineFailure as error:
            if not await self._docker.run_slow(
                lambda client, stop: has_lower_layers(client, trial.lower, labels=self._labels)
            ):
                raise
            why = " ".join((error.detail or error.message).split())
            _log.warning(
                "The container engine refuses images without the layers that it has (%s): from now on its builder makes"
                " them, which takes longer",
                why,
            )
            return "build"
        await asyncio.shield(self._docker.run(lambda client, stop: discard(client, made.image_id)))
        _log.info("The container engine takes images without the layers that it has: they are loaded from archives")
        return "archive"

    async def _load(self, plan: ImagePlan, report: Report) -> DerivedImage:
        containerd_store = self._containerd_store
        if containerd_store is None:
            containerd_store = await self._look_at_store()
        lower_layers = await self._layers.of(plan.lower) if containerd_store else ()

        def work(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            _report_saving(plan, report)
            if not containerd_store:
                image_id, diff_ids = load_docker_archives(
                    client, stop, plan, report, open_client=self._docker.open_client
                )
                return self._checked(client, stop, image_id, plan, report, own_layers=diff_ids)
            diff_ids = own_diff_ids(plan)
            image_id, layers = load_oci_archive(client, stop, plan, diff_ids, report, lower_layers=lower_layers)
            image = self._checked(client, stop, image_id, plan, report, own_layers=diff_ids)
            self._layers.keep(image_id, image.diff_ids, layers)
            return image

        return await self._docker.run_slow(work)

    async def _build(self, plan: ImagePlan, report: Report) -> DerivedImage:
        # One after the other, the builder makes equal images of equal plans: it finds what it made before.
        alone = self._building.setdefault(plan.digest, threading.Lock())

        def work(client: docker.APIClient, stop: threading.Event) -> DerivedImage:
            _report_saving(plan, report)
            while not alone.acquire(timeout=_LOOK_SECONDS):
                if stop.is_set():
                    raise Cancelled
            try:
                image_id = build(client, stop, plan, report)
                return self._checked(client, stop, image_id, plan, report, absent=whiteout_files(plan))
            finally:
                alone.release()

        return await self._docker.run_slow(work)

    def _checked(
        self,
        client: docker.APIClient,
        stop: threading.Event,
        image_id: str,
        plan: ImagePlan,
        report: Report,
        *,
        own_layers: Iterable[str] | None = None,
        absent: Iterable[str] = (),
    ) -> DerivedImage:
        try:
            report(BuildEvent(phase=Phase.CHECKING, message="Checking the image"))
            image = checked(client, image_id, plan, labels=self._labels, own_layers=own_layers, absent=absent)
            if stop.is_set():
                raise Cancelled
        except BaseException:
            with contextlib.suppress(Exception):
                discard(client, image_id)
            raise
        return image


def _report_saving(plan: ImagePlan, report: Report) -> None:
    total_bytes = sum(layer.size_bytes for layer in plan.layers)
    report(BuildEvent(phase=Phase.SAVING, message="Saving to the engine", done=0, total=total_bytes))


def _trial_of(plan: ImagePlan) -> ImagePlan:
    """An image on the same lower layers with one small file, which nobody else has. It bears the plan's digest: whoever
    puts in order what a build left behind finds it by that."""
    word = secrets.token_hex(32)
    header = tar_header(f"prebuilt-spawner-{word}", size_bytes=len(_TRIAL), mode=0o644, kind="file")
    layer = Layer(comment="a trial", parts=(header + _TRIAL + padding(len(_TRIAL)) + END_OF_ARCHIVE,))
    return replace(plan, layers=(layer,), labels={DIGEST_LABEL: plan.digest}, environment={})


def _has_containerd_store(client: docker.APIClient) -> bool:
    status = client.info().get("DriverStatus") or []
    return ["driver-type", "io.containerd.snapshotter.v1"] in [list(pair) for pair in status]

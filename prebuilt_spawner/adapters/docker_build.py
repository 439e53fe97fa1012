"""Images made by a Docker Engine's own builder: FROM the image that has the lower layers, ADD each layer of the plan.

By the classic builder (`version=1`), which takes what an added archive says as a layer does, whiteouts too. BuildKit
unpacks whiteouts as files, and on the containerd store of 26.1 it takes no context over HTTP. Nothing is run.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Iterator
from typing import Any

import docker
from docker.errors import NotFound

from ..build.events import Report
from ..errors import EngineFailure, LayersGone
from ..image.archive import build_context_parts, read_parts
from ..image.layer import ImagePlan, Layer
from ..image.names import STEP_LABEL
from .docker_archives import reported
from .docker_client import Cancelled, engine_error
from .docker_holds import held
from .docker_images import discard

HOLD_REPOSITORY = "prebuilt-spawner.invalid/env"
"""For the name in FROM. A builder asks a registry for what it does not find, and this one cannot exist (RFC 2606)."""

BUILDER = "1"
"""The classic one; "2" is BuildKit."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_LINE_CHARACTERS = 6_000
"""A builder reads lines of 64 KiB at most."""
_MAGIC = slice(257, 262)
_STEP_MADE = re.compile(r" ---> ([0-9a-f]{12,64})\s*")


def build(client: docker.APIClient, stop: threading.Event, plan: ImagePlan, report: Report) -> str:
    """Have the planned image made, without a name.

    Leaving while it is made waits for its end: what the builder leaves behind could not be found otherwise.

    Returns:
        The image's ID. When it fails, nothing is left behind.

    Raises:
        LayersGone: No image has exactly the lower layers.
    """
    if plan.base.config.get("OnBuild"):
        raise EngineFailure(
            f"The base image {plan.base.reference} has build triggers (ONBUILD), which this container engine would run."
            " Tell your administrator."
        )
    for layer in plan.layers:
        _require_archive(layer)  # or the builder would add it as a file
    with held(client, _image_of_lower_layers(client, plan), HOLD_REPOSITORY) as name:
        made: list[str] = []
        try:
            image_id = _built(client, stop, plan, name, made, report)
            if stop.is_set():
                raise Cancelled
        except BaseException:
            if made:
                with contextlib.suppress(Exception):
                    discard(client, made[-1])
            raise
    return image_id


def whiteout_files(plan: ImagePlan) -> list[str]:
    """A path for each layer with whiteouts that the image has if the builder unpacked them as files."""
    found = []
    for layer in plan.layers:
        if all(isinstance(part, bytes) for part in layer.parts):
            with tarfile.open(fileobj=io.BytesIO(b"".join(read_parts(layer.parts)))) as archive:
                names = (name for name in archive.getnames() if name.rpartition("/")[2].startswith(".wh."))
                found += [f"/{name}" for name in [next(names, None)] if name is not None]
    return found


def dockerfile(plan: ImagePlan, name: str) -> tuple[str, dict[str, str]]:
    """What the builder is told: the Dockerfile, and the build arguments for values that no line of it can hold.

    Args:
        name: Of the image that has the lower layers.

    Raises:
        EngineFailure: A variable's or a label's name cannot be written.
    """
    arguments: dict[str, str] = {}

    def word(value: str) -> str:
        if _fits(value):
            return _quoted(value)
        argument = f"prebuilt_spawner_argument_{len(arguments)}"
        arguments[argument] = value
        return f'"${{{argument}}}"'

    for variable in plan.environment:
        if not _VARIABLE.fullmatch(variable):
            raise engine_error(f"no name for a variable: {variable!r}")
    for label in plan.labels:
        if not _fits(label):
            raise engine_error(f"no name for a label: {label[:100]!r}")
    variables = [f"{variable}={word(value)}" for variable, value in sorted(plan.environment.items())]
    labels = [f"{_quoted(label)}={word(value)}" for label, value in sorted(plan.labels.items())]
    lines = [
        f"FROM {name}",
        # By this the images on the way are found when nothing is made of them any more.
        f"LABEL {_quoted(STEP_LABEL)}=yes",
        *(f"ADD {number}.tar /" for number in range(len(plan.layers))),
        *(f"ARG {argument}" for argument in arguments),
        *([" \\\n  ".join(["ENV", *variables])] if variables else []),
        # The last step, so that no image on the way carries these labels.
        *([" \\\n  ".join(["LABEL", *labels])] if labels else []),
    ]
    return "\n".join(lines) + "\n", arguments


def _fits(text: str) -> bool:
    return text.isprintable() and len(text) <= _MAX_LINE_CHARACTERS


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["$\\])', r"\\\1", text) + '"'


def _built(
    client: docker.APIClient, stop: threading.Event, plan: ImagePlan, name: str, made: list[str], report: Report
) -> str:
    """The ID of the image that the builder made; every image that it tells of, also when it fails, is put in `made`."""
    text, arguments = dockerfile(plan, name)
    context = read_parts(build_context_parts(text.encode(), plan.layers))
    response = client._post(
        client._url("/build"),
        params={
            "version": BUILDER,
            "rm": "1",
            "forcerm": "1",
            "networkmode": "none",
            "buildargs": json.dumps(arguments),
        },
        headers={"Content-Type": "application/x-tar"},
        data=reported(context, stop, plan, report),
        stream=True,
        timeout=None,
    )
    image_id = None
    with contextlib.closing(response):
        client._raise_for_status(response)
        for message in _messages(response.iter_lines()):
            if "error" in message:
                raise engine_error(str(message["error"]))
            step = _STEP_MADE.fullmatch(str(message.get("stream", "")))
            if step is not None:
                made.append(step[1])
            if isinstance(message.get("aux"), dict) and "ID" in message["aux"]:
                image_id = str(message["aux"]["ID"])
                made.append(image_id)
    if image_id is None:
        raise engine_error("the builder does not say what it made")
    return image_id


def _messages(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line:
            yield json.loads(line)


def _image_of_lower_layers(client: docker.APIClient, plan: ImagePlan) -> str:
    """An image that has the lower layers and no more, which FROM needs.

    That is the base, the image to be stacked on, or one that the builder made on the way to it; of these the lowest,
    which has the base's configuration.
    """
    wanted = plan.lower.diff_ids
    candidate, found = plan.lower.image_id, None
    while candidate:
        try:
            image = client.inspect_image(candidate)
        except NotFound:
            break
        layers = tuple(image["RootFS"].get("Layers") or ())
        if layers == wanted:
            found = str(image["Id"])
        if len(layers) < len(wanted):
            break
        candidate = image.get("Parent") or ""
    if found is None and wanted == plan.base.diff_ids:
        found = plan.base.image_id
    if found is None:
        raise LayersGone(
            "An image that was needed has gone. Start again.",
            detail=f"no image has just the {len(wanted)} lowest layers of {plan.lower.image_id}",
        )
    return found


def _require_archive(layer: Layer) -> None:
    start = b""
    for chunk in read_parts(layer.parts):
        start += chunk
        if len(start) >= _MAGIC.stop:
            break
    if start[_MAGIC] != b"ustar":
        raise engine_error(f"the layer with {layer.comment} is no tar archive")

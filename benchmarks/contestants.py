"""What an administrator would do instead of us, each as well as an expert does it, from the same locked list."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from prebuilt_spawner.environment.lock import Lock
from tests.loopback import LOOPBACK, LoopbackHandler, LoopbackServer

from .engine import RUN_LABEL, BenchEngine, packed

_BUILDKIT = "2"
_CLASSIC = "1"
_HOOK = "/usr/local/bin/before-notebook.d/10-packages.sh"


class BuildFailed(Exception):
    """The engine did not make the image; the message is the end of what it said."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """An image, and what it cost.

    Attributes:
        image: Its name; "" where the contestant makes none.
        seconds: From the request until the image was named.
    """

    image: str
    seconds: float


def requirements_text(lock: Lock) -> bytes:
    """The lock as a list that pip and uv install from, each file by its hash."""
    return "".join(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in lock.wheels).encode()


def dockerfile_pip(
    engine: BenchEngine, lock: Lock, *, index_url: str, tag: str, bytecode: bool, again: bool = False
) -> Made:
    """(a) What the docker-stacks documentation recommends: a Dockerfile with `RUN pip install`, nothing cached.

    Args:
        again: The engine may take what it made of an equal list, with the same index, before.
    """
    compiling = "" if bytecode else "--no-compile "
    command = f"pip install --no-cache-dir {compiling}--require-hashes --index-url {index_url} -r /tmp/requirements.txt"
    return _built(engine, engine.base, command, requirements_text(lock), tag=tag, builder=_CLASSIC, again=again)


def dockerfile_names(engine: BenchEngine, packages: Sequence[str], *, index_url: str, tag: str) -> Made:
    """(a) of a list as people write it, which pip has to resolve."""
    command = f"pip install --no-cache-dir --index-url {index_url} -r /tmp/requirements.txt"
    text = "".join(f"{package}\n" for package in packages).encode()
    return _built(engine, engine.base, command, text, tag=tag, builder=_CLASSIC)


def buildkit_uv(
    engine: BenchEngine, lock: Lock, *, base_with_uv: str, index_url: str, tag: str, bytecode: bool, cache: str
) -> Made:
    """(b) An expert's: `RUN uv pip install` with a cache mount, through BuildKit.

    Args:
        cache: The name of the mount; what was installed with the same one is there.
    """
    compiling = "--compile-bytecode " if bytecode else ""
    command = (
        "--mount=type=bind,source=requirements.txt,target=/tmp/requirements.txt "
        f"--mount=type=cache,target=/uv-cache,id={cache} "
        f": {tag}; UV_CACHE_DIR=/uv-cache UV_LINK_MODE=copy uv pip install "
        # The list is whole, and uv would want hashes of what the base has, too.
        f'--python "$(command -v python)" {compiling}--no-deps --require-hashes --index-url {index_url} '
        "-r /tmp/requirements.txt"
    )
    # Told to use no cache, BuildKit would empty the mount, too: instead the tag makes each command another one.
    return _built(engine, base_with_uv, command, requirements_text(lock), tag=tag, builder=_BUILDKIT, again=True)


def start_hook(engine: BenchEngine, lock: Lock, *, index_url: str) -> Made:
    """(c) A hook that installs as each container starts: the time from the start until the container's command has run.

    It runs as root, since the environment of the base belongs to root; nothing of it is kept.
    """
    install = f"pip install --no-cache-dir --require-hashes --index-url {index_url} -r /tmp/requirements.txt"
    # It is sourced, by root and once more by the user that root becomes.
    hook = f'if [ "$(id -u)" = 0 ]; then {install} || exit 1; fi\n'.encode()
    files = {_HOOK: hook, "/tmp/requirements.txt": requirements_text(lock)}
    with engine.container(
        engine.base, ["start.sh", "true"], files=files, user="root", network="host", entrypoint=None
    ) as container:
        begun = time.monotonic()
        engine.client.start(container)
        status = engine.client.wait(container)["StatusCode"]
        seconds = time.monotonic() - begun
        if status != 0:
            raise BuildFailed(engine.client.logs(container).decode(errors="replace")[-2000:])
    return Made(image="", seconds=seconds)


def make_base_with_uv(engine: BenchEngine) -> str:
    """The base with uv in it, which (b) builds on."""
    name = engine.commit(engine.base, "with-uv", files={"/usr/local/bin/uv": Path(uv.find_uv_bin()).read_bytes()})
    engine.bases.append(engine.layers(name))
    return name


def _built(
    engine: BenchEngine, base: str, command: str, requirements: bytes, *, tag: str, builder: str, again: bool = False
) -> Made:
    user = engine.base_config.get("User") or "root"
    copying = "COPY requirements.txt /tmp/requirements.txt\n" if builder == _CLASSIC else ""
    text = f"FROM {base}\nLABEL {RUN_LABEL}={engine.run}\nUSER root\n{copying}RUN {command}\nUSER {user}\n"
    context = packed({"Dockerfile": text.encode(), "requirements.txt": requirements})
    image = engine.name(tag)
    begun = time.monotonic()
    _build(engine, context, image=image, builder=builder, again=again)
    return Made(image=image, seconds=time.monotonic() - begun)


def _build(engine: BenchEngine, context: bytes, *, image: str, builder: str, again: bool) -> None:
    """Through the engine's API, which has both builders and needs no tool."""
    client = engine.client
    params = {
        "version": builder,
        "t": image,
        "nocache": "0" if again else "1",
        "rm": "1",
        "forcerm": "1",
        # The index is on loopback.
        "networkmode": "host",
        "labels": json.dumps({RUN_LABEL: engine.run}),
    }
    with contextlib.ExitStack() as entered:
        if builder == _BUILDKIT:
            engine.use_buildkit()
            if engine.store == "containerd":
                # With that store, BuildKit of 26.1 does not find what comes with the request.
                params["remote"] = entered.enter_context(_served(context))
        response = client._post(
            client._url("/build"),
            params=params,
            headers={"Content-Type": "application/x-tar"},
            data=None if "remote" in params else context,
            stream=True,
            timeout=None,
        )
        entered.callback(response.close)
        client._raise_for_status(response)
        said: list[str] = []
        for line in response.iter_lines():
            message = json.loads(line) if line else {}
            if "error" in message:
                raise BuildFailed(f"{message['error']}\n{''.join(said)[-3000:]}")
            said.append(_words(message))


@contextlib.contextmanager
def _served(content: bytes) -> Iterator[str]:
    """The address of this content on loopback, while entered. Each is another one: BuildKit remembers them."""

    class Handler(LoopbackHandler):
        def do_GET(self) -> None:  # noqa: N802 - named by http.server
            self.answer(200, content)

    with LoopbackServer(Handler) as server:
        yield f"http://{LOOPBACK}:{server.port}/{secrets.token_hex(8)}.tar"


def _words(message: dict[str, object]) -> str:
    """What a builder prints; BuildKit wraps it in protocol buffers."""
    if isinstance(message.get("stream"), str):
        return str(message["stream"])
    if message.get("id") == "moby.buildkit.trace":
        return base64.b64decode(str(message.get("aux") or "")).decode("utf-8", "replace")
    return ""

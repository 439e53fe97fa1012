"""Packages that have no wheel: built on a real engine, by whoever wrote them, good and bad."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socketserver
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from demo_hub import bridge_address

from prebuilt_spawner.build.events import BuildEvent
from prebuilt_spawner.build.failure import failure_of
from prebuilt_spawner.build.manager import BuildManager
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest
from prebuilt_spawner.build.sources import SourceBuildLimits
from prebuilt_spawner.errors import PrebuiltError
from prebuilt_spawner.hub.runtime import RuntimeSettings, build_manager
from prebuilt_spawner.image.names import SANDBOX_LABEL

from ..crafted_sdists import sdist, sdist_of
from ..index_server import IndexServer
from .hub import TEST_LABEL, Hub, changed_base

LIMITS = SourceBuildLimits(
    memory_bytes=256 << 20, disk_bytes=48 << 20, processes=48, cpus=1, seconds=90, output_bytes=1 << 20
)
# Whoever builds without end is given up soon; whoever comes to an end has time for it on a busy machine, too.
SHORT = replace(LIMITS, seconds=5)
SECRET = "secret-of-the-hubs-environment"

OBSERVE = """
import json, socket
found = {"uid": os.getuid(), "groups": os.getgroups(), "environment": dict(os.environ)}
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
found["status"] = {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")}
found["sockets"] = [path for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
                    if os.path.exists(path)]
found["interfaces"] = os.listdir("/sys/class/net")
found["reached"] = []
for host, port in PLACES:
    try:
        socket.create_connection((host, port), timeout=1).close()
        found["reached"].append([host, port])
    except OSError:
        pass
found["written"] = []
for place in ("/", "/volume", "/etc", "/usr/lib", "/opt", "/home", "/root", "/run", "/var/tmp", "/dev", "/sys",
               "/proc/sys/kernel", sys.base_prefix, os.path.dirname(os.__file__), CACHE, CACHE + "/built"):
    try:
        os.makedirs(place, exist_ok=True)
        open(os.path.join(place, "left-by-a-build"), "w").close()
        found["written"].append(place)
    except OSError:
        pass
found["processes"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
found["first"] = open("/proc/1/cmdline", "rb").read().decode().split("\\0")[0]
print("somebody looks around")
return write_wheel(folder, files={"observer.json": json.dumps(found)})
"""

BACKGROUND = """
for _ in range(3):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100000)"], start_new_session=True)
return write_wheel(folder)
"""
LIAR = """
answer = b'{"wheel": "liar-1.0-py3-none-any.whl", "size": 5}\\nabcde'
for number in os.listdir("/proc/1/fd"):
    try:
        with open("/proc/1/fd/" + number, "wb") as channel:
            channel.write(answer)
    except OSError:
        pass
time.sleep(100000)
"""
FORKS = """
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
MEMORY = """
kept = []
while True:
    kept.append(b"x" * (16 << 20))
"""
DISK = """
with open(os.path.join(folder, "filler"), "wb") as stream:
    while True:
        stream.write(bytes(1 << 20))
"""
LOG = """
while True:
    print("nobody wants to read this " * 100)
"""
NETWORK = """
import urllib.request
urllib.request.urlopen("http://downloads.example.test/part.tar.gz")
"""


@dataclass
class Outcome:
    """How a request ended."""

    environment: Environment | None = None
    error: PrebuiltError | None = None
    events: list[BuildEvent] = field(default_factory=list)

    @property
    def printed(self) -> str:
        return "".join(event.output for event in self.events)

    @property
    def messages(self) -> list[str]:
        return [event.message for event in self.events if event.message]


def settings(folder: Path, run: str, **changes: Any) -> RuntimeSettings:
    """Of a hub with a cache and a ledger of its own."""
    folder.mkdir(exist_ok=True)
    usual: dict[str, Any] = {
        "repository": f"prebuilt-spawner-test/{run}",
        "immutable": True,
        "index_url": "",
        "extra_index_urls": (),
        "allow_source_builds": True,
        "source_build_limits": SourceBuildLimits(),
        "db_url": f"sqlite:///{folder}/ledger.sqlite",
        "cache_dir": str(folder / "cache"),
        "max_concurrent_builds": 6,
        "max_queued_builds": 50,
        "failure_ttl": 0,
        "max_cache_bytes": 0,
        "min_free_bytes": 0,
    }
    return RuntimeSettings(**{**usual, **changes})


async def asked(manager: BuildManager, base: str, *requirements: str) -> Outcome:
    outcome = Outcome()
    request = EnvironmentRequest(user="ada", requirements=requirements, base=base)
    try:
        outcome.environment = await manager.ensure(request, report=outcome.events.append)
    except PrebuiltError as error:
        outcome.error = error
    return outcome


def left(client: docker.APIClient, run: str) -> list[str]:
    """Sandboxes of this run: they have the label of its base."""
    labels = [SANDBOX_LABEL, f"{TEST_LABEL}={run}"]
    return [container["Id"] for container in client.containers(all=True, filters={"label": labels})]


def output_of(client: docker.APIClient, image: str, run: str, program: str) -> str:
    """What a program prints that the image's Python runs."""
    container = client.create_container(image, entrypoint=["python", "-c", program], labels={TEST_LABEL: run})
    client.start(container)
    client.wait(container, timeout=60)
    output: str = client.logs(container).decode()
    client.remove_container(container, force=True)
    return output.strip()


@pytest.fixture(scope="module")
def index() -> Iterator[IndexServer]:
    with IndexServer() as index:
        yield index


@pytest.fixture(scope="module")
def neighbours(client: docker.APIClient, light_base: str, run: str) -> Iterator[list[tuple[str, int]]]:
    """What a build is not to reach, and containers do: an API of the hub's machine, and a server of somebody else."""

    class Handler(socketserver.BaseRequestHandler):
        """Says nothing."""

    api = socketserver.ThreadingTCPServer((bridge_address(client), 0), Handler)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    server = client.create_container(
        light_base, entrypoint=["python", "-m", "http.server", "8888"], labels={TEST_LABEL: run}
    )
    client.start(server)
    address = client.inspect_container(server)["NetworkSettings"]["IPAddress"]
    yield [api.server_address[:2], (address, 8888)]  # type: ignore[list-item]
    api.shutdown()
    api.server_close()
    with contextlib.suppress(docker.errors.NotFound):
        client.remove_container(server, force=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def base_with_volume(client: docker.APIClient, light_base: str, run: str) -> str:
    """A base that has a volume, where each of its containers gets room on the engine's disk that anybody may fill."""
    name = f"prebuilt-spawner-test/{run}-volume:1"
    changed_base(client, light_base, name, "mkdir -m 1777 /volume", run, changes={"Volumes": {"/volume": {}}})
    return name


@pytest.fixture(scope="module")
def hostile(
    index: IndexServer, base_with_volume: str, run: str, cache: Path, neighbours: list[tuple[str, int]]
) -> dict[str, Outcome]:
    """How requests for packages end whose builds do harm, a few of them at a time."""
    places = [*neighbours, ("169.254.169.254", 80), ("8.8.8.8", 53), ("localhost", index.port)]
    observe = OBSERVE.replace("PLACES", repr(places)).replace("CACHE", repr(str(cache / "cache")))
    published = [
        sdist("observer", "1.0", observe),
        sdist("background", "1.0", BACKGROUND),
        sdist("memory", "1.0", MEMORY),
        sdist("disk", "1.0", DISK),
        sdist("log", "1.0", LOG),
        sdist("network", "1.0", NETWORK),
        sdist("othername", "1.0", "return write_wheel(folder, name='numpy')"),
        sdist("otherversion", "1.0", "return write_wheel(folder, version='9.0')"),
        sdist("othermetadata", "1.0", "return write_wheel(folder, says='numpy')"),
        sdist("nothing", "1.0", "return 'nothing-1.0-py3-none-any.whl'"),
        sdist("climber", "1.0", "return write_wheel(folder, files={'../../../etc/cron.d/evil': 'x'})"),
        sdist("foreign", "1.0", "return write_wheel(folder, files={'jupyterhub/singleuser/__init__.py': 'x'})"),
        sdist("second", "1.0", "return write_wheel(folder, files={'numpy-9.0.dist-info/METADATA': 'Name: numpy'})"),
        sdist_of("outside", "1.0", {"/../../outside.py": "x"}),
    ]
    endless = [sdist("sleeper", "1.0", "time.sleep(100000)"), sdist("liar", "1.0", LIAR), sdist("forks", "1.0", FORKS)]
    for file in (*published, *endless, sdist("afterwards", "1.0")):
        index.add_file(file)

    async def run_all() -> dict[str, Outcome]:
        managers = [
            await build_manager(settings(folder, run, index_url=index.url, source_build_limits=limits))
            for folder, limits in ((cache, LIMITS), (cache / "short", SHORT))
        ]
        asks = [(managers[0], file.name) for file in published] + [(managers[1], file.name) for file in endless]
        try:
            found = await asyncio.gather(*(asked(manager, base_with_volume, name) for manager, name in asks))
            outcomes = {name: outcome for (_, name), outcome in zip(asks, found, strict=True)}
            outcomes["afterwards"] = await asked(managers[0], base_with_volume, "afterwards")
            return outcomes
        finally:
            for manager in managers:
                await manager.close()

    os.environ["HUB_SECRET"] = SECRET
    try:
        return asyncio.run(run_all())
    finally:
        del os.environ["HUB_SECRET"]


REPORTED = {
    "liar": ({"unbuildable", "build-no-wheel", "build-time"}, "liar"),
    "forks": ({"build-time", "build-processes"}, "forks 1.0"),
    "memory": ({"build-memory"}, "268 MB of memory"),
    "disk": ({"build-disk"}, "scratch space"),
    "log": ({"build-output"}, "printed more than"),
    "sleeper": ({"build-time"}, "longer than the 5 seconds"),
    "network": ({"build-network"}, "from the network"),
    "othername": ({"build-metadata"}, "another package or version"),
    "otherversion": ({"build-metadata"}, "another package or version"),
    "othermetadata": ({"unbuildable"}, "another name or version in its metadata"),
    "nothing": ({"build-no-wheel"}, "without a wheel"),
    "climber": ({"unbuildable"}, "evil"),
    "foreign": ({"file-conflict"}, "jupyterhub"),
    "second": ({"unbuildable"}, "second"),
    "outside": ({"build-failed"}, "outside 1.0"),
}


@pytest.mark.parametrize("name", REPORTED)
def test_a_build_that_does_harm_is_ended_and_reported(hostile: dict[str, Outcome], name: str):
    """By a sentence that names the package and what is wrong, and its request is the user's fault."""
    causes, words = REPORTED[name]
    outcome = hostile[name]
    assert outcome.error is not None
    failure = failure_of(outcome.error)
    assert (failure.kind.value in causes, outcome.error.status, failure.package) == (True, 422, name), outcome.error
    assert words in failure.message


def test_a_build_reaches_nothing(hostile: dict[str, Outcome], cache: Path):
    """Neither the engine's socket, nor the hub's API and environment, nor a metadata service, nor other containers, nor
    the wheel store; it is nobody, without capabilities, and writes nowhere but in its scratch space."""
    (wheel,) = (cache / "cache/built").glob("*/*/observer-1.0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = json.loads(archive.read("observer.json"))
    assert (found["uid"], found["groups"]) == (65534, [65534])
    zero = "0" * 16
    assert found["status"] == {"CapEff": zero, "CapPrm": zero, "CapBnd": zero, "NoNewPrivs": "1", "Seccomp": "2"}
    assert (found["sockets"], found["interfaces"], found["reached"]) == ([], ["lo"], [])
    assert [place for place in found["written"] if not place.startswith("/tmp/")] == []  # its own
    assert SECRET not in json.dumps(found)
    # Its own first process, the one that asks the backend, and no other's.
    assert len(found["processes"]) <= 4
    assert not list(cache.rglob("left-by-a-build"))


def test_what_a_build_leaves_running_ends_with_it(hostile: dict[str, Outcome], client: docker.APIClient, run: str):
    assert hostile["background"].environment is not None
    assert left(client, run) == []


def test_the_next_build_is_unaffected(hostile: dict[str, Outcome]):
    environment = hostile["afterwards"].environment
    assert environment is not None
    assert environment.lock.from_source == ("afterwards==1.0",)


C_EXTENSION = {
    "setup.py": "from setuptools import Extension, setup\n"
    "setup(name='speedy', version='1.0', ext_modules=[Extension('speedy', ['speedy.c'])])\n",
    "speedy.c": """
#include <Python.h>
INCLUDE
static PyObject *answer(PyObject *self, PyObject *nothing) { return PyLong_FromLong(42); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "speedy", "", -1, methods};
PyMODINIT_FUNC PyInit_speedy(void) { return PyModule_Create(&module); }
""",
}


@pytest.fixture(scope="module")
def compiling_base(client: docker.APIClient, light_base: str, run: str) -> str:
    """The light base with the distribution's compiler."""
    name = f"prebuilt-spawner-test/{run}-compiler:1"
    command = "apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev libpython3-dev"
    changed_base(client, light_base, name, f"export DEBIAN_FRONTEND=noninteractive; {command}", run)
    return name


async def test_a_c_extension_is_built_where_the_base_has_a_compiler(
    index: IndexServer,
    light_base: str,
    compiling_base: str,
    client: docker.APIClient,
    run: str,
    tmp_path: Path,
    wheels: Path,
):
    """And where it has none, or lacks a header, the user reads what is missing."""
    header = {**C_EXTENSION, "speedy.c": C_EXTENSION["speedy.c"].replace("INCLUDE", "#include <odd/thing.h>")}
    plain = {**C_EXTENSION, "speedy.c": C_EXTENSION["speedy.c"].replace("INCLUDE", "")}
    index.add_file(sdist_of("speedy", "1.0", plain))
    index.add_file(sdist_of("headless", "1.0", header))
    manager = await build_manager(settings(tmp_path, run, extra_index_urls=(index.url,), cache_dir=str(wheels)))
    try:
        built, without, headless = await asyncio.gather(
            asked(manager, compiling_base, "speedy"),
            asked(manager, light_base, "speedy"),
            asked(manager, compiling_base, "headless"),
        )
    finally:
        await manager.close()
    assert built.environment is not None, built.error
    assert output_of(client, built.environment.image, run, "import speedy; print(speedy.answer())") == "42"
    assert without.error is not None
    assert headless.error is not None
    assert (without.error.status, without.error.cause, headless.error.cause) == (422, "build-tool", "build-header")
    assert "needs a C compiler (" in without.error.message
    assert "needs the header odd/thing.h, which the image lacks" in headless.error.message


def test_what_is_built_once_is_used_by_everybody(
    make_hub: Callable[..., Hub], light_base: str, client: docker.APIClient, run: str, tmp_path: Path
):
    """A real hub builds the classic docx for the first user and not for the next. Where the wheel has gone, it is built
    again from what the lock says, and the image has the same name; `tests/stores` shows that of other engines."""
    # Else the first answer comes when the server is ready, and nobody reads the progress.
    slow = "c.JupyterHub.tornado_settings = {'slow_spawn_timeout': 1}\n"
    hub = make_hub(base=light_base, cache_dir=tmp_path / "cache", settings=slow)
    hub.start()
    first, second = hub.user("first"), hub.user("second")
    outcome = hub.start_server(first, {"packages": ["xlsxwriter", "docx"]})
    assert outcome.ready, outcome
    assert "Building docx 0.2.4 from source" in " ".join(event.get("message", "") for event in outcome.events)
    # Its module is of the days of Python 2, and cannot be imported by any other.
    assert (hub.version_in(first, "docx"), hub.python(first, "import xlsxwriter, lxml; print(1)")) == ("0.2.4", "1")
    assert "Building docx 0.2.4 from source" in hub.log()
    assert hub.start_server(second, {"packages": ["docx"]}).ready
    assert hub.log().count("Building docx 0.2.4 from source") == 1
    listing = hub.execute(first, "cat", "/usr/local/share/prebuilt-spawner/pylock.toml")[1]
    assert 'name = "docx-0.2.4.tar.gz"' in listing

    image = hub.tag(second)
    hub.stop_server(second)
    client.remove_container(hub.container(second)["Id"], force=True)
    client.remove_image(image, force=True)
    for made in (tmp_path / "cache/built").glob("*/*/made.json"):
        made.unlink()
    assert hub.start_server(second, {"packages": ["docx"]}).ready
    assert hub.tag(second) == image
    assert hub.log().count("Building docx 0.2.4 from source") == 2
    assert left(client, run) == []

"""What a compiler promises (`prebuilt_spawner.build.interface.BytecodeCompiler`), and what the real one adds."""

from __future__ import annotations

import asyncio
import importlib.util
import marshal
import types
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from prebuilt_spawner.adapters.docker_compiler import CompilerLimits, DockerCompiler
from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.adapters.memory_compiler import MemoryCompiler
from prebuilt_spawner.build.interface import BytecodeCompiler
from prebuilt_spawner.environment.base import BaseImage, BaseProbe
from prebuilt_spawner.errors import EngineFailure, EngineUnavailable, LayersGone
from prebuilt_spawner.image import bytecode
from prebuilt_spawner.image.bytecode import Module, modules_of
from prebuilt_spawner.image.names import COMPILER_LABEL

from ..unit.environment.probes import make_probe
from ..unit.image.wheels import installed_wheel, make_base, make_wheel
from .engine_worlds import REQUIRED, TEST_BASE

LABEL = "prebuilt_spawner.test"


class CompilerWorld:
    """A compiler and the base that it compiles for."""

    def __init__(self, compiler: BytecodeCompiler, base: BaseImage, probe: BaseProbe, folder: Path) -> None:
        self.compiler, self.base, self.probe = compiler, base, probe
        self._folder = folder

    def modules(self, sources: Mapping[str, bytes], name: str = "demo_pkg") -> tuple[Module, ...]:
        wheel = installed_wheel(make_wheel(self._folder, sources, name=name), self._folder, scheme=self.probe.scheme)
        return modules_of(wheel, cache_tag=self.probe.cache_tag)

    async def compiled(self, sources: Mapping[str, bytes], name: str = "demo_pkg") -> dict[str, bytes]:
        """By the name of the module's file."""
        modules = self.modules(sources, name)
        found = await self.compiler.compile(self.base, self.probe, modules)
        return {module.path.rpartition("/")[2]: found[module.target] for module in modules if module.target in found}


class DockerWorld(CompilerWorld):
    """Containers of a real base."""

    def __init__(self, client: docker.APIClient, word: str, base: BaseImage, probe: BaseProbe, folder: Path) -> None:
        self.client, self.word = client, word
        self.compilers: list[DockerCompiler] = []
        super().__init__(self.make(), base, probe, folder)

    def make(self, limits: CompilerLimits | None = None, **more: object) -> DockerCompiler:
        """Another compiler; its containers carry the same label."""
        if limits is not None:
            more["limits"] = limits
        compiler = DockerCompiler(labels={LABEL: self.word}, **more)
        self.compilers.append(compiler)
        return compiler

    def containers(self) -> list[dict]:
        """The compiler's, running or not."""
        return self.client.containers(all=True, filters={"label": [f"{LABEL}={self.word}", COMPILER_LABEL]})

    async def until_none_is_left(self) -> None:
        for _ in range(100):
            if not self.containers():
                return
            await asyncio.sleep(0.1)
        raise AssertionError("a container was left for ten seconds")


@pytest.fixture
async def real(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[DockerWorld]:
    assert TEST_BASE, "PREBUILT_SPAWNER_TEST_BASE names no base image: run the tests with `make test`"
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=60)
    engine = DockerEngine(repository="prebuilt-compiler-test/env", cache_dir=tmp_path)
    base = await engine.resolve_base(TEST_BASE)
    word = "c" + tmp_path.name
    world = DockerWorld(client, word, base, await engine.probe(base), tmp_path)
    yield world
    for compiler in world.compilers:
        await compiler.close()
    left = world.containers()
    for container in left:
        client.remove_container(container, force=True)
    await engine.close()
    client.close()
    assert not left, "closing leaves no container behind"


@pytest.fixture
def double(tmp_path: Path) -> CompilerWorld:
    return CompilerWorld(MemoryCompiler(), make_base(), make_probe(), tmp_path)


@pytest.fixture(params=["double", *(["real"] if TEST_BASE or REQUIRED else [])])
def world(request: pytest.FixtureRequest) -> CompilerWorld:
    return request.getfixturevalue(request.param)


# -- what every compiler promises --------------------------------------------------------------------------------------


async def test_what_compiles_has_bytecode_and_what_does_not_has_none(world):
    found = await world.compiled(
        {
            "good.py": b"def double(x):\n    return 2 * x\n",
            "empty.py": b"",
            "syntax.py": b"def\n",
            "null.py": b"x = 1\0",
            "coding.py": b"# coding: nonsense\n",
            "latin.py": "# coding: latin-1\nx = 'ä'\n".encode("latin-1"),
            "not_utf8.py": b"x = '\xff'\n",
            "newlines.py": b"x = 1\r\ny = 2\r",
        }
    )
    assert sorted(found) == ["empty.py", "good.py", "latin.py", "newlines.py"]


async def test_bytecode_names_no_time_and_is_never_checked_against_its_source(world):
    found = await world.compiled({"good.py": b"x = 1\n"})
    header = found["good.py"][:16]
    assert header[4:8] == b"\x01\0\0\0", "hash-based, unchecked (PEP 552)"
    assert header[8:16] != bytes(8)


async def test_nothing_to_compile_needs_no_compiler(world):
    assert await world.compiler.compile(world.base, world.probe, []) == {}


async def test_nothing_that_is_compiled_is_run(world, tmp_path):
    mark = tmp_path / "run"
    assert await world.compiled({"evil.py": f"open({str(mark)!r}, 'w')\nraise SystemExit\n".encode()})
    assert not mark.exists()


# -- containers --------------------------------------------------------------------------------------------------------


async def test_the_bases_interpreter_imports_it_without_the_source(real):
    """The pyc is of the base's own magic number and has the module's path in the image, for tracebacks."""
    (module,) = real.modules({"good.py": b"def double(x):\n    return 2 * x\n"})
    found = await real.compiler.compile(real.base, real.probe, [module])
    program = (
        "import importlib.util, marshal, sys\n"
        f"pyc = bytes.fromhex('{found[module.target].hex()}')\n"
        "assert pyc[:4] == importlib.util.MAGIC_NUMBER\n"
        "code = marshal.loads(pyc[16:])\n"
        "space = {}\nexec(code, space)\n"
        "print(space['double'](21), code.co_filename)\n"
    )
    container = real.client.create_container(
        real.base.image_id,
        entrypoint=[real.probe.interpreter],
        command=["-c", program],
        labels={LABEL: real.word},
        healthcheck={"test": ["NONE"]},
    )
    try:
        real.client.start(container)
        assert real.client.wait(container)["StatusCode"] == 0
        assert real.client.logs(container).decode().split() == ["42", module.path]
    finally:
        real.client.remove_container(container, force=True)


async def test_bytecode_is_the_same_in_every_process_and_order(real, monkeypatch):
    """Sets, nested functions and names that other modules use too; alone, together, in another container."""
    sources = {
        f"m{number}.py": b"def f(x):\n    def g():\n        return x in {'a', 'b', None, 1, (2, 'c')}\n    return g\n"
        + b"\n".join(b"name_%d = 'text %d'" % (each, each) for each in range(number, number + 5))
        for number in range(12)
    }
    first = await real.compiled(sources)
    assert len(first) == len(sources)
    monkeypatch.setattr(bytecode, "MAX_BATCH_MODULES", 1)
    assert await real.compiled(sources) == first
    other = real.make()
    modules = real.modules(dict(reversed(sources.items())))
    found = await other.compile(real.base, real.probe, modules)
    assert {module.path.rpartition("/")[2]: found[module.target] for module in modules} == first


async def test_a_container_is_kept_for_the_next_wheel_and_ended_when_idle(real):
    compiler = real.make(CompilerLimits(idle_seconds=0.5), containers=2)
    modules = real.modules({"one.py": b"x = 1\n"})
    await compiler.compile(real.base, real.probe, modules)
    kept = {container["Id"] for container in real.containers()}
    await compiler.compile(real.base, real.probe, modules)
    assert len(kept) == 1
    assert {container["Id"] for container in real.containers()} == kept
    await real.until_none_is_left()
    assert await compiler.compile(real.base, real.probe, modules)


async def test_a_container_can_write_reach_and_keep_nothing(real):
    await real.compiled({"one.py": b"x = 1\n"})
    (container,) = real.containers()
    found = real.client.inspect_container(container["Id"])
    settings = found["HostConfig"]
    assert settings["NetworkMode"] == "none"
    assert settings["ReadonlyRootfs"]
    assert settings["CapDrop"] == ["ALL"]
    assert settings["SecurityOpt"] == ["no-new-privileges"]
    assert settings["Memory"] == settings["MemorySwap"] == CompilerLimits().memory_bytes
    assert settings["PidsLimit"]
    assert not found["Mounts"]
    assert found["Config"]["StdinOnce"], "it ends with the process that it works for, however that ends"


async def test_a_container_that_was_taken_away_is_replaced(real):
    sources = {"one.py": b"x = 1\n"}
    first = await real.compiled(sources)
    (container,) = real.containers()
    real.client.remove_container(container["Id"], force=True)
    assert await real.compiled(sources) == first


async def test_all_containers_that_were_taken_away_are_replaced(real):
    """As when the engine was started again: however many were kept."""
    compiler = real.make(containers=3)
    modules = real.modules({"one.py": b"x = 1\n"})
    several = [compiler.compile(real.base, real.probe, modules) for _ in range(3)]
    first, *_ = await asyncio.gather(*several)
    kept = real.containers()
    assert len(kept) == 3
    for container in kept:
        real.client.remove_container(container["Id"], force=True)
    assert await compiler.compile(real.base, real.probe, modules) == first


async def test_a_module_that_breaks_the_interpreter_costs_only_its_own_bytecode(real):
    """It needs more memory than the container may use."""
    compiler = real.make(CompilerLimits(memory_bytes=64 << 20))
    large = b"x = [" + b"a, " * 2_000_000 + b"]\n"
    modules = real.modules({"before.py": b"x = 1\n", "large.py": large, "zz.py": b"y = 2\n"})
    found = await compiler.compile(real.base, real.probe, modules)
    assert [target.rpartition("/")[2].partition(".")[0] for target in found] == ["before", "zz"]


async def test_compiling_that_takes_too_long_is_given_up_and_leaves_nothing(real):
    compiler = real.make(CompilerLimits(batch_seconds=0.05))
    large = b"x = [" + b"a, " * 3_000_000 + b"]\n"
    with pytest.raises(EngineFailure):
        await compiler.compile(real.base, real.probe, real.modules({"large.py": large}))
    await real.until_none_is_left()


async def test_a_waiter_that_leaves_stops_the_compiler(real):
    large = b"x = [" + b"a, " * 4_000_000 + b"]\n"
    task = asyncio.create_task(real.compiler.compile(real.base, real.probe, real.modules({"large.py": large})))
    while not any(container["State"] == "running" for container in real.containers()):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await real.until_none_is_left()


async def test_a_base_that_has_gone_is_named_so(real):
    gone = replace(real.base, image_id="sha256:" + "f" * 64)
    with pytest.raises(LayersGone):
        await real.compiler.compile(gone, real.probe, real.modules({"one.py": b""}))


async def test_an_engine_that_cannot_be_reached_is_named_so(real, tmp_path):
    compiler = real.make(client_kwargs={"base_url": f"unix://{tmp_path}/no.sock", "version": "1.41"})
    with pytest.raises(EngineUnavailable):
        await compiler.compile(real.base, real.probe, real.modules({"one.py": b""}))


async def test_large_wheels_are_compiled_in_several_containers(real):
    """As many at once as the compiler may have."""
    compiler = real.make(containers=2)
    text = b"\n".join(b"def f%d(x):\n    return x + %d" % (number, number) for number in range(3000))
    sources = {f"m{number}.py": text for number in range(80)}
    task = asyncio.create_task(compiler.compile(real.base, real.probe, real.modules(sources)))
    most = 0
    while not task.done():
        most = max(most, len(real.containers()))
        await asyncio.sleep(0.02)
    assert len(await task) == 80
    assert most == 2


def test_the_double_compiles_as_the_interpreter_does():
    """Its bytecode is that of the tests' own interpreter."""
    found = asyncio.run(_of_the_double())
    assert found[:4] == importlib.util.MAGIC_NUMBER
    assert isinstance(marshal.loads(found[16:]), types.CodeType)


async def _of_the_double() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        world = CompilerWorld(MemoryCompiler(), make_base(), make_probe(), Path(folder))
        return (await world.compiled({"good.py": b"x = 1\n"}))["good.py"]

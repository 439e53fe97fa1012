"""In-memory double of the bytecode compiler, for tests. See `memory`."""

from __future__ import annotations

import importlib.util
import marshal
from collections.abc import Sequence

from ..environment.base import BaseImage, BaseProbe
from ..image.archive import read_parts
from ..image.bytecode import Module
from .memory_switches import Switches


class MemoryCompiler:
    """Implements `prebuilt_spawner.build.interface.BytecodeCompiler` with the interpreter that the tests run on.

    Attributes:
        switches: For `compile`.
        compiled: The path of every module that was given, in order.
    """

    def __init__(self) -> None:
        self.switches = Switches()
        self.compiled: list[str] = []

    async def compile(self, base: BaseImage, probe: BaseProbe, modules: Sequence[Module]) -> dict[str, bytes]:
        """See `BytecodeCompiler.compile`."""
        await self.switches.pass_through("compile")
        self.compiled += [module.path for module in modules]
        found = {module.target: _pyc(_content(module), module.path) for module in modules}
        return {target: content for target, content in found.items() if content}

    async def close(self) -> None:
        """See `BytecodeCompiler.close`."""
        self.switches.calls["close"] += 1


def _content(module: Module) -> bytes:
    return b"".join(read_parts([module.source.content]))


def _pyc(source: bytes, path: str) -> bytes:
    try:
        code = compile(source, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, UnicodeError):
        return b""
    unchecked_hash = b"\x01\0\0\0"  # PEP 552
    return importlib.util.MAGIC_NUMBER + unchecked_hash + importlib.util.source_hash(source) + marshal.dumps(code)

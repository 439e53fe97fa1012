"""Entry points of a wheel, as far as an installer has to do with them
(https://packaging.python.org/en/latest/specifications/entry-points/)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_REFERENCE = re.compile(r"(?P<module>\w+(\.\w+)*)\s*:\s*(?P<attribute>\w+(\.\w+)*)\s*(\[[^\]]*\]\s*)?")
_NAME = re.compile(r"[\w.+-]+")
"""The names that pip keeps as they are; of others it takes the end."""


class InvalidEntryPoints(ValueError):
    """The text cannot be read, or in more than one way. Says what is wrong, in part in the words of strangers."""


@dataclass(frozen=True, kw_only=True)
class EntryPoint:
    """A command that is made from an entry point, and the object that it calls."""

    name: str
    module: str
    attribute: str
    section: Literal["console", "gui"]


def parse_entry_points(text: str) -> tuple[EntryPoint, ...]:
    """The console and gui scripts of an `entry_points.txt`.

    It is read line by line as `importlib.metadata` does, which reads the groups of all distributions whenever something
    asks for one group: a line that it cannot read breaks every program that has plugins. So all of the text is checked.

    Raises:
        InvalidEntryPoints: It is not.
    """
    scripts: list[EntryPoint] = []
    group = None
    seen: set[tuple[str, str]] = set()
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
            continue
        name, equals, value = map(str.strip, line.partition("="))
        if group is None or not equals or not name:
            raise InvalidEntryPoints(f'"{line}" is not an entry point of a group')
        if (group, name) in seen:
            raise InvalidEntryPoints(f'"{name}" is there twice')
        seen.add((group, name))
        if group in ("console_scripts", "gui_scripts"):
            scripts.append(_script(name, value, section="gui" if group == "gui_scripts" else "console"))
    return tuple(scripts)


def entry_points_text(scripts: Iterable[EntryPoint]) -> str:
    """An `entry_points.txt` with these scripts."""
    lines = {"console": ["[console_scripts]"], "gui": ["[gui_scripts]"]}
    for script in scripts:
        lines[script.section].append(f"{script.name} = {script.module}:{script.attribute}")
    return "\n".join((*lines["console"], *lines["gui"], ""))


def _script(name: str, value: str, *, section: Literal["console", "gui"]) -> EntryPoint:
    if _NAME.fullmatch(name) is None:
        raise InvalidEntryPoints(f'"{name}" is not a name of a command')
    reference = _REFERENCE.fullmatch(value)
    if reference is None:
        raise InvalidEntryPoints(f'"{value}" is not the name of an object in a module')
    return EntryPoint(name=name, module=reference["module"], attribute=reference["attribute"], section=section)

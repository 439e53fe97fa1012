"""Text that people type or paste as their packages: from a text to the entries of a package list. Pure.

A line of a requirements.txt, several packages on a line, and install commands are taken apart. What is dangerous or no
package becomes an entry all the same, and is refused as one: `mistakes` says with which words. The page reads texts by
the same rules (`hub/static/packages.js`), which `rules_for_page` gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from . import quoting
from .mistakes import (
    CONTROL_IN_LINE,
    END,
    INSTALL,
    INSTALL_WITHIN,
    MISTAKES,
    NAME,
    PROMPT,
    TOO_LONG,
    TOO_MANY,
    applied,
    pattern,
)
from .names import MEANT

MAX_REQUEST_CHARACTERS = 64 * 1024
"""Longest request that is read at all; the longest real requirements files have a few thousand characters."""
MAX_REQUIREMENTS = 1000
"""Most requirements in one request, whatever a policy allows."""

_COMMENT = r"(?:^|[ \t])#[^\n]*"
_BETWEEN_COMMANDS = r"(?=&&)|;(?=[ \t]*" + INSTALL.removeprefix("^") + r")"
_PIECES = r"[ \t]+|,|;[^\n]*|" r'"[^"]*"' r"|'[^']*'" r"""|[^ \t,;"']+|["']"""
_GOES_ON = r"^(?:[<>=!~@[(]|--hash)"
"""What belongs to what stands before it, whatever space is between."""
_GOES_ON_AFTER_COMMA = r"^[<>=!~]"
_UNFINISHED = r"[<>=!~@]" + END
_CHANGES_NOTHING = (
    r"^(?:-[UqvyIn]+|--(?:upgrade|quiet|verbose|user|no-cache-dir|no-cache|force-reinstall|reinstall|ignore-installed"
    r"|break-system-packages|yes|no-input|disable-pip-version-check|system|no-warn-script-location|no-warn-conflicts"
    r"|no-python-version-warning|no-color|no-progress|prefer-binary"
    r"|(?:progress-bar|root-user-action|timeout|default-timeout|retries|upgrade-strategy|only-binary)[= ][^ ]+))" + END
)
"""Options of install commands that make no difference here: everything is new, in an image, and from wheels."""
_TAKES_VALUE = (
    r"^(?:-[rceiftbp]|--(?:requirement|requirements|constraint|constraints|editable|index-url|extra-index-url|index"
    r"|default-index|find-links|target|prefix|root|src|trusted-host|proxy|cert|client-cert|cache-dir|platform|python"
    r"|python-version|implementation|abi|no-binary|global-option|config-settings|log|report|group|extra|optional"
    r"|progress-bar|root-user-action|timeout|default-timeout|retries|upgrade-strategy|only-binary))" + END
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a package list.

    Attributes:
        text: As it was written, without quotes and comments.
        mistake: Why the line that it stands for cannot be read; "" where the entry is to be judged by itself.
    """

    text: str
    mistake: str = ""


def entries_of(text: str) -> list[Entry]:
    """The entries of a text, in its order. Nothing is refused here; the work grows with the text's length."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [entry for line in _joined(lines) for entry in _of_line(line)]


def rules_for_page() -> dict[str, Any]:
    """All that `packages.js` has to know, as JSON has it."""
    return {
        "quoting": {
            "read": quoting.READ_CHARACTERS,
            "shown": quoting.SHOWN_CHARACTERS,
            "userinfo": quoting.USERINFO,
        },
        "limits": {
            "characters": MAX_REQUEST_CHARACTERS,
            "too_long": TOO_LONG,
            "entries": MAX_REQUIREMENTS,
            "too_many": TOO_MANY,
        },
        "text": {
            "comment": _COMMENT,
            "prompt": PROMPT,
            "install": INSTALL,
            "install_within": INSTALL_WITHIN,
            "between_commands": _BETWEEN_COMMANDS,
            "pieces": _PIECES,
            "goes_on": _GOES_ON,
            "goes_on_after_comma": _GOES_ON_AFTER_COMMA,
            "unfinished": _UNFINISHED,
            "changes_nothing": _CHANGES_NOTHING,
            "takes_value": _TAKES_VALUE,
            "name": rf"^{NAME}(?![A-Za-z0-9._-])",
            "control": asdict(CONTROL_IN_LINE),
        },
        "meant": dict(MEANT),
        "mistakes": [asdict(mistake) for mistake in MISTAKES],
    }


def _joined(lines: list[str]) -> Iterator[str | Entry]:
    """Logical lines, without comments and without space around them; an entry for each that cannot be read."""
    pending: list[str] = []
    for line in lines:
        message = applied(CONTROL_IN_LINE, line.strip(" \t"))
        if message:
            yield Entry(text=line.strip(" \t"), mistake=message)
            continue
        # Comments go first: a backslash at the end of one does not carry it on, or it would swallow the next package.
        line = pattern(_COMMENT).sub("", line)
        bare = line.rstrip(" \t")
        if bare.endswith("\\"):
            # What is spaced out stays so: the space at either side of the break is not taken away.
            pending.append(bare[:-1] + line[len(bare) :])
            continue
        yield "".join([*pending, line]).strip(" \t")
        pending = []
    yield "".join(pending).strip(" \t")


def _of_line(line: str | Entry) -> Iterator[Entry]:
    if isinstance(line, Entry):
        yield line
        return
    command = pattern(PROMPT).sub("", line)
    if pattern(INSTALL, "i").search(command):
        for part in pattern(_BETWEEN_COMMANDS, "i").split(command):
            yield from _of_command(part.strip(" \t"))
    elif any(mistake.whole_line and applied(mistake, line) for mistake in MISTAKES):
        yield Entry(text=line)
    else:
        yield from _taken_apart(line, is_command=False)


def _of_command(part: str) -> Iterator[Entry]:
    rest = part.removeprefix("&&").strip(" \t")
    install = pattern(INSTALL, "i").search(rest)
    if install and not pattern(INSTALL_WITHIN, "i").search(rest, install.end()):
        yield from _taken_apart(rest[install.end() :], is_command=True)
    elif rest:
        # As it is, with its '&&': it is refused by that, or by how it begins.
        yield Entry(text=part)


def _taken_apart(line: str, *, is_command: bool) -> Iterator[Entry]:
    """The entries of a line; of a command's, without the options that change nothing."""
    entry = _Growing()
    for written in pattern(_PIECES).findall(line):
        if written[0] in " \t":
            entry.gap = True
        elif written == ",":
            entry.comma()
        elif written[0] == ";":
            condition = written.rstrip(" \t")
            # A shell's: nothing comes after it.
            if condition != ";" or not is_command:
                entry.add(condition)
        else:
            is_quoted = len(written) > 1 and written[0] in "\"'"
            piece = written[1:-1] if is_quoted else written
            if not entry.takes(piece):
                yield from entry.finished(is_command=is_command)
                entry = _Growing()
            entry.add(piece)
            entry.closed = entry.closed or (is_quoted and ";" in piece)
    yield from entry.finished(is_command=is_command)


class _Growing:
    """An entry to which the pieces of a line are added, and whether the next one belongs to it."""

    def __init__(self) -> None:
        self.gap = False
        self.closed = False
        self._parts: list[str] = []
        self._last = ""
        self._depth = 0
        self._after_comma = False

    def comma(self) -> None:
        """A comma that was not quoted."""
        if self._depth > 0 or (self._is_option and not self.gap):
            self.add(",")
        else:
            self._after_comma = bool(self._parts)

    def takes(self, piece: str) -> bool:
        """Whether this piece goes on with the entry."""
        if not self._parts or self._depth > 0:
            return True
        if self._after_comma:
            return not self.closed and bool(pattern(_GOES_ON_AFTER_COMMA).search(piece))
        if not self.gap:
            return True
        if self._is_option:
            return len(self._parts) == 1 and bool(pattern(_TAKES_VALUE).search(self._parts[0]))
        return not self.closed and bool(pattern(_GOES_ON).search(piece) or pattern(_UNFINISHED).search(self._last))

    def add(self, piece: str) -> None:
        """This piece goes on with the entry."""
        if self._parts:
            self._parts.append(("," if self._after_comma and piece[:1] != ";" else "") + (" " if self.gap else ""))
        self._parts.append(piece)
        self.gap = self._after_comma = False
        self._last = piece
        for character in piece:
            if character in "[(":
                self._depth += 1
            elif character in "])":
                self._depth = max(0, self._depth - 1)

    def finished(self, *, is_command: bool) -> Iterator[Entry]:
        """The entry, where it is one."""
        text = "".join(self._parts).strip(" \t")
        if text and not (is_command and pattern(_CHANGES_NOTHING).search(text)):
            yield Entry(text=text)

    @property
    def _is_option(self) -> bool:
        return bool(self._parts) and self._parts[0].startswith("-")

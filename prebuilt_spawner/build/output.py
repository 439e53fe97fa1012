"""What tools print, as lines of plain text."""

from __future__ import annotations

import re
from collections.abc import Iterator

LINE_LIMIT = 2_000
"""How many characters of a line are kept."""

_SLICE = 65_536  # characters looked at at once, so that copies of a large piece stay small

# ECMA-48: control sequences (colours, cursor movements), control strings (titles, links), other escapes. Each part is
# bounded, or ends at a character that it does not contain, so that a search takes linear time.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|(\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*([\x07\x9c]|\x1b\\)?"
    r"|\x1b[ -/]{0,8}[0-OQ-WYZ\\`-~]"
)
# One that the end of the text has cut short.
_UNFINISHED = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}\Z|\x1b[ -/]{0,8}\Z")
# A control string ends with BEL or ST, and at another sequence or the line's end.
_STRING_END = re.compile(r"[\x07\x9c]|\x1b\\|(?=\x1b[^\\])|(?=\n)")
# Other control characters, and those that change the direction in which a page is written.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
# Bytes that were not UTF-8, as Python decodes them; neither a database nor a browser takes these.
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def plain(text: str) -> str:
    """A text as one line: without control characters and terminal sequences; other white space becomes a space."""
    text = _SURROGATE.sub("\ufffd", _SEQUENCE.sub("", text))
    return re.sub(r"\s+", " ", _CONTROL.sub("", re.sub(r"[\r\n\t\x0b\x0c]+", " ", text))).strip()


class OutputLines:
    """Turns what a tool prints, in pieces of any size, into lines.

    Terminal sequences and control characters go; of a line that was written anew after `\\r` (a progress bar) the last
    state is kept; of a long line the first characters, with a word about the rest. How the text is cut makes
    no difference. Takes linear time, and holds one line. Not thread-safe.

    Args:
        limit: How many characters of a line are kept.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._line = ""
        self._cut = 0
        self._returned = False
        self._unfinished = ""
        self._in_string = False

    def feed(self, text: str) -> Iterator[str]:
        """The lines that end in this text. To be read to the end."""
        for begin in range(0, len(text), _SLICE):
            first, *others = self._cleaned(text[begin : begin + _SLICE]).split("\n")
            self._extend(first)
            for other in others:
                yield self._take()
                self._extend(other)

    def end(self) -> Iterator[str]:
        """The line that has begun, where there is one; what comes afterwards begins another."""
        self._unfinished, self._in_string = "", False
        if self._line:
            yield self._take()

    @property
    def partial(self) -> str:
        """The line that has begun, as far as it goes; "" where none has."""
        return self._shown()

    def _cleaned(self, text: str) -> str:
        text, self._unfinished = self._unfinished + text, ""
        if self._in_string:
            end = _STRING_END.search(text)
            if end is None:
                self._unfinished = "\x1b" if text.endswith("\x1b") else ""
                return ""
            self._in_string = False
            text = text[end.end() :]
        cut_short = _UNFINISHED.search(text)
        if cut_short is not None:
            text, self._unfinished = text[: cut_short.start()], cut_short[0]
        text = _SEQUENCE.sub(self._removed, text)
        return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))

    def _removed(self, sequence: re.Match[str]) -> str:
        self._in_string = bool(sequence[1]) and not sequence[2] and sequence.end() == len(sequence.string)
        return ""

    def _extend(self, part: str) -> None:
        if not part:
            return
        written = part.rstrip("\r")
        if written:
            last = written.rfind("\r")
            if self._returned or last >= 0:
                self._line, self._cut = "", 0
            written = written[last + 1 :]
            room = self._limit - len(self._line)
            self._line += written[:room]
            self._cut += max(0, len(written) - room)
        self._returned = part.endswith("\r")

    def _take(self) -> str:
        line = self._shown()
        self._line, self._cut, self._returned = "", 0, False
        return line

    def _shown(self) -> str:
        return f"{self._line} [{self._cut:,} more characters cut]" if self._cut else self._line

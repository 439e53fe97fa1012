"""How an offender is quoted in a message: short, on one line, with nothing invisible in it."""

from __future__ import annotations

import re

SHOWN_CHARACTERS = 60
READ_CHARACTERS = 1000
USERINFO = r"://[^/?# \t\r\n]*@"
"""Credentials in a URL, in what Python's `re` and JavaScript's `RegExp` mean alike: the page quotes as we do."""
_USERINFO = re.compile(USERINFO)


def quoted(value: object) -> str:
    """The value in quotes, at most about 60 characters of it; for what is no text, only what kind of value it is.

    Control characters, lone surrogates and whatever else does not print are written as escapes, so that a message can
    neither forge a log line nor fail to be encoded. Credentials in a URL are left out: messages go into logs.
    """
    if not isinstance(value, str):
        return kind_of(value)
    # Cut before escaping: the work must not grow with what a user sends.
    text = _USERINFO.sub("://", value[:READ_CHARACTERS])
    cut = text[:SHOWN_CHARACTERS]
    shown = "".join(character if character.isprintable() else _escaped(character) for character in cut)
    return f"'{shown}{'…' if len(text) > SHOWN_CHARACTERS else ''}'"


def kind_of(value: object) -> str:
    """What kind of value this is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a {type(value).__name__}"


def named_character(character: str) -> str:
    """A character with its code point, as `'é' (U+00E9)`; only the code point where it does not print."""
    code_point = f"U+{ord(character):04X}"
    return f"'{character}' ({code_point})" if character.isprintable() else code_point


def _escaped(character: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if character in known:
        return known[character]
    code_point = ord(character)
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"

"""What people write besides requirements, as a table: how it is recognised, and the sentence with which it is refused.

Server and page read the same table, so its patterns are written in what Python's `re` and JavaScript's `RegExp` mean
alike: no named groups, none of `\\s`, `\\w`, `\\b`, `\\Z` and `$`, the end written as `(?![\\s\\S])`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from .names import meant_by
from .quoting import named_character, quoted

MAX_REQUIREMENT_CHARACTERS = 500
"""Longest single requirement."""
MAX_PARENTHESES = 20
"""Markers nest by parentheses, and are parsed recursively."""

END = r"(?![\s\S])"
WORD_END = r"(?![^ \t])"
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = r"\[[A-Za-z0-9._, \t-]*\]"
_VERSION = r"(?:===|[=!<>~]=|[<>])[ \t]*[A-Za-z0-9._*+!-]+"
_VERSIONS = rf"{_VERSION}(?:[ \t]*,[ \t]*{_VERSION})*"

PROMPT = (
    r"^(?:\([A-Za-z0-9._-]+\)[ \t]+)?"
    r"(?:(?:[A-Za-z0-9._-]+@[A-Za-z0-9._-]+[: ][^ $#]*[ \t]?)?[$#\u276f][ \t]+"
    r"|(?:>>>|\.\.\.)[ \t]+|In[ \t]*\[[0-9 ]*\]:[ \t]*|(?:PS[ \t]+)?[A-Za-z]:\\[^>]*>[ \t]*)"
)
"""What a shell, Python or IPython shows before what is typed."""
INSTALL = (
    r"^(?:sudo[ \t]+(?:-[A-Za-z]+[ \t]+)*)?(?:[!%]{1,2}[ \t]*)?(?:sudo[ \t]+(?:-[A-Za-z]+[ \t]+)*)?"
    r'(?:(?:"?\{sys\.executable\}"?|'
    r"(?:[A-Za-z0-9._~/-]*/)?(?:python[0-9.]*|py(?:[ \t]+-[0-9.]+)?))[ \t]+-m[ \t]+)?"
    r"(?:(?:uv[ \t]+)?(?:[A-Za-z0-9._~/-]*/)?pip[0-9.]*[ \t]+install|uv[ \t]+add)" + WORD_END
)
"""A command that asks for packages as we do. Case does not count: telephones begin lines with a capital."""

_OTHER_INSTALLER = (
    r"^(?:sudo[ \t]+)?[!%]{0,2}[ \t]*(?:sudo[ \t]+)?"
    r"(?:conda|mamba|micromamba|pixi|apt|apt-get|aptitude|brew|dnf|yum|apk)"
    r"[ \t]+(?:-[^ \t]+[ \t]+)*(?:install|add|create|update|upgrade|env|remove)" + WORD_END
)
_OTHER_COMMAND = (
    r"^(?:[!%]|(?:cd|source|export|sudo|mkdir)[ \t]|python[0-9.]*[ \t]+-|(?:python[0-9.]*[ \t]+[^ \t]+\.py"
    r"|pip[0-9.]*[ \t]+(?:uninstall|freeze|list|show|download)|git[ \t]+(?:clone|pull)"
    r"|uv[ \t]+(?:pip|sync|run|lock|tool|init|remove)|(?:poetry|pipenv|pdm|rye|hatch)[ \t]+(?:add|install|remove))"
    + WORD_END
    + r")"
)
INSTALL_WITHIN = r"[ \t](?:pip[0-9.]*|conda|mamba)[ \t]+install" + WORD_END
"""A command with words before it: a sentence, or two lines that became one."""
_PROGRAM = r"^(?:import[ \t]+|from[ \t]+(?=[A-Za-z0-9_.]+[ \t]+import" + WORD_END + r"))([A-Za-z_][A-Za-z0-9_]{0,60})"
_FILE_NAME = r"\.(?:whl|egg|zip|tgz|tar|tar\.[a-z0-9]+|txt|toml|ya?ml)" + END
_REQUIREMENT = (
    rf"^{NAME}[ \t]*(?:{_EXTRAS})?[ \t]*"
    rf"(?:\([ \t]*(?:{_VERSIONS})?[ \t]*,?[ \t]*\)|{_VERSIONS}[ \t]*,?)?[ \t]*(?:;[\s\S]*)?" + END
)

_IS_COMMAND = "{quoted} is a command. Write only the packages, one on each line."
_IS_URL = "{quoted} names a URL. Packages come from the index, by name: write it as 'name==version'."


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that an entry of a package list must not be.

    Attributes:
        pattern: Searched for in the entry.
        message: For users. `{quoted}` stands for the entry, `{count}` for how many characters it has, `{character}` for
            the first that the pattern matched, with its code point, `{package}` for the package that is meant by the
            name in the pattern's first group, quoted.
        of: Where it is searched for: in the whole entry, or in the `wish`, the part before ';'.
        flags: `RegExp`'s: "u", or "i" where the case of (ASCII) letters does not count.
        absent: The mistake is that the pattern is not found.
        whole_line: Where a line of text begins so, it is one entry, whatever spaces and commas it holds.
    """

    pattern: str
    message: str
    of: Literal["entry", "wish"] = "entry"
    flags: Literal["u", "i"] = "u"
    absent: bool = False
    whole_line: bool = False


NOT_A_REQUIREMENT = (
    "{quoted} is not a package requirement. Write one package on each line or in each entry, "
    "as 'pandas' or 'pandas>=2'."
)

MISTAKES: tuple[Mistake, ...] = (
    Mistake(pattern=r"^" + END, message="An entry of the package list is empty. Leave it out."),
    Mistake(
        pattern=r"--hash",
        message="Leave the hashes out of {quoted}: every download is checked against a lock anyway.",
    ),
    Mistake(
        pattern=rf"^[\s\S]{{{MAX_REQUIREMENT_CHARACTERS + 1}}}",
        message=f"The requirement {{quoted}} has {{count}} characters; at most {MAX_REQUIREMENT_CHARACTERS} are read.",
    ),
    Mistake(
        pattern=r"[\r\n]", message="{quoted} holds a line break. Each entry of the package list is one requirement."
    ),
    Mistake(
        pattern=r"[\x00-\x1f\x7f-\x9f]",
        message=(
            "{quoted} holds the control character {character}. Each entry of the package list is one requirement."
        ),
    ),
    # A prompt may hold anything.
    Mistake(pattern=PROMPT, message=_IS_COMMAND, whole_line=True),
    Mistake(
        pattern=r"[^\x00-\x7f]",
        message="{quoted} holds the character {character}. Write requirements in ASCII.",
    ),
    Mistake(
        pattern=r"^(?:-e(?![A-Za-z0-9_])|--editable)",
        message="{quoted} is an editable install, which an image cannot hold. Ask for released packages.",
        whole_line=True,
    ),
    Mistake(
        pattern=r"^-",
        message="{quoted} is an option, and options are the administrator's. Ask only for packages.",
        whole_line=True,
    ),
    Mistake(pattern=INSTALL, message=_IS_COMMAND, flags="i", whole_line=True),
    Mistake(
        pattern=_OTHER_INSTALLER,
        message=(
            "{quoted} is a command of another installer. Write only the packages, one on each line, "
            "by the names that pip knows."
        ),
        flags="i",
        whole_line=True,
    ),
    Mistake(pattern=_OTHER_COMMAND, message=_IS_COMMAND, whole_line=True),
    Mistake(pattern=r"&&", of="wish", message=_IS_COMMAND, whole_line=True),
    Mistake(
        pattern=INSTALL_WITHIN,
        of="wish",
        flags="i",
        message="{quoted} holds a command. Write only the packages, one on each line.",
        whole_line=True,
    ),
    Mistake(
        pattern=_PROGRAM,
        message="{quoted} is a line of a program. Write only the package that it needs, as {package}.",
        whole_line=True,
    ),
    Mistake(pattern=r"[$`]", message="{quoted} holds a variable or a command. Write only packages, one on each line."),
    Mistake(pattern=r"://", message=_IS_URL),
    Mistake(pattern=r"@", of="wish", message=_IS_URL),
    Mistake(pattern=r"\\", message="{quoted} holds a backslash, which no requirement has. Leave it out."),
    Mistake(
        pattern=rf"^[.~]|/|{_FILE_NAME}",
        of="wish",
        flags="i",
        message="{quoted} is a file or a folder. Packages come from the index, by name.",
    ),
    Mistake(
        pattern=rf"^(?:[^(]*\(){{{MAX_PARENTHESES + 1}}}",
        message="The requirement {quoted} has too many parentheses. Leave them out.",
    ),
    Mistake(
        pattern=rf"^{NAME}[ \t]*(?:{_EXTRAS})?[ \t]*=(?![=>])",
        message="{quoted} has a single '='. Write two for one version, as in 'name==1.0'.",
    ),
    # Every condition compares something, with a sign or the word 'in'.
    Mistake(
        pattern=r"^[^;]*;(?![\s\S]*(?:[<>=]|in))",
        message="{quoted} has a ';', which only a condition follows. Write one package on each line.",
    ),
    Mistake(pattern=_REQUIREMENT, absent=True, message=NOT_A_REQUIREMENT),
)
"""In the order in which they are looked for: what is refused is told by the first that applies."""

CONTROL_IN_LINE = Mistake(
    pattern=r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]",
    message="The line {quoted} holds the control character {character}. Leave it out.",
    whole_line=True,
)
"""Looked for in the lines of a text, comments and all: the text is shown to people later."""

TOO_LONG = (
    "The package list has {count} characters; at most {limit} are read. "
    "Leave out what other packages bring with them anyway."
)
TOO_MANY = "The package list has {count} entries; at most {limit} are read."


def mistake_in(entry: str) -> str:
    """The sentence with which an entry without space around it is refused; "" for what may be a requirement."""
    return next((message for mistake in MISTAKES if (message := applied(mistake, entry))), "")


def applied(mistake: Mistake, entry: str) -> str:
    """The sentence of this mistake; "" where the entry does not make it."""
    looked_at = entry.partition(";")[0].rstrip(" \t") if mistake.of == "wish" else entry
    match = compiled(mistake).search(looked_at)
    if (match is None) is not mistake.absent:
        return ""
    values = {"quoted": quoted(entry), "count": f"{len(entry):,}"}
    if match is not None:
        values["character"] = named_character(match[0][0]) if match[0] else ""
        values["package"] = quoted(meant_by(match[1]) or match[1]) if match.re.groups else ""
    return filled(mistake.message, values)


@cache
def compiled(mistake: Mistake) -> re.Pattern[str]:
    """The mistake's pattern."""
    return pattern(mistake.pattern, mistake.flags)


@cache
def pattern(source: str, flags: str = "u") -> re.Pattern[str]:
    """A pattern that the page reads too, with `RegExp`'s flags."""
    # Without "u", `RegExp` finds no ASCII letter in a foreign one, whichever case.
    return re.compile(source, re.IGNORECASE | re.ASCII if flags == "i" else 0)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with the values in the places of their names; what a value holds is no place."""
    return re.sub(r"\{([a-z]+)\}", lambda place: values[place[1]], template)

"""Why a build from source failed, read from how it ended and what it printed. Pure.

Tools say in words of their own what they miss. Names in these come from strangers, and are cut to what a file or a
program can be called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..environment.names import meant_by
from ..environment.sizes import size_in_words
from .failure import Failure, Kind
from .sources import Flaw, SourceBuildLimits

_FILE = r"[A-Za-z0-9_+.-]{1,60}(?:/[A-Za-z0-9_+.-]{1,60})*"
_PROGRAM = r"[A-Za-z0-9_+.-]{1,60}"

_KNOWN = r"gcc|g\+\+|cc|c\+\+|clang|make|cmake|ninja|gfortran|cargo|rustc|go|git|swig"

_HEADER = re.compile(
    rf"(?:fatal )?error: ['\"<]?(?P<header>{_FILE}\.(?:h|hh|hpp|hxx|inc))['\">]?"
    "(?:: No such file or directory| file not found)"
)
_LIBRARY = re.compile(rf"cannot find -l(?P<library>{_PROGRAM})|unable to find library -l(?P<other>{_PROGRAM})")
_TOOLS = (
    re.compile(rf"error: command ['\"](?:\S*/)?(?P<tool>{_PROGRAM})['\"] failed: No such file or directory"),
    re.compile(rf"[Uu]nable to execute ['\"]?(?:\S*/)?(?P<tool>{_PROGRAM})['\"]?: No such file"),
    re.compile(rf"No such file or directory: ['\"](?:\S*/)?(?P<tool>{_KNOWN}|{_PROGRAM}[-_](?:config|gcc))['\"]"),
    re.compile(rf"(?P<tool>{_PROGRAM}): (?:command )?not found"),
    re.compile(rf"linker `(?P<tool>{_PROGRAM})` not found"),
    re.compile(rf"(?:Error: )?(?P<tool>{_PROGRAM}[-_]config) (?:executable )?(?:could )?not (?:be )?found"),
)
_NO_COMPILER = re.compile(
    r"No CMAKE_[A-Z]+_COMPILER could be found|Unknown compiler\(s\)|no acceptable C compiler found|"
    r"CompilerNotFound|[Cc]an(?:no|')t find (?:a )?(?:C |C\+\+ )?compiler"
)
_NO_RUST = re.compile(r"[Cc]an't find Rust compiler|requires Rust|Rust not found|Cargo, the Rust package manager")
_NETWORK = re.compile(
    r"Temporary failure in name resolution|Name or service not known|Network is unreachable|[Cc]ould not resolve host"
    r"|Failed to establish a new connection|getaddrinfo|gaierror|No address associated with hostname"
)
_PROCESSES = re.compile(r"can't start new thread|fork: (?:retry: )?Resource temporarily unavailable|BlockingIOError")
_DISK = re.compile(r"No space left on device|Errno 28\b|File too large|Errno 27\b|File size limit exceeded")

_ADVICE = "Try another version of it that has a wheel, or another package, or ask the administrator."
_OF_BASE = "Ask the administrator to add it to the image, or try another version of it that has a wheel."


def source_failure(name: str, version: str, *, flaw: Flaw, log: str, limits: SourceBuildLimits) -> Failure:
    """What to tell the user.

    Args:
        name, version: The package.
        flaw: How the build ended.
        log: The end of what it printed.
        limits: What it was allowed.
    """
    named = f"{name} {version}"
    kind, what, usual = _of_flaw(named, flaw, limits) or _of_log(named, log) or _unknown(named)
    meant = meant_by(name)
    # Some names hold nothing but a build that says so.
    advice = f"Did you mean {meant}? {usual}" if meant else usual
    return Failure(kind=kind, what=what, advice=advice, package=name)


_Said = tuple[Kind, str, str]


def _of_flaw(named: str, flaw: Flaw, limits: SourceBuildLimits) -> _Said | None:
    memory, disk = size_in_words(limits.memory_bytes), size_in_words(limits.disk_bytes)
    said: Mapping[Flaw, tuple[Kind, str]] = {
        Flaw.MEMORY: (
            Kind.BUILD_MEMORY,
            f"Building {named} from source needs more than the {memory} of memory that it may have.",
        ),
        Flaw.DISK: (
            Kind.BUILD_DISK,
            f"Building {named} from source needs more than the {disk} of scratch space that it may have.",
        ),
        Flaw.TIME: (
            Kind.BUILD_TIME,
            f"Building {named} from source took longer than the {limits.seconds:g} seconds that it may take.",
        ),
        Flaw.OUTPUT: (
            Kind.BUILD_OUTPUT,
            f"Building {named} from source printed more than {size_in_words(limits.output_bytes)}.",
        ),
        Flaw.UNREADABLE: (Kind.BUILD_FAILED, f"The source of {named} cannot be unpacked."),
        Flaw.NO_WHEEL: (Kind.BUILD_NO_WHEEL, f"Building {named} from source ended without a wheel."),
        Flaw.NONSENSE: (Kind.BUILD_NO_WHEEL, f"Building {named} from source ended without an answer."),
    }
    return (*said[flaw], _ADVICE) if flaw in said else None


def _of_log(named: str, log: str) -> _Said | None:
    header = _HEADER.search(log)
    if header is not None:
        what = f"Building {named} from source needs the header {quoted_file(header['header'])}, which the image lacks."
        return Kind.BUILD_HEADER, what, _OF_BASE
    library = _LIBRARY.search(log)
    if library is not None:
        found = library["library"] or library["other"]
        return (
            Kind.BUILD_HEADER,
            f"Building {named} from source needs the library {found}, which the image lacks.",
            _OF_BASE,
        )
    if _DISK.search(log):
        return Kind.BUILD_DISK, f"Building {named} from source ran out of scratch space.", _ADVICE
    if _PROCESSES.search(log):
        return Kind.BUILD_PROCESSES, f"Building {named} from source started more processes than it may.", _ADVICE
    tool = next((match["tool"] for pattern in _TOOLS if (match := pattern.search(log)) is not None), "")
    if tool or _NO_COMPILER.search(log) or _NO_RUST.search(log):
        missing = tool or ("a Rust compiler" if _NO_RUST.search(log) else "a C compiler")
        what = f"Building {named} from source needs {_called(missing)}, which the image lacks."
        return Kind.BUILD_TOOL, what, _OF_BASE
    if _NETWORK.search(log):
        what = f"Building {named} from source wants to fetch something from the network, which builds do not have."
        return Kind.BUILD_NETWORK, what, _ADVICE
    return None


def _unknown(named: str) -> _Said:
    return Kind.BUILD_FAILED, f"{named} has no wheel, and building it from source failed.", _ADVICE


def quoted_file(path: str) -> str:
    """A header's path without what makes it look like a path of the machine."""
    return "/".join(part for part in path.split("/") if part not in ("", ".", ".."))


def _called(tool: str) -> str:
    compilers = ("gcc", "g++", "cc", "c++", "clang", "clang++")
    is_compiler = tool in compilers or tool.endswith(("-gcc", "-g++", "-cc", "-clang"))
    return f"a C compiler ({tool})" if is_compiler else tool if tool.startswith("a ") else f"the program {tool}"

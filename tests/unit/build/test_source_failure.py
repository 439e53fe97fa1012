"""What users read of a build that failed, from what tools really print."""

from __future__ import annotations

import pytest

from prebuilt_spawner.build.source_failure import source_failure
from prebuilt_spawner.build.sources import Flaw, SourceBuildLimits, read_limits
from tests.messages import faults

LIMITS = SourceBuildLimits()


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        (
            "building 'fast' extension\nerror: command 'x86_64-linux-gnu-gcc' failed: No such file or directory\n",
            "build-tool",
            "a C compiler (x86_64-linux-gnu-gcc)",
        ),
        ("error: command '/usr/bin/g++' failed: No such file or directory", "build-tool", "a C compiler (g++)"),
        ("unable to execute 'gcc': No such file or directory\n", "build-tool", "a C compiler (gcc)"),
        ("CMake Error: No CMAKE_CXX_COMPILER could be found.", "build-tool", "a C compiler"),
        ("../meson.build:1:0: ERROR: Unknown compiler(s): [['cc'], ['gcc']]", "build-tool", "a C compiler"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'cmake'", "build-tool", "the program cmake"),
        ("/bin/sh: 1: mysql_config: not found", "build-tool", "the program mysql_config"),
        ("Error: pg_config executable not found.", "build-tool", "the program pg_config"),
        ("error: can't find Rust compiler", "build-tool", "a Rust compiler"),
        ("fast.c:1:10: fatal error: Python.h: No such file or directory", "build-header", "the header Python.h"),
        ("x.c:1: fatal error: openssl/opensslv.h: No such file or directory", "build-header", "openssl/opensslv.h"),
        ("x.c:3:10: fatal error: 'ffi.h' file not found", "build-header", "the header ffi.h"),
        ("x.c:3:10: fatal error: ../../etc/ffi.h: No such file or directory", "build-header", "the header etc/ffi.h"),
        ("/usr/bin/ld: cannot find -lgeos_c: No such file or directory", "build-header", "the library geos_c"),
        ("OSError: [Errno 28] No space left on device", "build-disk", "scratch space"),
        ("RuntimeError: can't start new thread", "build-processes", "more processes"),
        ("urlopen error [Errno -3] Temporary failure in name resolution", "build-network", "from the network"),
        ("curl: (6) Could not resolve host: example.test", "build-network", "from the network"),
        ("Traceback (most recent call last):\nKeyError: 'x'", "build-failed", "building it from source failed"),
    ],
)
def test_what_a_tool_prints_becomes_a_sentence_that_says_what_is_missing(log: str, kind: str, words: str):
    failure = source_failure("fast", "1.0", flaw=Flaw.FAILED, log=log, limits=LIMITS)
    assert (failure.kind.value, failure.package) == (kind, "fast")
    assert words in failure.what
    assert "fast 1.0" in failure.what
    assert faults(failure.message) == []


@pytest.mark.parametrize("flaw", [flaw for flaw in Flaw if flaw is not Flaw.FAILED])
def test_every_other_end_has_a_sentence_whatever_was_printed(flaw: Flaw):
    failure = source_failure("fast", "1.0", flaw=flaw, log="error: command 'gcc' failed", limits=LIMITS)
    assert failure.kind.value.startswith("build-")
    assert faults(failure.message) == []
    assert "gcc" not in failure.message


def test_a_name_that_people_confuse_is_answered_with_the_one_that_is_meant():
    """Some names hold nothing but a build that says so."""
    failure = source_failure("sklearn", "0.0", flaw=Flaw.FAILED, log="use scikit-learn", limits=LIMITS)
    assert "Did you mean scikit-learn?" in failure.message


def test_limits_are_read_and_what_is_left_out_keeps_its_default():
    assert read_limits({}) == LIMITS
    assert read_limits({"cpus": 0.5, "seconds": 60}) == SourceBuildLimits(cpus=0.5, seconds=60)

"""What the server's packages need."""

from __future__ import annotations

from prebuilt_spawner.environment.base import BaseProbe, InstalledDistribution
from prebuilt_spawner.environment.closure import protected_closure

from .probes import SITE, make_probe


def base(**requires: tuple[str, ...]) -> BaseProbe:
    """A base with these distributions; underscores in the names stand for dashes."""
    names = {name.replace("_", "-"): lines for name, lines in requires.items()}
    return make_probe(
        distributions={
            name: InstalledDistribution(
                name=name, version="1", location=SITE, metadata_directory=f"{name}-1.dist-info", requires=lines
            )
            for name, lines in names.items()
        }
    )


def test_dependencies_of_dependencies_belong_to_it_and_circles_end() -> None:
    probe = base(server=("web_Kit>=9",), web_kit=("loop",), loop=("server", "loop"), other=("server",))
    assert protected_closure(["Server"], probe) == {"server", "web-kit", "loop"}


def test_markers_are_those_of_the_base() -> None:
    probe = base(
        server=('win; sys_platform == "win32"', 'old; python_version < "3.12"', 'new; python_version >= "3.12"'),
        win=(),
        old=(),
        new=(),
    )
    assert protected_closure(["server"], probe) == {"server", "old"}


def test_an_extra_counts_where_it_is_asked_for() -> None:
    probe = base(
        server=("schema[Format_Plus]", 'tests; extra == "test"'),
        schema=('idna; extra == "format-plus"', 'webcolors; extra == "format"'),
        idna=(),
        webcolors=(),
        tests=(),
    )
    assert protected_closure(["server"], probe) == {"server", "schema", "idna"}


def test_what_the_base_lacks_or_nobody_can_read_leads_nowhere() -> None:
    probe = base(
        server=("absent", "!nonsense", "kit @ https://files.test/kit.whl", 'odd; os_name > "x"'), kit=(), odd=()
    )
    assert protected_closure(["server", "gone"], probe) >= {"server", "gone", "kit"}
    assert "absent" not in protected_closure(["server", "gone"], probe)

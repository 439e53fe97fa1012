"""Whatever a user writes is read as requirements or refused, and what policy saw is what a lock holds."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from prebuilt_spawner.adapters.uv_input import uv_input
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.interface import ResolveRequest
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest, ProfileRequest, _labels
from prebuilt_spawner.environment.lock import Lock, to_pylock
from prebuilt_spawner.environment.options import parse_user_options
from prebuilt_spawner.environment.policy import Policy, check_request, read_rules
from prebuilt_spawner.environment.requirements import merge_requirements, parse_requirements, requirement_name
from prebuilt_spawner.errors import MalformedRequest, PolicyRefusal, RequestError
from prebuilt_spawner.image.files import dockerfile
from tests.fuzzing import JSON, REQUESTS, fuzzed
from tests.injections import ALL, FORGED

from .build.locking_world import World, base_image, base_probe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CANONICAL = re.compile(
    r"[a-z0-9]+(?:-[a-z0-9]+)*"
    r"(?:\[[a-z0-9-]+(?:,[a-z0-9-]+)*\])?"
    r"(?:(?:===|[<>=!~]=|[<>])[A-Za-z0-9._+!*-]+(?:,(?:===|[<>=!~]=|[<>])[A-Za-z0-9._+!*-]+)*)?"
    r"(?:; [\x20-\x7e]+)?"
)
"""What may come out: one line of printable ASCII that begins with a name."""

MARKER_WORDS = re.compile(r"[a-z_]+|\"[^\"]*\"|'[^']*'|[<>=!~]=?=?|[()]|\s+")
PROBE = base_probe(six="1.16.0", requests="2.31")
NOTHING = uv_input(ResolveRequest(requirements=(), probe=PROBE), ("requests",))


def read_or_refused(read: Callable[[Any], Any], request: Any) -> Any:
    """What it is read as; None where it is refused, and that with a message for a page and a log."""
    try:
        return read(request)
    except MalformedRequest as error:
        refused = error
    assert refused.status == 400
    assert refused.message.isprintable(), refused.message
    assert len(refused.message) < 1000
    return None


def check_read(request: Any) -> tuple[str, ...]:
    """What the request is read as; () where it is refused. Fails where either is done badly."""
    requirements: tuple[str, ...] | None = read_or_refused(parse_requirements, request)
    if requirements is None:
        return ()
    text = request if isinstance(request, str) else " ".join(request)
    lines = re.sub(r"\\(?:\r\n?|\n)|[\\'\"]", "", text)  # as in a shell, lines go on and quotes join
    given_text = canonicalize_name(re.sub(r"[^\x20-\x7e]", " ", lines))
    for requirement in requirements:
        assert CANONICAL.fullmatch(requirement), requirement
        parsed = Requirement(requirement)
        assert parsed.url is None
        if parsed.marker is not None:
            assert not MARKER_WORDS.sub("", str(parsed.marker)), requirement
        assert canonicalize_name(parsed.name) == parsed.name == requirement_name(requirement)
        assert parsed.name in given_text, "a package that nobody named"
    assert parse_requirements(list(requirements)) == requirements == merge_requirements(requirements)
    # What uv reads: these lines and the base's names, and nothing of the request in its other files.
    question = uv_input(ResolveRequest(requirements=requirements, probe=PROBE), ("requests",))
    assert question.requirements.splitlines() == [*requirements, "requests", "six"]
    assert (question.constraints, question.pins, question.settings) == (
        NOTHING.constraints,
        NOTHING.pins,
        NOTHING.settings,
    )
    return requirements


@fuzzed(usually=500, long=20_000)
@given(REQUESTS)
def test_every_request_is_read_as_requirements_or_refused(request: Any) -> None:
    check_read(request)


@pytest.mark.parametrize("text", ALL)
def test_nothing_of_an_injection_is_left_but_requirements(text: str) -> None:
    """In a list, as text, beside something good, and more than once."""
    for request in ([text], text, ["six", text], f"six\n{text}", f"{text}\n{text}"):
        for requirement in check_read(request):
            marker = Requirement(requirement).marker
            assert FORGED not in requirement or marker is None or FORGED not in str(marker)


@fuzzed(usually=200, long=5_000)
@given(st.one_of(JSON, st.dictionaries(st.sampled_from(["packages", "profile", "image", "refresh", "x"]), JSON)))
def test_options_of_any_form_are_read_or_refused(options: Any) -> None:
    read = read_or_refused(parse_user_options, options)
    if read is None:
        return
    assert all(CANONICAL.fullmatch(requirement) for requirement in read.packages)
    assert all(name is None or name.isprintable() for name in (read.profile, read.image))


# -- what policy saw, and what the lock holds ------------------------------------------------------------------------

INDEX = {
    "alpha": {"1.0": (), "1.5": ("beta<2",), "2.0": ("beta",), "3.0rc1": ()},
    "beta": {"1.0": (), "2.0": ("gamma",)},
    "gamma": {"1.0": ("six",), "2.0": ()},
    "delta": {"1.0": ("alpha<2", "acme-one")},
    "acme-one": {"1.0": ("acme-two[x]",), "1.1+local": ()},
    "acme-two": {"1.0": ("six; extra == 'x'",), "2.0": ("torch; os_name == 'nt'",)},
    "torch": {"1.0": ("gamma<2",), "2.0": ("six>=1.15", "beta")},
    "six": {"1.14": (), "1.16.0": (), "1.17": ()},
}
PROFILES = (
    None,
    ProfileRequest(slug="a", requirements=("gamma",)),
    ProfileRequest(slug="b", requirements=("delta", "six")),
)
VERSIONS = ("", "", "", "==1.0", ">=1", ">=1,<2", "<2", ">1.14", "!=2.0", "~=1.0", "===1.0", "==1.*", ">=2.5rc1")
PATTERNS = (*INDEX, "acme-*", "*", "?ix", "a*", "*a")

WISHES = st.lists(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from([*INDEX, "Acme_One", "nope"]),
        st.sampled_from(["", "", "[x]"]),
        st.sampled_from(VERSIONS),
        st.sampled_from(["", "", "; os_name == 'nt'", "; python_version >= '3'"]),
    ),
    max_size=4,
)
RULES = st.dictionaries(
    st.builds("{}{}".format, st.sampled_from(PATTERNS), st.sampled_from(VERSIONS)),
    st.sampled_from(["", "why"]),
    max_size=3,
)


class Case:
    """One hub over many cases, as locks that are there already matter; a new one now and then."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.cases = 0
        self.world = self.new_world()

    def new_world(self) -> World:
        world = World()
        world.probe = PROBE
        for name, versions in INDEX.items():
            for version, requires in versions.items():
                world.resolver.publish(name, version, *requires, size_bytes=len(name) * 100)
        return world

    def close(self) -> None:
        self.loop.run_until_complete(self.world.locksmith.close())
        self.loop.run_until_complete(self.world.ledger.close())

    def turn(self) -> None:
        self.cases += 1
        if self.cases % 500 == 0:
            self.close()
            self.world = self.new_world()

    def lock(self, request: EnvironmentRequest, *, known: bool = False) -> Lock | RequestError | None:
        smith, base = self.world.locksmith, base_image()
        if known:
            getting = smith.known_lock(request, base, PROBE)
        else:
            getting = smith.lock_for(request, base, PROBE, report=ignore)
        try:
            return self.loop.run_until_complete(getting)
        except RequestError as error:
            return error


@pytest.fixture(scope="module")
def case() -> Iterator[Case]:
    case = Case()
    yield case
    case.close()
    case.loop.close()


def matches(rules: dict[str, str], name: str, version: str) -> bool:
    """What the documentation says, said once more."""
    for rule in rules:
        pattern, versions = re.fullmatch(r"([a-z*?-]+)(.*)", rule).groups()
        glob = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(glob, name) and SpecifierSet(versions).contains(Version(version), prereleases=True):
            return True
    return False


def violates(lock: Lock, alone: Lock, asked: set[str], policy: dict[str, Any]) -> bool:
    added = [wheel for wheel in lock.wheels if wheel not in alone.wheels]
    named = [wheel for wheel in added if wheel.name in asked]
    return (
        any(matches(policy["denied"], wheel.name, wheel.version) for wheel in added)
        or any(policy["allowed"] and not matches(policy["allowed"], wheel.name, wheel.version) for wheel in named)
        or bool(policy["max_bytes"] and sum(wheel.size_bytes or 0 for wheel in added) > policy["max_bytes"])
    )


@fuzzed(usually=300, long=10_000)
@given(
    wishes=WISHES,
    profile=st.sampled_from(PROFILES),
    allowed=RULES,
    denied=RULES,
    max_bytes=st.sampled_from([0, 0, 500, 1500]),
    user=st.sampled_from("ab"),
    refresh=st.booleans(),
)
def test_a_lock_holds_nothing_that_policy_would_not_let_in_and_nothing_else_is_refused(
    case: Case, wishes: list[str], profile: Any, allowed: Any, denied: Any, max_bytes: int, user: str, refresh: bool
) -> None:
    case.turn()
    policy = Policy(
        allow_custom_packages=True,
        allowed_packages=read_rules(allowed),
        denied_packages=read_rules(denied),
        max_packages=3,
        max_environment_bytes=max_bytes,
    )
    limits = {"allowed": allowed, "denied": denied, "max_bytes": max_bytes}
    own = profile.requirements if profile else ()
    try:
        requirements = parse_requirements(wishes)
        check_request(policy, requirements, user_name=user)
        merged = merge_requirements(own, requirements)
    except RequestError:
        return
    assert len({requirement_name(requirement) for requirement in requirements}) <= 3
    asked = {requirement_name(requirement) for requirement in merged if requirement not in own}
    options: dict[str, Any] = {"user": user, "base": "base:1", "profile": profile, "may_refresh_profile": True}
    request = EnvironmentRequest(requirements=merged, policy=policy, refresh=refresh, **options)
    got = case.lock(request)
    free = case.lock(EnvironmentRequest(requirements=merged, **options))
    alone = case.lock(EnvironmentRequest(requirements=own, **options)) if profile else Lock()
    assert isinstance(alone, Lock)
    if isinstance(got, PolicyRefusal):
        assert isinstance(free, Lock)
        assert violates(free, alone, asked, limits)
    elif isinstance(got, Lock):
        assert got == free
        assert not asked or not violates(got, alone, asked, limits)
        check_image(got)
    else:
        assert type(got) is type(free)
    if not refresh:
        known = case.lock(request, known=True)
        assert known == got if isinstance(got, Lock) else type(known) in (type(got), type(None))


def check_image(lock: Lock) -> None:
    """What is written into an image about an environment is the lock's, and nobody's text."""
    environment = Environment(digest="0" * 64, image="x", base=base_image(), probe=PROBE, lock=lock)
    assert json.loads(_labels(environment)["prebuilt_spawner.packages"]) == list(lock.packages)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.+!]+", package) for package in lock.packages)
    written = tomllib.loads(to_pylock(lock))["packages"]
    assert [(package["name"], package["version"]) for package in written] == list(lock.pins.items())
    if lock.wheels:
        assert dockerfile_of(lock) == dockerfile_of(Lock(wheels=lock.wheels[:1]))


def dockerfile_of(lock: Lock) -> str:
    return dockerfile(base=base_image(), lock=lock, probe=PROBE, immutable=True, version="1")

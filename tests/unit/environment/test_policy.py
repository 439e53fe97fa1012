"""Tests of `prebuilt_spawner.environment.policy`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.environment.policy import Policy, check_lock, check_request, read_rules
from prebuilt_spawner.environment.requirements import parse_requirements, requirement_name
from prebuilt_spawner.errors import PolicyRefusal
from tests.messages import faults


def policy_of(**limits) -> Policy:
    """A policy with these limits; lists of packages are read."""
    rules = {name: read_rules(value) for name, value in limits.items() if name.endswith("ed_packages")}
    return Policy(**({"allow_custom_packages": True} | limits | rules))


def check(request: str, **limits) -> None:
    check_request(policy_of(**limits), parse_requirements(request), user_name="alice")


def refusal(request: str, **limits) -> str:
    with pytest.raises(PolicyRefusal) as caught:
        check(request, **limits)
    assert caught.value.status == 403
    assert "alice" in caught.value.message
    assert caught.value.about == "packages"
    assert caught.value.entry in ("", *parse_requirements(request), *map(requirement_name, parse_requirements(request)))
    return caught.value.message


def test_without_custom_packages_only_the_empty_request_is_allowed():
    """The default policy."""
    check_request(Policy(), ())
    check("", allow_custom_packages=False)
    assert "'pandas'" in refusal("pandas", allow_custom_packages=False)
    with pytest.raises(PolicyRefusal):
        check_request(Policy(), ("pandas",))


def test_without_lists_everything_is_allowed():
    """Empty means no limit."""
    check("pandas>=2\nnumpy[x]; os_name=='nt'")


def test_names_are_counted_once():
    """Two wishes for one name under different markers are one package."""
    check("a; os_name=='nt'\na; os_name=='posix'\nb", max_packages=2)
    assert "3 packages" in refusal("a\nb\nc", max_packages=2)
    assert "at most 0" in refusal("a", max_packages=0)


@pytest.mark.parametrize("entry", ["Foo_Bar", "foo-bar", "foo.*", "FOO*", "*bar", "foo-ba?", "*"])
def test_entries_are_names_or_globs_over_normalised_names(entry):
    """The same entry allows and denies the same names."""
    check("foo-bar>=1", allowed_packages=(entry,))
    assert "foo-bar" in refusal("Foo.Bar>=1", denied_packages=(entry,))


@pytest.mark.parametrize("entry", ["foo", "foo-bar-more", "bar", "foo-b", "?oo", "foo-*-*"])
def test_entries_match_whole_names(entry):
    """A part of a name is another name."""
    check("foo-bar", denied_packages=(entry,))
    assert "foo-bar" in refusal("foo-bar", allowed_packages=(entry,))


def test_the_first_package_that_is_not_allowed_is_named():
    """The others are not blamed."""
    message = refusal("numpy\npandas\nscipy", allowed_packages=("numpy", "scipy"))
    assert "pandas" in message
    assert "numpy" not in message


@pytest.mark.parametrize(
    ("limits", "entry"),
    [
        ({"allowed_packages": ("numpy", "scipy")}, "pandas"),
        ({"denied_packages": ("pandas",)}, "pandas"),
        ({"denied_packages": ("pandas<2",)}, "pandas>=1"),
        ({"allowed_packages": ("numpy", "scipy", "pandas>=2")}, "pandas>=1"),
        ({"allow_custom_packages": False}, "numpy"),
        ({"max_packages": 2}, ""),
    ],
)
def test_the_error_carries_the_entry_that_it_is_about(limits, entry):
    """None where it is about all of them."""
    with pytest.raises(PolicyRefusal) as caught:
        check("numpy\npandas>=1\nscipy", **limits)
    assert (caught.value.about, caught.value.entry) == ("packages", entry)


def test_what_is_denied_is_denied_even_if_it_is_allowed():
    """So an administrator can take one package out of a glob."""
    check("acme-a", allowed_packages=("acme-*",), denied_packages=("acme-b",))
    assert "acme-b" in refusal("acme-b", allowed_packages=("acme-*",), denied_packages=("acme-b",))


@pytest.mark.parametrize("request_", ["pandas>=2", "pandas==2.1", "pandas[x]>=2.2,<3"])
def test_versions_inside_the_allowed_ones_are_allowed(request_):
    """Whichever of them is taken in the end."""
    check(request_, allowed_packages=("numpy", "Pandas>=2.0"))
    check(request_, denied_packages=("pandas<2",))


@pytest.mark.parametrize(
    "request_", ["pandas", "pandas>=1", "pandas!=1.0", "pandas==1.5", "pandas<2.1", "pandas===1.0"]
)
def test_a_wish_that_admits_another_version_is_refused(request_):
    """The message says how to write it."""
    message = refusal(request_, allowed_packages=("numpy", "Pandas>=2.0"))
    assert "'pandas>=2.0'" in message
    assert "<2" in refusal(request_, denied_packages=("pandas<2",))


def test_several_entries_for_one_name_are_alternatives():
    """One that fits is enough."""
    allowed = ("pandas==1.5.*", "pandas>=2")
    check("pandas==1.5.3", allowed_packages=allowed)
    check("pandas>=2.1", allowed_packages=allowed)
    refusal("pandas==1.6", allowed_packages=allowed)


@pytest.mark.parametrize(
    "entry", ["", "foo bar", "foo[x]", "-r x", "foo>=", "foo>=abc", "https://x.example.org", "foo; os_name=='nt'"]
)
def test_an_entry_that_is_no_rule_is_refused_when_it_is_read(entry):
    """At hub start, not at the first request; the setting is named."""
    with pytest.raises(ValueError, match="denied_packages"):
        read_rules([entry], source="denied_packages")
    with pytest.raises(ValueError, match="allowed_packages"):
        read_rules({entry: "why"}, source="allowed_packages")


@pytest.mark.parametrize("entries", ["pandas", None, 5, [5], [None], {"pandas": None}, {"pandas": 5}, {5: ""}, [["a"]]])
def test_what_is_no_list_of_packages_is_no_list_without_limits(entries):
    """A callable that returns nothing by mistake allows nothing by mistake."""
    with pytest.raises(ValueError, match="denied_packages"):
        read_rules(entries, source="denied_packages")


@pytest.mark.parametrize("limit", ["allowed_packages", "denied_packages"])
def test_a_reason_is_part_of_the_refusal(limit):
    """On one line, whatever the administrator's text looks like, and "" adds nothing."""
    entry = "pandas<2" if limit == "denied_packages" else "pandas>=2"
    message = refusal("pandas", **{limit: {entry: " too\nold. "}})
    assert message.startswith("'pandas' admits versions that are not allowed for alice")
    assert ": too old. " in message
    assert refusal("pandas", **{limit: {entry: ""}}) == refusal("pandas", **{limit: [entry]})
    assert "for alice: unmaintained. Leave" in refusal("six", denied_packages={"s*": "unmaintained"})


def lock_of(*packages: str) -> Lock:
    return Lock(wheels=tuple(wheel(*package.split("==")) for package in packages))


def wheel(name: str, version: str) -> LockedWheel:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return LockedWheel(name=name, version=version, filename=filename, url=f"https://x/{filename}", sha256="0" * 64)


def check_installed(request: str, *packages: str, exempt: Lock | None = None, **limits) -> None:
    """The request passes, and its lock has these packages."""
    requirements = parse_requirements(request)
    check(request, **limits)
    check_lock(policy_of(**limits), lock_of(*packages), requirements=requirements, exempt=exempt, user_name="alice")


def lock_refusal(request: str, *packages: str, **more) -> PolicyRefusal:
    with pytest.raises(PolicyRefusal) as caught:
        check_installed(request, *packages, **more)
    assert caught.value.status == 403
    assert not faults(caught.value.message)
    return caught.value


def test_a_denied_package_cannot_come_in_as_a_dependency():
    """The refusal says which package it is, why it is denied, and what brought it in."""
    error = lock_refusal("python-dateutil", "python-dateutil==2.9", "six==1.17", denied_packages={"six": "use attrs"})
    assert error.message == (
        "six 1.17 is not allowed for alice: use attrs. python-dateutil, which you asked for, brings it in. "
        "Ask for something else, or ask the administrator."
    )
    assert (error.package, error.about, error.entry) == ("six", "packages", "python-dateutil")


def test_of_many_that_were_asked_for_some_are_named():
    error = lock_refusal("a b c d e", "a==1", "six==1.17", denied_packages=["six"])
    assert "brings it in (a, b, c and 2 more)" in error.message
    assert error.entry == "six"


def test_a_version_is_denied_wherever_it_comes_from():
    """Where another version comes in, nothing is refused; prereleases and local versions are versions."""
    check_installed("a", "a==1", "six==1.17", denied_packages=["six<1.17"])
    for version in ("1.16", "1.16rc1", "1.16+local"):
        assert "another version of six" in lock_refusal("a", f"six=={version}", denied_packages=["six<1.17"]).message


def test_dependencies_of_what_is_allowed_come_along():
    """A list of what is allowed limits names that people ask for; it need not hold all that these need."""
    check_installed("pandas", "numpy==2.0", "pandas==2.2", allowed_packages=["pandas"])


def test_what_is_asked_for_is_installed_in_an_allowed_version_or_not_at_all():
    """Whatever a resolver makes of the request."""
    error = lock_refusal("pandas>=2", "pandas==1.5", allowed_packages=["pandas>=2", "numpy"])
    assert error.entry == error.package == "pandas"


def test_what_the_profile_alone_installs_is_exempt_and_nothing_else():
    """By name and version: another version than the profile's is what the user's packages brought in."""
    profile = lock_of("six==1.17", "old==1")
    check_installed("a", "a==1", "old==1", "six==1.17", exempt=profile, denied_packages=["six", "old"])
    lock_refusal("a", "a==1", "six==1.16", exempt=profile, denied_packages=["six", "old"])
    lock_refusal("a", "a==1", "worse==1", "six==1.17", exempt=profile, denied_packages=["six", "worse"])


def sized(**sizes: int | None) -> Lock:
    wheels = (replace(wheel(name, "1"), size_bytes=size) for name, size in sizes.items())
    return Lock(wheels=tuple(wheels))


def test_what_is_too_large_is_refused_with_the_largest_packages():
    """By the sizes of the wheels, those of dependencies included."""
    lock = sized(a=700_000_000, b=20_000_000, c=3_000_000, d=400_000_000)
    policy = policy_of(max_environment_bytes=1_123_000_000)
    check_lock(policy, lock, requirements=("a",))
    with pytest.raises(PolicyRefusal) as caught:
        check_lock(policy_of(max_environment_bytes=1_122_999_999), lock, requirements=("a",), user_name="alice")
    assert caught.value.message == (
        "These packages have 1.1 GB together with what they need; at most 1.1 GB are allowed for alice. "
        "The largest: a 1 with 700 MB, d 1 with 400 MB, b 1 with 20 MB. Leave some out, or ask the administrator."
    )
    assert not faults(caught.value.message)


def test_the_profiles_packages_and_unknown_sizes_do_not_count():
    """Of the latter, the download is limited."""
    policy = policy_of(max_environment_bytes=1000)
    check_lock(policy, sized(a=1000, b=10**12, c=None), requirements=("a",), exempt=sized(b=10**12))
    with pytest.raises(PolicyRefusal):
        check_lock(policy, sized(a=1001), requirements=("a",))


def test_no_limit_of_bytes_is_none():
    check_lock(policy_of(max_environment_bytes=0), sized(a=10**15), requirements=("a",))

"""Tests of `prebuilt_spawner.environment.policy`."""

from __future__ import annotations

import pytest

from prebuilt_spawner.environment.policy import Policy, check_request
from prebuilt_spawner.environment.requirements import parse_requirements, requirement_name
from prebuilt_spawner.errors import PolicyRefusal


def check(request: str, **limits) -> None:
    policy = Policy(**({"allow_custom_packages": True} | limits))
    check_request(policy, parse_requirements(request), user_name="alice")


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
def test_an_entry_that_is_no_rule_is_refused_when_the_policy_is_made(entry):
    """At hub start, not at the first request."""
    with pytest.raises(ValueError, match="allowed_packages"):
        Policy(allowed_packages=(entry,))
    with pytest.raises(ValueError, match="denied_packages"):
        Policy(denied_packages=(entry,))

"""Tests of `prebuilt_spawner.environment.profiles`."""

from __future__ import annotations

import pytest

from prebuilt_spawner.environment.profiles import Profile, choose_profile, read_profiles
from prebuilt_spawner.errors import MalformedRequest

STATS = {"display_name": "Statistics", "packages": ["statsmodels", "Pandas >= 2.0"]}
PLAIN = {"display_name": "Plain base"}


def error(profile_list) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        read_profiles(profile_list)
    assert not isinstance(caught.value, UnicodeError)
    return str(caught.value)


def test_a_whole_entry_is_read():
    """Every key has its place."""
    entry = {
        "display_name": "Machine learning (GPU)",
        "slug": "ml",
        "description": "With <b>everything</b>",
        "default": True,
        "packages": "scikit-learn\n# note\nTorch>=2",
        "lock": "/srv/locks/pylock.ml.toml",
        "image": "gpu",
        "allow_extra_packages": False,
        "spawner_override": {"mem_limit": "8G"},
    }
    assert read_profiles([entry]) == (
        Profile(
            slug="ml",
            display_name="Machine learning (GPU)",
            description="With <b>everything</b>",
            default=True,
            requirements=("scikit-learn", "torch>=2"),
            lock="/srv/locks/pylock.ml.toml",
            image="gpu",
            allow_extra_packages=False,
            spawner_override={"mem_limit": "8G"},
        ),
    )


def test_an_entry_needs_a_name_only():
    """The rest has defaults."""
    (profile,) = read_profiles([PLAIN])
    assert profile == Profile(slug="plain-base", display_name="Plain base", default=True)


@pytest.mark.parametrize(
    ("display_name", "slug"),
    [
        ("Plain base", "plain-base"),
        ("  R & Python (3.11)! ", "r-python-3-11"),
        ("Économétrie", "econometrie"),
        ("under_score", "under-score"),
    ],
)
def test_a_slug_is_made_from_the_display_name(display_name, slug):
    """As KubeSpawner makes it."""
    assert read_profiles([{"display_name": display_name}])[0].slug == slug


def test_a_dict_names_the_slugs():
    """The order of the dict is the order of the profiles."""
    profiles = read_profiles({"b": PLAIN, "a": STATS | {"slug": "a"}})
    assert [(profile.slug, profile.display_name) for profile in profiles] == [("b", "Plain base"), ("a", "Statistics")]


def test_exactly_one_profile_is_the_default():
    """The one that says so, else the first."""
    assert [profile.default for profile in read_profiles([PLAIN, STATS])] == [True, False]
    assert [profile.default for profile in read_profiles([PLAIN, STATS | {"default": True}])] == [False, True]
    assert read_profiles([]) == read_profiles({}) == ()


@pytest.mark.parametrize(
    ("profile_list", "words"),
    [
        ("x", ["a text"]),
        (None, ["null"]),
        ([STATS, 7], ["number 2", "a number"]),
        ([{}], ["number 1", "display_name"]),
        ([{"display_name": ""}], ["display_name"]),
        ([{"display_name": 7}], ["display_name", "a number"]),
        ([{"display_name": "日本"}], ["slug"]),
        ([PLAIN | {"slug": "a b"}], ["'Plain base'", "slug"]),
        ([PLAIN | {"slug": "../x"}], ["'Plain base'", "slug"]),
        ([PLAIN | {"slug": "x\n"}], ["'Plain base'", "slug"]),
        ([PLAIN, PLAIN], ["two profiles", "'plain-base'"]),
        ([PLAIN | {"default": True}, STATS | {"default": True}], ["default", "plain-base", "statistics"]),
        ([PLAIN | {"default": "yes"}], ["default", "'Plain base'"]),
        ([PLAIN | {"pakages": []}], ["'pakages'", "packages"]),
        ([PLAIN | {"zzz": []}], ["'zzz'", "known are"]),
        ([PLAIN | {7: 1}], ["unknown key"]),
        ([PLAIN | {"profile_options": {}}], ["profile_options", "one profile for each choice"]),
        ([PLAIN | {"kubespawner_override": {}}], ["kubespawner_override", "spawner_override"]),
        ([PLAIN | {"spawner_override": []}, 7], ["number 2"]),
        ([PLAIN | {"spawner_override": ["x"]}], ["spawner_override", "a list"]),
        ([PLAIN | {"packages": ["../x"]}], ["packages", "'Plain base'", "'../x'"]),
        ([PLAIN | {"packages": 7}], ["packages", "a number"]),
        ([PLAIN | {"allow_extra_packages": 1}], ["allow_extra_packages", "True or False"]),
        ([PLAIN | {"image": ["x"]}], ["image", "a list"]),
        ([PLAIN | {"lock": {}}], ["lock", "an object"]),
        ({"a": PLAIN | {"slug": "b"}}, ["'a'", "'b'"]),
        ({7: PLAIN}, ["slug"]),
        ({"a": "x"}, ["'a'", "a text"]),
    ],
)
def test_an_error_in_a_profile_list_is_said_to_the_administrator(profile_list, words):
    """With the profile and the key named."""
    message = error(profile_list)
    for word in words:
        assert word in message


def test_a_profile_is_chosen_by_its_slug_or_by_default():
    """Without a slug the default applies, else the first."""
    profiles = read_profiles([PLAIN, STATS | {"default": True}])
    assert choose_profile(profiles, "plain-base") is profiles[0]
    assert choose_profile(profiles, None) is profiles[1]
    assert choose_profile((), None) is None
    unmarked = (Profile(slug="a", display_name="A"), Profile(slug="b", display_name="B"))
    assert choose_profile(unmarked, None) is unmarked[0]


def test_an_unknown_profile_is_refused_with_the_known_ones_named():
    """Shortened, whatever was sent."""
    profiles = read_profiles([PLAIN, STATS])
    with pytest.raises(MalformedRequest, match=r"'stats'.*plain-base, statistics"):
        choose_profile(profiles, "stats")
    with pytest.raises(MalformedRequest) as caught:
        choose_profile(profiles, "x\n" * 10_000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200
    assert caught.value.about == "profile"
    with pytest.raises(MalformedRequest, match="no profiles") as caught:
        choose_profile((), "stats")
    assert caught.value.about == "profile"

"""Tests of `prebuilt_spawner.environment.digest` and `.spec`."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.environment.digest import (
    base_digest,
    canonical_json,
    environment_digest,
    lineage_digest,
    request_digest,
    runtime_config,
)
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.environment.requirements import parse_requirements
from prebuilt_spawner.environment.spec import EnvironmentSpec

BASE = "b" * 64
LAYERS = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)
SPEC = EnvironmentSpec(requirements=("python-docx>=1", "xlsxwriter"))
WHEELS = (
    LockedWheel(name="lxml", version="6.0.0", filename="l.whl", url="https://example.org/l.whl", sha256="c" * 64),
    LockedWheel(
        name="python-docx", version="1.2.0", filename="p.whl", url="https://example.org/p.whl", sha256="d" * 64
    ),
)
# What `docker inspect` says of one image on the graphdriver store of 20.10 …
GRAPHDRIVER = {
    "Hostname": "4c5d",
    "Domainname": "",
    "User": "jovyan",
    "AttachStdin": False,
    "ExposedPorts": {"8888/tcp": {}},
    "Tty": False,
    "Env": ["PATH=/opt/venv/bin:/usr/bin", "HOME=/home/jovyan"],
    "Cmd": ["start-notebook.py"],
    "Healthcheck": {"Test": ["CMD", "check"], "Interval": 3000000000, "Timeout": 0, "Retries": 3},
    "ArgsEscaped": True,
    "Image": "sha256:abc",
    "Volumes": None,
    "WorkingDir": "/home/jovyan",
    "Entrypoint": ["tini", "-g", "--", "start.sh"],
    "OnBuild": [],
    "Labels": {"a": "", "b": "1"},
}
# … and on the containerd store of a newer engine.
CONTAINERD = {
    "ArgsEscaped": True,
    "Cmd": ["start-notebook.py"],
    "Entrypoint": ["tini", "-g", "--", "start.sh"],
    "Env": ["PATH=/opt/venv/bin:/usr/bin", "HOME=/home/jovyan"],
    "ExposedPorts": {"8888/tcp": {}},
    "Healthcheck": {"Test": ["CMD", "check"], "Interval": 3000000000, "Retries": 3},
    "Labels": {"b": "1", "a": ""},
    "OnBuild": None,
    "User": "jovyan",
    "Volumes": None,
    "WorkingDir": "/home/jovyan",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def base(**changes) -> str:
    values = {"diff_ids": LAYERS, "config": GRAPHDRIVER, "os": "linux", "architecture": "amd64", "variant": ""}
    return base_digest(**(values | changes))


def request(requirements=SPEC.requirements, **changes) -> str:
    values = {"base_digest": BASE, "index_url": None, "extra_index_urls": (), "scope": ""}
    return request_digest(EnvironmentSpec(requirements=tuple(requirements)), **(values | changes))


def environment(wheels=WHEELS, **changes) -> str:
    values = {"base_digest": BASE, "platform": "linux/amd64", "layout_version": 1, "immutable": True}
    return environment_digest(Lock(wheels=tuple(wheels)), **(values | changes))


def test_digests_never_change_by_accident():
    """These values name images and locks that people have. A change needs a new schema, and a word in the changelog."""
    assert base() == "c87bcdb564c21d7c9b76eef12d91e695ea87be4e7234b4460e6d404c1c1a96a6"
    assert request() == "cdd8073451c45c406b36894976f64136d6161a778f6a372e40071be13d63c96e"
    assert (
        lineage_digest(SPEC, base_reference="quay.example.org/base:1", index_url=None, scope="profile:stats")
        == "47f54f23befcd1a36cf69e9e230ef95846bcfca8ec201b81978dd7888892826e"
    )
    assert environment() == "2273d8d5a4edc5e47e2f33f677c416b7f7feeb22d7b9d63e1eda6a9e1a5754e6"
    assert environment([]) == "04b370f1041f2052107321e35f93d93842f7a7bf7acbdc6b3eccc61825f10ca2"


def test_canonical_json_is_sorted_ascii_without_spaces():
    """Also for read-only mappings, tuples and lone surrogates."""
    value = MappingProxyType({"b": (1, None, True), "a": {"é": "\ud83d", "B": MappingProxyType({})}})
    assert canonical_json(value) == b'{"a":{"B":{},"\\u00e9":"\\ud83d"},"b":[1,null,true]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"x": {1, 2}}, b"x"])
def test_what_is_no_json_value_has_no_canonical_form(value):
    """It is refused, not turned into some text."""
    with pytest.raises((TypeError, ValueError)):
        canonical_json(value)


@given(json_values)
def test_canonical_json_means_the_same(value):
    """It is JSON, and reading and writing it again changes nothing."""
    written = canonical_json(value)
    assert json.loads(written) == value
    assert canonical_json(json.loads(written)) == written


def test_one_image_has_one_base_digest_in_both_image_stores():
    """What the stores write differently does not count."""
    assert base(config=GRAPHDRIVER) == base(config=CONTAINERD) == base(config=runtime_config(GRAPHDRIVER))


def test_the_runtime_config_keeps_what_is_empty_and_means_something():
    """Ports, volumes, empty labels and a stop timeout of 0 stay; null, empty and false values go."""
    config = {
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"empty": ""},
        "StopTimeout": 0,
        "Env": ("B=2", "A=1"),
        "Cmd": [],
        "Shell": None,
        "User": "",
        "ArgsEscaped": False,
        "Healthcheck": {"Test": [], "Interval": 0},
        "Hostname": "x",
    }
    assert runtime_config(config) == {
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"empty": ""},
        "StopTimeout": 0,
        "Env": ["B=2", "A=1"],
    }
    assert runtime_config({}) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"diff_ids": LAYERS[::-1]},
        {"diff_ids": LAYERS[:1]},
        {"os": "windows"},
        {"architecture": "arm64"},
        {"architecture": "arm", "variant": "v6"},
        {"config": GRAPHDRIVER | {"Env": GRAPHDRIVER["Env"][::-1]}},
        {"config": GRAPHDRIVER | {"Cmd": ["start-notebook.py", ""]}},
        {"config": GRAPHDRIVER | {"User": "root"}},
        {"config": GRAPHDRIVER | {"StopTimeout": 0}},
        {"config": GRAPHDRIVER | {"Labels": {"b": "1"}}},
        {"config": GRAPHDRIVER | {"Healthcheck": {"Test": ["NONE"]}}},
    ],
)
def test_whatever_changes_the_base_changes_its_digest(changes):
    """Layers and their order, platform, and every runtime setting."""
    assert base(**changes) != base()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"architecture": "arm64", "variant": "v8"}, {"architecture": "aarch64"}),
        ({"architecture": "x86_64"}, {"architecture": "amd64", "variant": "v1"}),
        ({"architecture": "arm", "variant": "v7"}, {"architecture": "arm"}),
    ],
)
def test_spellings_of_one_platform_are_one_platform(one, other):
    """For the base digest and for the environment digest."""
    assert base(**one) == base(**other)
    spelled = ["/".join(["linux", *each.values()]) for each in (one, other)]
    assert environment(platform=spelled[0]) == environment(platform=spelled[1])


def test_the_request_digest_does_not_depend_on_the_spelling_of_the_request():
    """Two people who ask for the same find the same lock."""
    one = parse_requirements(["xlsxwriter", "python-docx>=1"])
    other = parse_requirements("Python_DOCX >= 1.0\n# reports\nXlsxWriter")
    assert request(one) == request(other) == request((*other, *one)) == request()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, ""),
        ("https://index.example.org/simple", "https://index.example.org/simple/"),
        ("https://index.example.org/simple", "https://user:secret@index.example.org/simple"),
        ("https://index.example.org/simple", "HTTPS://token@INDEX.example.org:443/simple#part"),
        ("http://127.0.0.1:8081/simple", "http://__token__:x@127.0.0.1:8081/simple/"),
        ("http://[::1]:80/simple", "http://u@[::1]/simple"),
    ],
)
def test_credentials_and_spelling_of_an_index_do_not_count(one, other):
    """A rotated password finds the same locks."""
    assert request(index_url=one) == request(index_url=other)
    if one:
        assert request(extra_index_urls=[one]) == request(extra_index_urls=[other, one, ""])


def test_everything_that_changes_what_a_request_may_resolve_to_changes_its_digest():
    """Requirements, base, scope, indexes and the order of indexes."""
    indexes = ["https://a.example.org", "https://b.example.org"]
    digests = [
        request(),
        request(["xlsxwriter"]),
        request([]),
        request(base_digest="c" * 64),
        request(scope="profile:stats"),
        request(index_url=indexes[0]),
        request(index_url=indexes[0] + ":8443"),
        request(index_url="http://a.example.org"),
        request(extra_index_urls=indexes),
        request(extra_index_urls=indexes[::-1]),
        request(profile_lock="1" * 64),
        request(profile_lock="2" * 64),
        lineage_digest(SPEC, base_reference=BASE, index_url=None),
    ]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 for digest in digests)


def test_the_lineage_digest_does_not_depend_on_how_the_base_is_spelled():
    """`base`, `docker.io/library/base:latest` and so on are one name; an image ID is itself."""

    def lineage(reference):
        return lineage_digest(SPEC, base_reference=reference, index_url=None)

    assert lineage("base") == lineage("docker.io/library/base:latest") == lineage("index.docker.io/base")
    assert lineage("base") != lineage("base:2") != lineage("other.example.org/base")
    assert lineage("sha256:" + "1" * 64) != lineage("sha256:" + "2" * 64)


def test_the_environment_digest_depends_on_what_is_installed_only():
    """Order, place and size of the wheels do not count; name, version, bytes and everything around them do."""
    moved = LockedWheel(
        name="lxml", version="6.0.0", filename="x.whl", url="https://other.example.org/x", sha256="C" * 64, size_bytes=7
    )
    assert environment([WHEELS[1], moved]) == environment()
    digests = [
        environment(),
        environment(WHEELS[:1]),
        environment([]),
        environment(base_digest="c" * 64),
        environment(platform="linux/arm64"),
        environment(layout_version=2),
        environment(immutable=False),
        environment([LockedWheel(name="lxml", version="6.0.0", filename="l.whl", url="u", sha256="e" * 64), WHEELS[1]]),
        environment([LockedWheel(name="lxml", version="6.0.1", filename="l.whl", url="u", sha256="c" * 64), WHEELS[1]]),
    ]
    assert len(set(digests)) == len(digests)


@given(st.permutations(["a>=1", "b[x]", 'c; os_name == "nt"', "Foo.Bar==1.0"]), st.booleans())
def test_order_and_case_of_requirements_do_not_count(requirements, upper):
    """However the list is shuffled and its names are written."""
    spelled = ["FOO_bar == 1.0.0" if upper and each.startswith("Foo") else each for each in requirements]
    expected = request(parse_requirements(["a>=1", "b[x]", "c; os_name == 'nt'", "foo-bar==1"]))
    assert request(parse_requirements(spelled)) == request(parse_requirements(spelled)[::-1]) == expected


@given(st.dictionaries(st.sampled_from([*GRAPHDRIVER, "StopTimeout", "Shell"]), json_values))
def test_normalising_a_runtime_config_twice_changes_nothing(config):
    """Whatever an engine says."""
    once = runtime_config(config)
    assert runtime_config(once) == once
    assert base(config=config) == base(config=once)


@given(st.permutations([*CONTAINERD.items()]))
def test_the_order_of_keys_does_not_change_the_base_digest(items):
    """JSON objects have none."""
    assert base(config=dict(items)) == base()


def test_the_canonical_form_of_a_spec_has_a_version_and_a_place_for_conda():
    """So that both can come later without making old digests ambiguous."""
    assert SPEC.canonical() == {
        "schema": 1,
        "kind": "spec",
        "requirements": ["python-docx>=1", "xlsxwriter"],
        "conda": [],
    }

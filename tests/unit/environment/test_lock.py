"""Tests of `prebuilt_spawner.environment.lock`."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.environment.lock import Lock, LockedWheel, parse_pylock, supported_tags, to_pylock
from prebuilt_spawner.errors import MalformedRequest, PrebuiltError, UnresolvableRequest

from .probes import make_probe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROBE = make_probe()
SHA = "0f" * 32


def wheel(filename: str, **keys: str) -> str:
    """A wheel as an inline table; keys are TOML source, "" leaves one out."""
    values = {
        "url": f'"https://files.example.org/{filename}"',
        "size": "1000",
        "hashes": f'{{ sha256 = "{SHA}" }}',
    } | keys
    return "{ " + ", ".join(f"{key} = {value}" for key, value in values.items() if value) + " }"


def package(name: str, version: str, *wheels: str, extra: str = "") -> str:
    """A table of the packages array."""
    return f'[[packages]]\nname = "{name}"\nversion = "{version}"\nwheels = [{", ".join(wheels)}]\n{extra}\n'


def document(*packages: str, head: str = "") -> str:
    """A pylock file."""
    return f'lock-version = "1.0"\ncreated-by = "test"\n{head}\n' + ("\n".join(packages) or "packages = []\n")


def names(probe, *filenames: str) -> str:
    """Which of these wheels of one package is chosen."""
    (chosen,) = parse_pylock(document(package("foo", "1.0", *map(wheel, filenames))), probe).wheels
    return chosen.filename


def refusal(text: str, error: type[PrebuiltError] = MalformedRequest, *, probe=PROBE) -> str:
    with pytest.raises(error) as caught:
        parse_pylock(text, probe, source="the lock of profile 'x'")
    assert type(caught.value) is error
    assert len(caught.value.message) < 400
    return caught.value.message


def test_a_lock_is_read_from_what_uv_writes():
    """Names, versions, URLs, sizes and hashes; sorted by name; the file name is taken from the URL."""
    text = document(
        package("six", "1.17.0", wheel("six-1.17.0-py2.py3-none-any.whl")),
        package("lxml", "6.0", wheel("lxml-6.0-cp311-cp311-manylinux_2_26_x86_64.manylinux_2_28_x86_64.whl", size="")),
        head='requires-python = ">=3.11.2"',
    )
    assert parse_pylock(text, PROBE) == Lock(
        wheels=(
            LockedWheel(
                name="lxml",
                version="6.0",
                filename="lxml-6.0-cp311-cp311-manylinux_2_26_x86_64.manylinux_2_28_x86_64.whl",
                url="https://files.example.org/lxml-6.0-cp311-cp311-manylinux_2_26_x86_64.manylinux_2_28_x86_64.whl",
                sha256=SHA,
            ),
            LockedWheel(
                name="six",
                version="1.17.0",
                filename="six-1.17.0-py2.py3-none-any.whl",
                url="https://files.example.org/six-1.17.0-py2.py3-none-any.whl",
                sha256=SHA,
                size_bytes=1000,
            ),
        )
    )


def test_an_empty_lock_is_a_lock():
    """The base satisfies everything."""
    assert parse_pylock(document(), PROBE) == Lock()
    assert parse_pylock(to_pylock(Lock()), PROBE) == Lock()


def test_the_most_specific_wheel_is_chosen_whatever_the_order():
    """Its own ABI before the stable one, newer glibc before older, platform before any."""
    best_first = [
        "foo-1.0-cp311-cp311-manylinux_2_34_x86_64.whl",
        "foo-1.0-cp311-cp311-manylinux2014_x86_64.whl",
        "foo-1.0-cp311-cp311-manylinux1_x86_64.whl",
        "foo-1.0-cp311-cp311-linux_x86_64.whl",
        "foo-1.0-cp311-abi3-manylinux_2_28_x86_64.whl",
        "foo-1.0-cp39-abi3-manylinux_2_28_x86_64.whl",
        "foo-1.0-py3-none-manylinux2010_x86_64.whl",
        "foo-1.0-py3-none-any.whl",
    ]
    unfit = [
        "foo-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
        "foo-1.0-cp311-cp311-manylinux_2_37_x86_64.whl",
        "foo-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
        "foo-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "foo-1.0-cp311-cp311-macosx_11_0_arm64.whl",
        "foo-1.0-cp311-cp311t-manylinux_2_28_x86_64.whl",
        "foo-1.0-py2-none-any.whl",
    ]
    for index, best in enumerate(best_first):
        assert names(PROBE, *unfit, *best_first[: index - 1 : -1] if index else best_first[::-1]) == best
    for filename in unfit:
        with pytest.raises(UnresolvableRequest):
            names(PROBE, filename)


@pytest.mark.parametrize(
    ("changes", "fits", "unfit"),
    [
        ({"glibc": (2, 17)}, "cp311-cp311-manylinux2014_x86_64", "cp311-cp311-manylinux_2_18_x86_64"),
        ({"glibc": (2, 5)}, "cp311-cp311-manylinux1_x86_64", "cp311-cp311-manylinux2010_x86_64"),
        ({"glibc": None}, "cp311-cp311-linux_x86_64", "cp311-cp311-manylinux1_x86_64"),
        ({"machine": "aarch64"}, "cp311-cp311-manylinux2014_aarch64", "cp311-cp311-manylinux_2_12_aarch64"),
        ({"machine": "ppc64le"}, "cp311-cp311-manylinux_2_17_ppc64le", "cp311-cp311-manylinux_2_17_x86_64"),
        ({"machine": "i686"}, "cp311-cp311-manylinux1_i686", "cp311-cp311-manylinux1_x86_64"),
        (
            {"python_version": "3.13.1", "abi": "cp313t"},
            "cp313-cp313t-manylinux_2_28_x86_64",
            "cp313-cp313-manylinux_2_28_x86_64",
        ),
        ({"python_version": "3.13.1", "abi": "cp313t"}, "py3-none-any", "cp311-abi3-manylinux_2_28_x86_64"),
        ({"python_version": "3.13.1", "abi": "cp313"}, "cp311-abi3-manylinux_2_28_x86_64", "cp313-cp313t-linux_x86_64"),
        ({"python_version": "3.10.0", "abi": "cp310"}, "py310-none-any", "py311-none-any"),
    ],
)
def test_the_tags_are_those_of_the_base(changes, fits, unfit):
    """Not those of the interpreter that the hub runs on."""
    probe = make_probe(**changes)
    assert names(probe, f"foo-1.0-{fits}.whl")
    with pytest.raises(UnresolvableRequest):
        names(probe, f"foo-1.0-{unfit}.whl")


def test_supported_tags_are_each_named_once_and_made_once():
    """They are asked for with every lock."""
    tags = supported_tags(PROBE)
    assert len(tags) == len(set(tags))
    assert str(tags[0]) == "cp311-cp311-manylinux_2_36_x86_64"
    assert str(tags[-1]) == "py30-none-any"
    assert supported_tags(make_probe()) is tags


def test_a_package_without_a_fitting_wheel_is_named():
    """The user can choose another version; a source distribution beside it does not help."""
    sdist = f'sdist = {{ url = "https://files.example.org/foo-1.0.tar.gz", hashes = {{ sha256 = "{SHA}" }} }}'
    texts = [
        document(package("foo", "1.0", wheel("foo-1.0-cp312-cp312-win_amd64.whl"))),
        document(package("foo", "1.0", wheel("foo-1.0-cp312-cp312-win_amd64.whl"), extra=sdist)),
        document(f'[[packages]]\nname = "foo"\nversion = "1.0"\n{sdist}\n'),
    ]
    for text in texts:
        message = refusal(text, UnresolvableRequest)
        assert message.startswith("foo 1.0 has no wheel for Python 3.11 on x86_64 Linux.")


def test_markers_choose_packages_for_the_base():
    """One name may be there twice for two platforms; default groups count and extras do not."""
    text = document(
        package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"), extra="marker = \"python_version < '3.11'\""),
        package("foo", "2.0", wheel("foo-2.0-py3-none-any.whl"), extra="marker = \"python_full_version >= '3.11.2'\""),
        package("win", "1.0", wheel("win-1.0-py3-none-any.whl"), extra="marker = \"sys_platform == 'win32'\""),
        package("dev", "1.0", wheel("dev-1.0-py3-none-any.whl"), extra="marker = \"'dev' in dependency_groups\""),
        package("doc", "1.0", wheel("doc-1.0-py3-none-any.whl"), extra="marker = \"'doc' in dependency_groups\""),
        package("opt", "1.0", wheel("opt-1.0-py3-none-any.whl"), extra="marker = \"'opt' in extras\""),
        head='dependency-groups = ["dev", "doc"]\ndefault-groups = ["dev"]\nextras = ["opt"]',
    )
    assert parse_pylock(text, PROBE).pins == {"foo": "2.0", "dev": "1.0"}


def test_a_name_that_is_installed_twice_is_refused():
    """PEP 751 calls it an ambiguity."""
    text = document(
        package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl")),
        package("foo", "2.0", wheel("foo-2.0-py3-none-any.whl")),
    )
    assert "foo twice" in refusal(text)


@pytest.mark.parametrize("filename", ["six-1.0-py3-none-any.whl", "foo-1.1-py3-none-any.whl"])
def test_a_wheel_of_another_package_or_version_is_refused(filename):
    """What is installed is what the wheel is; what was checked is what the lock calls it."""
    refusal(document(package("foo", "1.0", wheel(filename))))


@pytest.mark.parametrize(
    "text",
    [
        document(head='requires-python = ">=3.12"'),
        document(head="environments = [\"sys_platform == 'win32'\", \"python_version < '3'\"]"),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"), extra='requires-python = ">=3.12"')),
    ],
)
def test_a_lock_for_another_python_or_platform_is_unresolvable(text):
    """As a whole, or one of its packages."""
    refusal(text, UnresolvableRequest)


def test_a_lock_that_fits_one_of_its_environments_is_read():
    """Also where the base's Python is a pre-release."""
    text = document(
        head="environments = [\"sys_platform == 'win32'\", \"sys_platform == 'linux'\"]\nrequires-python = '>=3.11'"
    )
    assert parse_pylock(text, PROBE) == Lock()
    assert parse_pylock(text, make_probe(python_version="3.14.0rc1", abi="cp314")) == Lock()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "this is no toml",
        "a = " + "[" * 5000,
        "\x00",
        'lock-version = "1.0"',
        document().replace('"1.0"', '"2.0"'),
        document().replace('"1.0"', "1"),
        document().replace('created-by = "test"', ""),
        document().replace("packages = []", "packages = [1]"),
        document().replace("packages = []", 'packages = "x"'),
        document('[[packages]]\nname = "foo"\nversion = "1.0"\n'),
        document('[[packages]]\nname = "Foo"\nversion = "1.0"\nwheels = []\n'),
        document(
            '[[packages]]\nname = "foo"\nvcs = { type = "git", url = "https://x.example.org/r", commit-id = "1" }\n'
        ),
        document('[[packages]]\nname = "foo"\ndirectory = { path = "." }\n'),
        document('[[packages]]\nname = "foo"\narchive = ' + wheel("a.zip") + "\n"),
        document(package("foo", "1.0", wheel("bar-1.0-py3-none-any.whl"))),
        document(package("foo", "1.0", wheel("foo-2.0-py3-none-any.whl"))),
        document(package("foo", "1.0", wheel("foo-1.0.zip"))),
        document(package("foo", "1.0", wheel("x", name='"foo-1.0-py3-none-any/../../x.whl"'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", hashes=""))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", hashes="{}"))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", hashes='{ md5 = "00" }'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", hashes='{ sha256 = "00" }'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", hashes='{ sha256 = "' + "zz" * 32 + '" }'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", size="-1"))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", size='"1"'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url=""))),
        document(
            package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url="", path='"wheels/foo-1.0-py3-none-any.whl"'))
        ),
        document(
            package(
                "foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url='"ftp://x.example.org/foo-1.0-py3-none-any.whl"')
            )
        ),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url='"foo-1.0-py3-none-any.whl"'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url='"https:///foo-1.0-py3-none-any.whl"'))),
        document(
            package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url='"https://x y/foo-1.0-py3-none-any.whl"'))
        ),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl", url='"https://[/foo-1.0-py3-none-any.whl"'))),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"), extra="marker = \"'a' == 'b'\"")),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"), extra='marker = "' + "(" * 3000 + '"')),
        document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"), extra="marker = \"sys_platform ~= '1'\"")),
        document(head="environments = [\"extra == 'x'\"]"),
    ],
)
def test_what_is_no_lock_of_verified_wheels_is_refused(text):
    """Whatever is wrong, the message says which lock it is."""
    assert "The lock of profile 'x'" in refusal(text)


def test_no_credential_is_kept():
    """Neither in the lock nor in what is written."""
    filename = "foo-1.0-py3-none-any.whl"
    text = document(
        package("foo", "1.0", wheel(filename, url=f'"https://user:s3cret@files.example.org:8443/a/{filename}#x"'))
    )
    lock = parse_pylock(text, PROBE)
    assert lock.wheels[0].url == f"https://files.example.org:8443/a/{filename}#x"
    given_lock = Lock(
        wheels=(
            LockedWheel(
                name="foo", version="1.0", filename=filename, url=f"https://t@h.example/{filename}", sha256=SHA
            ),
        )
    )
    assert "t@" not in to_pylock(given_lock)
    bad = document(package("foo", "1.0", wheel(filename, url=f'"ftp://user:s3cret@files.example.org/{filename}"')))
    with pytest.raises(MalformedRequest) as caught:
        parse_pylock(bad, PROBE)
    assert "s3cret" not in caught.value.message + caught.value.detail


def test_local_files_are_read_as_file_urls():
    """A resolver that was given a folder of wheels names them so."""
    filename = "foo-1.0-py3-none-any.whl"
    for keys in ({"url": f'"file:///srv/wheels/{filename}"'}, {"url": "", "path": f'"/srv/wheels/{filename}"'}):
        (found,) = parse_pylock(document(package("foo", "1.0", wheel(filename, **keys))), PROBE).wheels
        assert found.url == f"file:///srv/wheels/{filename}"


def test_a_lock_is_written_as_pep_751_says():
    """The same text for the same lock, whatever order its wheels are in."""
    lock = parse_pylock(
        document(
            package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl")),
            package("bar", "2.0", wheel("bar-2.0-py3-none-any.whl", size="")),
        ),
        PROBE,
    )
    text = to_pylock(lock, requires_python=">= 3.11", environments=["sys_platform=='linux'"])
    assert text == to_pylock(
        Lock(wheels=lock.wheels[::-1]), requires_python=">=3.11", environments=['sys_platform == "linux"']
    )
    assert tomllib.loads(text) == {
        "lock-version": "1.0",
        "environments": ['sys_platform == "linux"'],
        "requires-python": ">=3.11",
        "created-by": "prebuilt-spawner",
        "packages": [
            {
                "name": "bar",
                "version": "2.0",
                "wheels": [
                    {
                        "name": "bar-2.0-py3-none-any.whl",
                        "url": "https://files.example.org/bar-2.0-py3-none-any.whl",
                        "hashes": {"sha256": SHA},
                    }
                ],
            },
            {
                "name": "foo",
                "version": "1.0",
                "wheels": [
                    {
                        "name": "foo-1.0-py3-none-any.whl",
                        "url": "https://files.example.org/foo-1.0-py3-none-any.whl",
                        "size": 1000,
                        "hashes": {"sha256": SHA},
                    }
                ],
            },
        ],
    }


def test_a_lock_says_what_it_pins():
    """By name, and as the image's label has it."""
    lock = parse_pylock(document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"))), PROBE)
    assert lock.pins == {"foo": "1.0"}
    assert lock.packages == ("foo==1.0",)


wheel_names = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?", fullmatch=True)
wheel_versions = st.sampled_from(["1.0", "2024.1.1", "1.0rc1", "1.0.post1", "1!2.0", "1.0+local.1"])
wheel_tags = st.sampled_from(
    ["py3-none-any", "py2.py3-none-any", "cp311-cp311-manylinux_2_28_x86_64", "1-cp39-abi3-manylinux2014_x86_64"]
)
hosts = st.sampled_from(["https://files.example.org/a", "http://127.0.0.1:8081/simple/x", "file:///srv/wheels"])


@st.composite
def locked_wheels(draw, name: str) -> LockedWheel:
    version = draw(wheel_versions)
    filename = f"{name.replace('-', '_')}-{version}-{draw(wheel_tags)}.whl"
    escaped = filename.replace("+", "%2B").replace("!", "%21")
    path = draw(st.sampled_from([escaped, filename])) + draw(st.sampled_from(["", "?", "?q=1", "#x"]))
    return LockedWheel(
        name=name,
        version=version,
        filename=filename,
        url=f"{draw(hosts)}/{path}",
        sha256=draw(st.text("0123456789abcdef", min_size=64, max_size=64)),
        size_bytes=draw(st.none() | st.integers(0, 2**62)),
    )


locks = st.lists(wheel_names, unique=True, max_size=4).flatmap(
    lambda names: st.tuples(*(locked_wheels(name) for name in sorted(names))).map(lambda wheels: Lock(wheels=wheels))
)


@given(locks)
def test_what_is_written_is_read_as_the_same_lock(lock):
    """Nothing is lost on the way through the file."""
    text = to_pylock(lock)
    assert parse_pylock(text, PROBE) == lock
    assert to_pylock(parse_pylock(text, PROBE)) == text


@given(st.text(max_size=60), st.integers(0, 400), st.integers(0, 40))
def test_a_damaged_lock_is_read_or_refused(noise, position, length):
    """Nothing but our own errors comes out of a file that an editor or a disk has damaged."""
    whole = document(package("foo", "1.0", wheel("foo-1.0-py3-none-any.whl"), extra="marker = \"os_name == 'posix'\""))
    try:
        parse_pylock(whole[:position] + noise + whole[position + length :], PROBE)
    except PrebuiltError as error:
        assert isinstance(error, MalformedRequest | UnresolvableRequest)  # noqa: PT017

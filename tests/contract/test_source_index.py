"""What the list of source distributions promises, on real indexes on loopback in every form that they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.simple_index import SimpleIndex
from prebuilt_spawner.build.interface import ResolveRequest
from prebuilt_spawner.build.sources import ListedSource, MadeWheel
from prebuilt_spawner.environment.lock import LockedSource, built_wheel
from prebuilt_spawner.errors import IndexUnavailable, UnresolvableRequest
from tests.crafted_sdists import sdist
from tests.crafted_wheels import PublishedFile, build_wheel
from tests.index_server import IndexServer

from .test_resolver import SERVER, UvWorld, base_with


@pytest.fixture
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        yield server


async def listed(name: str, url: str, *, environ: dict[str, str] | None = None, **more: Any) -> list[ListedSource]:
    network = NetworkSettings.from_environment(environ or {}, index_url=url, **more)
    found = SimpleIndex(network, retries=0, silence_seconds=1)
    try:
        return list(await found.sources(name))
    finally:
        await found.close()


@pytest.mark.parametrize("form", ["json", "html", "folder"])
async def test_sources_are_listed_with_their_hashes_whatever_form_the_index_has(
    index: IndexServer, form: str, tmp_path: Path
):
    """Wheels, other packages' files and what has no version are passed over."""
    file = index.add_file(sdist("My.Tool", "1.0", python_requires=">=3.9"))
    index.add_wheel("my-tool", "2.0")
    index.add_file(PublishedFile(name="my-tool", version="0", filename="other-1.0.tar.gz", content=b"x"))
    index.add_file(PublishedFile(name="my-tool", version="0", filename="my-tool-latest.tar.gz", content=b"x"))
    index.add_file(PublishedFile(name="my-tool", version="0.9", filename="my-tool-0.9.tar.bz2", content=b"x"))
    index.behaviour.html_only = form == "html"
    url = index.export(tmp_path) if form == "folder" else index.url
    old, new = sorted(await listed("my-tool", url), key=lambda one: one.file.version)
    assert (new.file.name, new.file.version, new.file.filename) == ("my-tool", "1.0", "my_tool-1.0.tar.gz")
    assert (new.file.sha256, new.file.size_bytes) == (file.sha256, file.size_bytes if form == "json" else None)
    assert new.requires_python == ("" if form == "folder" else ">=3.9")
    assert old.file.filename == "my-tool-0.9.tar.bz2"


async def test_what_was_withdrawn_is_marked(index: IndexServer):
    file = sdist("tool", "1.0")
    index.add_file(PublishedFile(**{**vars(file), "yanked": "broken"}))
    assert [one.yanked for one in await listed("tool", index.url)] == [True]


async def test_the_first_index_that_has_the_name_is_the_only_one_asked(index: IndexServer):
    """As the resolver asks them; one that does not have it is passed over."""
    with IndexServer() as private:
        private.add_file(sdist("tool", "1.0"))
        index.add_file(sdist("tool", "9.0"))
        index.add_file(sdist("open", "1.0"))
        extra = [f"corp={private.url}"]
        assert [one.file.version for one in await listed("tool", index.url, extra_index_urls=extra)] == ["1.0"]
        assert [one.file.version for one in await listed("open", index.url, extra_index_urls=extra)] == ["1.0"]
        assert await listed("absent", index.url, extra_index_urls=extra) == []
        private.behaviour.failures["/simple/"] = 500
        with pytest.raises(IndexUnavailable):
            await listed("tool", index.url, extra_index_urls=extra)
    assert index.paths("/simple/tool") == []


async def test_credentials_are_sent_and_kept_nowhere(index: IndexServer):
    index.behaviour.credentials = ("me", "s3cret-word")
    index.add_file(sdist("tool", "1.0"))
    (one,) = await listed("tool", index.url_with_credentials("me", "s3cret-word"))
    assert "s3cret-word" not in one.file.url
    with pytest.raises(IndexUnavailable) as caught:
        await listed("tool", index.url_with_credentials("me", "an0ther-word"))
    assert caught.value.cause == "index-credentials"
    assert "an0ther-word" not in caught.value.detail + caught.value.message


@pytest.mark.parametrize("how", ["failures", "nonsense", "silent", "nobody"])
async def test_an_index_that_does_not_answer_is_the_administrators(index: IndexServer, how: str):
    index.add_file(sdist("tool", "1.0"))
    url = index.url
    if how == "failures":
        index.behaviour.failures["/simple/"] = 503
    elif how == "nobody":
        url = "http://127.0.0.1:1/simple"
    else:
        getattr(index.behaviour, how).add("/simple/")
    with pytest.raises(IndexUnavailable):
        await listed("tool", url)
    index.release()


async def test_an_index_on_the_network_does_not_name_files_of_the_hub(index: IndexServer, tmp_path: Path):
    index.add_file(sdist("tool", "1.0"))
    index.file_url = lambda file: (tmp_path / file.filename).as_uri()  # type: ignore[method-assign]
    with pytest.raises(IndexUnavailable, match="names a file of this machine"):
        await listed("tool", index.url)


async def test_without_a_setting_it_is_the_resolvers_own_default():
    """uv says which one; nothing is asked of it here."""
    found = SimpleIndex(NetworkSettings.from_environment({}))
    try:
        assert found._default().startswith("https://")
    finally:
        await found.close()


# -- what the resolver makes of them ---------------------------------------------------------------------------------


@pytest.fixture
def uv(index: IndexServer, tmp_path: Path) -> UvWorld:
    return UvWorld(index, tmp_path / "cache")


@pytest.mark.parametrize(
    ("wishes", "sources"),
    [
        (["legacy"], ("legacy",)),
        (["legacy<2"], ("legacy<2",)),
        (["mixed>=2"], ("mixed>=2",)),
        (["wants-legacy"], ("legacy<2",)),
        (["wants-legacy", "legacy"], ("legacy<2",)),
        (["legacy", "other-python"], ("legacy", "other-python")),
        (["absent"], ()),
        (["plain==9"], ()),
    ],
)
async def test_a_failed_resolution_says_what_would_have_to_be_built(
    uv: UvWorld, wishes: list[str], sources: tuple[str, ...]
):
    """With the versions that are wanted of it, whoever wants them."""
    for version in ("1.0", "2.0"):
        uv.index.add_file(sdist("legacy", version))
    uv.index.add_wheel("plain", "1.0")
    uv.index.add_wheel("mixed", "1.0")
    uv.index.add_file(sdist("mixed", "2.0"))
    uv.index.add_wheel("wants-legacy", "1.0", requires=["legacy>=0.5,<2"])
    uv.index.add_wheel("other-python", "1.0", tags="cp39-cp39-manylinux_2_17_x86_64")
    uv.index.add_file(sdist("other-python", "1.0"))
    with pytest.raises(UnresolvableRequest) as caught:
        await uv.resolver.resolve(ResolveRequest(requirements=tuple(wishes), probe=base_with(*SERVER)))
    assert set(caught.value.sources) <= set(sources)
    assert bool(caught.value.sources) == bool(sources)


async def test_a_wheel_that_was_made_is_chosen_with_what_it_says_it_needs(uv: UvWorld, tmp_path: Path):
    """It stands in the lock as what it is made of, and nothing of this machine does."""
    uv.index.add_file(sdist("legacy", "1.0"))
    uv.index.add_wheel("needed", "1.0")
    filename, content, _ = build_wheel("legacy", "1.0", requires=["needed"])
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / filename).write_bytes(content)
    source = LockedSource(
        name="legacy",
        version="1.0",
        filename="legacy-1.0.tar.gz",
        url="https://index.example/legacy-1.0.tar.gz",
        sha256="a" * 64,
        base_digest="b" * 64,
    )
    wheel = built_wheel(source, filename=filename, size_bytes=len(content))
    made = MadeWheel(wheel=wheel, path=tmp_path / "made" / filename)
    request = ResolveRequest(requirements=("legacy",), probe=base_with(*SERVER), made=(made,))
    lock = await uv.resolver.resolve(request)
    assert lock.pins == {"legacy": "1.0", "needed": "1.0"}
    assert lock.wheels[0] == wheel
    assert str(tmp_path) not in repr(lock)

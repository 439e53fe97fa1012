"""Descriptors of layers: found in what an engine saves, and kept."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.adapters.docker_layers import DockerLayers, saved_layers
from prebuilt_spawner.errors import EngineFailure
from prebuilt_spawner.image.layer import LowerLayers

DIFF_IDS = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)


class Layout:
    """An OCI layout as an engine saves it: the blobs in the order of their digests, then what names them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, content: Any) -> str:
        """A blob, or a document: its digest."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def image(self, diff_ids: tuple[str, ...] = DIFF_IDS, word: str = "") -> str:
        """An image with large layers: the digest of its manifest."""
        layers = [self.add(f"{word}{diff_id}".encode() * 100_000) for diff_id in diff_ids]
        config = self.add({"rootfs": {"diff_ids": list(diff_ids)}, "word": word})
        return self.add({"config": {"digest": config}, "layers": [{"digest": layer} for layer in layers]})

    def layers(self, manifest: str) -> tuple[dict[str, Any], ...]:
        return tuple(json.loads(self.blobs[manifest])["layers"])

    def saved(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for digest, content in sorted(self.blobs.items()):
                entry = tarfile.TarInfo(f"blobs/sha256/{digest.removeprefix('sha256:')}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def chunks_of(data: bytes, size: int = 10_000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_an_images_descriptors_are_those_of_its_manifest() -> None:
    layout = Layout()
    manifest = layout.image()
    layout.image(word="another of the same layers, compressed otherwise")
    assert saved_layers(chunks_of(layout.saved()), image_id=manifest, diff_ids=DIFF_IDS) == layout.layers(manifest)


def test_of_an_index_they_are_those_of_the_platform_that_the_engine_has() -> None:
    """Whatever else is in it: other platforms, attestations, a manifest that was not saved."""
    layout = Layout()
    here, there, attestation = layout.image(), layout.image(("sha256:" + "3" * 64,) * 2), layout.image(("x", "y"))
    inner = layout.add({"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{"digest": here}]})
    absent = {"digest": "sha256:" + "0" * 64}
    index = layout.add({"manifests": [{"digest": there}, {"digest": attestation}, absent, {"digest": inner}]})
    assert saved_layers(chunks_of(layout.saved()), image_id=index, diff_ids=DIFF_IDS) == layout.layers(here)


@pytest.mark.parametrize("end", [600, 100_000])
def test_what_breaks_off_tells_nothing(end: int) -> None:
    """As it is, under HTTP 200, where a layer's content is lost."""
    layout = Layout()
    manifest = layout.image()
    with pytest.raises(EngineFailure):
        saved_layers(chunks_of(layout.saved()[:end]), image_id=manifest, diff_ids=DIFF_IDS)


# -- keeping them ------------------------------------------------------------------------------------------------------


class Engine:
    """An engine with images, and the client of one."""

    def __init__(self) -> None:
        self.layout = Layout()
        self.diff_ids: dict[str, tuple[str, ...]] = {}
        self.reads = 0
        self.unread = 0

    def image(self, word: str) -> LowerLayers:
        manifest = self.layout.image(word=word)
        self.diff_ids[manifest] = DIFF_IDS
        return LowerLayers(image_id=manifest, diff_ids=DIFF_IDS)

    async def run_slow(self, work: Any) -> Any:
        return await asyncio.to_thread(work, self, threading.Event())

    def inspect_image(self, image_id: str) -> dict[str, Any]:
        return {"RootFS": {"Layers": list(self.diff_ids[image_id])}}

    def _url(self, form: str, image_id: str) -> str:
        return form.format(image_id)

    def _get(self, url: str, stream: bool) -> Engine:
        self.reads += 1
        return self

    def _raise_for_status(self, response: Engine) -> None: ...

    def close(self) -> None: ...

    def iter_content(self, size: int) -> Any:
        chunks = chunks_of(self.layout.saved())
        self.unread += len(chunks)
        for chunk in chunks:
            self.unread -= 1
            yield chunk


@pytest.fixture
def engine() -> Engine:
    return Engine()


async def test_an_image_is_read_once_in_the_life_of_a_cache_folder(engine: Engine, tmp_path: Path) -> None:
    lower = engine.image("one")
    first, later = (DockerLayers(engine, tmp_path / "layers") for _ in range(2))  # type: ignore[arg-type]
    found = await asyncio.gather(first.of(lower), first.of(lower))
    assert found == [engine.layout.layers(lower.image_id)] * 2
    assert await later.of(lower) == found[0]
    assert await later.of(LowerLayers(image_id=lower.image_id, diff_ids=DIFF_IDS[:1])) == found[0][:1]
    assert engine.reads == 1


async def test_an_image_that_was_loaded_is_never_read(engine: Engine, tmp_path: Path) -> None:
    lower = engine.image("one")
    layers = DockerLayers(engine, tmp_path / "layers")  # type: ignore[arg-type]
    layers.keep(lower.image_id, DIFF_IDS, [{"digest": "a"}, {"digest": "b"}])
    assert await layers.of(lower) == ({"digest": "a"}, {"digest": "b"})
    assert engine.reads == 0


async def test_what_is_saved_is_read_to_its_end(engine: Engine, tmp_path: Path) -> None:
    """Or the engine keeps the image's content for ever."""
    for number in range(20):
        engine.image(str(number))
    layers = DockerLayers(engine, tmp_path / "layers")  # type: ignore[arg-type]
    for image_id in engine.diff_ids:
        await layers.learn(image_id)
    assert engine.unread == 0


@pytest.mark.parametrize("content", [b"", b"[]", b'{"diff_ids": ["x"], "layers": [{}]}', b'{"diff_ids": 1}'])
async def test_what_was_kept_and_cannot_be_used_is_read_again(engine: Engine, tmp_path: Path, content: bytes) -> None:
    """Damaged, or of another platform's image in the same index."""
    lower = engine.image("one")
    layers = DockerLayers(engine, tmp_path / "layers")  # type: ignore[arg-type]
    await layers.learn(lower.image_id)
    (kept,) = (tmp_path / "layers").iterdir()
    kept.write_bytes(content)
    assert await layers.of(lower) == engine.layout.layers(lower.image_id)
    assert engine.reads == 2


async def test_layers_that_the_image_has_not_are_not_made_up(engine: Engine, tmp_path: Path) -> None:
    lower = engine.image("one")
    layers = DockerLayers(engine, tmp_path / "layers")  # type: ignore[arg-type]
    for diff_ids in ((*DIFF_IDS, "sha256:more"), ("sha256:other",)):
        with pytest.raises(EngineFailure):
            await layers.of(LowerLayers(image_id=lower.image_id, diff_ids=diff_ids))


async def test_only_so_many_images_are_kept_and_those_longest_unused_go(engine: Engine, tmp_path: Path) -> None:
    images = [engine.image(word) for word in "abcd"]
    layers = DockerLayers(engine, tmp_path / "layers", kept=2)  # type: ignore[arg-type]
    for number, lower in enumerate(images[:2]):
        await layers.of(lower)
        os.utime(tmp_path / "layers" / f"{lower.image_id.removeprefix('sha256:')}.json", (number, number))
    await layers.of(images[0])  # used once more
    await layers.of(images[2])
    assert len(list((tmp_path / "layers").iterdir())) == 2
    reads = engine.reads
    await layers.of(images[0])
    assert engine.reads == reads


async def test_a_folder_that_cannot_be_written_stops_nothing(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "layers").write_bytes(b"a file")
    lower = engine.image("one")
    layers = DockerLayers(engine, tmp_path / "layers")  # type: ignore[arg-type]
    assert await layers.of(lower) == engine.layout.layers(lower.image_id)

"""What an engine saves of a derived image is whole, and runs in any other engine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile

import docker
import pytest

from prebuilt_spawner.build.events import ignore

from .plans import plan_of
from .private_engine import ENGINES
from .trees import differing, tree


@pytest.mark.parametrize("source", ENGINES)
async def test_a_saved_image_is_whole_and_is_the_same_in_every_other_engine(
    private_engines, connected, published, small, source
):
    private = private_engines[source]
    engine = connected(private)
    base = await engine.resolve_base(published)
    site = small.purelib.strip("/")
    plan = plan_of(base, {f"{site}/here.py": b"x = 'here'\n"}, removed=[f"{site}/old_demo_single.py"])
    image = await engine.tag(await engine.assemble(plan, report=ignore), f"prebuilt-spawner-test/env:{plan.digest}")
    saved = b"".join(private.client.get_image(image.reference))
    files = tree(private.client, image.reference)
    assert diff_ids_in(saved) == image.diff_ids
    for kind in set(ENGINES) - {source}:
        other = private_engines[kind]
        other.load(iter([saved]))
        try:
            assert other.python(image.reference, "import here; print(here.x)") == "here"
            assert differing(tree(other.client, image.reference), files) == {}
        finally:
            other.remove_image(image.reference)


def saved_diff_ids(client: docker.APIClient, image: str) -> tuple[str, ...]:
    """The digests of the uncompressed layers in what `docker save` writes, computed from their bytes."""
    return diff_ids_in(b"".join(client.get_image(image)))


def diff_ids_in(saved: bytes) -> tuple[str, ...]:
    """The same, of what was saved."""
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        (manifest,) = json.loads(_content(archive, "manifest.json"))
        return tuple(_diff_id(_content(archive, name)) for name in manifest["Layers"])


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.getmember(name)
    while member.issym():  # 20.10 saves a layer that it has written already as a link
        member = archive.getmember(posixpath.normpath(f"{posixpath.dirname(member.name)}/{member.linkname}"))
    file = archive.extractfile(member)
    assert file is not None, name
    return file.read()


def _diff_id(content: bytes) -> str:
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return "sha256:" + hashlib.sha256(content).hexdigest()

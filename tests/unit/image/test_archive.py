"""What an engine is handed: configuration, manifest and archives."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.errors import StorageFailure
from prebuilt_spawner.image.archive import (
    CHUNK_BYTES,
    docker_archive,
    docker_archive_parts,
    layer_digest,
    oci_archive,
    oci_archive_parts,
    parts_size_bytes,
)
from prebuilt_spawner.image.config import derived_config, merged_environment
from prebuilt_spawner.image.layer import ImagePlan
from prebuilt_spawner.image.plan import plan_image

from .wheels import entries, fragment_of, layer_bytes, make_base, make_lock, make_probe

BASE_LAYERS = [
    {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": f"sha256:{digit * 64}", "size": 10}
    for digit in "89"
]


def make_plan(folder: Path, base: BaseImage | None = None, size_bytes: int = 10) -> ImagePlan:
    """A plan with a layer of packages and one of ours."""
    return plan_image(
        base=base or make_base(),
        probe=make_probe(),
        lock=make_lock("demo"),
        fragments=[fragment_of(folder, "demo", {"demo.py": bytes(size_bytes)})],
        own_files={"usr/share/x": b"x"},
        labels={"org.example": "ours", "prebuilt_spawner.version": "1"},
        environment={"PYTHONNOUSERSITE": "1", "LANG": "C"},
        digest="d" * 64,
    )


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Content by name."""
    found = {}
    for entry in entries(archive):
        if entry.isfile():
            found[entry.name] = archive[entry.offset_data : entry.offset_data + entry.size]
    return found


def test_the_configuration_is_the_bases_with_ours(tmp_path: Path) -> None:
    """Entry point, command, user, health check and all the rest are kept; labels, environment and layers are merged."""
    plan = make_plan(tmp_path)
    diff_ids = [layer_digest(layer) for layer in plan.layers]
    document = json.loads(derived_config(plan, diff_ids))
    base = dict(plan.base.config)
    changed = {"Env", "Labels"}
    assert {key: document["config"][key] for key in base.keys() - changed} == {
        key: base[key] for key in base.keys() - changed
    }
    assert document["config"].keys() == base.keys()
    assert document["config"]["Env"] == ["PATH=/opt/env/bin:/usr/bin", "LANG=C", "PYTHONNOUSERSITE=1"]
    assert document["config"]["Labels"] == {"org.example": "ours", "prebuilt_spawner.version": "1"}
    assert document["rootfs"] == {"type": "layers", "diff_ids": [*plan.base.diff_ids, *diff_ids]}
    assert len([entry for entry in document["history"] if not entry.get("empty_layer")]) == 4
    assert document["created"] == "1980-01-01T00:00:00Z"
    assert (document["os"], document["architecture"], "variant" in document) == ("linux", "amd64", False)


def test_the_configuration_of_a_bare_base(tmp_path: Path) -> None:
    """A base without configuration gets no empty keys but what we add; its variant is kept."""
    base = make_base(config={}, architecture="arm", variant="v7")
    document = json.loads(derived_config(make_plan(tmp_path, base), ["sha256:x", "sha256:y"]))
    assert set(document["config"]) == {"Env", "Labels"}
    assert document["variant"] == "v7"
    plan = replace(make_plan(tmp_path, base), labels={}, environment={})
    assert json.loads(derived_config(plan, ["sha256:x", "sha256:y"]))["config"] == {}


@pytest.mark.parametrize(
    ("base", "ours", "merged"),
    [
        ([], {}, []),
        (["A=1", "B=x=y", "C="], {}, ["A=1", "B=x=y", "C="]),
        (["A=1", "B=2"], {"A": "3"}, ["A=3", "B=2"]),
        (["A=1"], {"Z": "1", "B": "2"}, ["A=1", "B=2", "Z=1"]),
        (["AB=1"], {"A": "2"}, ["AB=1", "A=2"]),
    ],
)
def test_environment_variables_are_merged(base: list[str], ours: dict[str, str], merged: list[str]) -> None:
    """One of the same name is replaced in its place, a new one comes last."""
    assert merged_environment(base, ours) == merged


def test_a_docker_archive_names_all_layers_and_holds_ours(tmp_path: Path) -> None:
    """The manifest lists the base's layers, which are not there, then ours, which have the content of their names."""
    plan = make_plan(tmp_path)
    diff_ids = [layer_digest(layer) for layer in plan.layers]
    config = derived_config(plan, diff_ids)
    image_id, stream = docker_archive(plan, config, diff_ids)
    archive = b"".join(stream)
    found = unpacked(archive)
    (manifest,) = json.loads(found["manifest.json"])
    assert image_id == f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert found[manifest["Config"]] == config
    assert manifest["RepoTags"] is None
    assert len(manifest["Layers"]) == 4
    assert [name in found for name in manifest["Layers"]] == [False, False, True, True]
    for name, diff_id in zip(manifest["Layers"][2:], diff_ids, strict=True):
        assert f"sha256:{hashlib.sha256(found[name]).hexdigest()}" == diff_id
    assert len(archive) == parts_size_bytes(docker_archive_parts(plan, config, diff_ids)[1])


def test_an_oci_layout_names_the_bases_own_descriptors(tmp_path: Path) -> None:
    """Index, manifest, configuration and our layers are blobs of their digests; the base's descriptors are its own."""
    plan = make_plan(tmp_path, make_base(architecture="arm64", variant="v8"))
    diff_ids = [layer_digest(layer) for layer in plan.layers]
    config = derived_config(plan, diff_ids)
    image_id, stream = oci_archive(plan, config, diff_ids, BASE_LAYERS)
    archive = b"".join(stream)
    found = unpacked(archive)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert entry["digest"] == image_id
    assert entry["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}
    assert "annotations" not in entry
    blobs = {name.removeprefix("blobs/sha256/"): content for name, content in found.items() if name.startswith("blobs")}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs.items())
    manifest = json.loads(blobs[image_id.removeprefix("sha256:")])
    assert manifest["layers"][:2] == BASE_LAYERS
    assert [layer["digest"] for layer in manifest["layers"][2:]] == diff_ids
    assert [layer["mediaType"] for layer in manifest["layers"][2:]] == ["application/vnd.oci.image.layer.v1.tar"] * 2
    for described in [entry, manifest["config"], *manifest["layers"][2:]]:
        assert len(blobs[described["digest"].removeprefix("sha256:")]) == described["size"]
    assert len(blobs) == 4
    assert len(archive) == parts_size_bytes(oci_archive_parts(plan, config, diff_ids, BASE_LAYERS)[1])


def test_wrong_descriptors_are_found_before_anything_is_sent(tmp_path: Path) -> None:
    """As many descriptors as layers."""
    plan = make_plan(tmp_path)
    with pytest.raises(ValueError, match="1 descriptors for the 2 layers"):
        oci_archive(plan, b"{}", ["sha256:x", "sha256:y"], BASE_LAYERS[:1])


def test_large_layers_come_in_pieces(tmp_path: Path) -> None:
    """No piece is larger than a chunk, and together they are the layer."""
    plan = make_plan(tmp_path, size_bytes=3 * CHUNK_BYTES + 5)
    diff_ids = [layer_digest(layer) for layer in plan.layers]
    chunks = list(docker_archive(plan, derived_config(plan, diff_ids), diff_ids)[1])
    assert max(map(len, chunks)) == CHUNK_BYTES
    assert layer_bytes(plan.layers[0]) in b"".join(chunks)
    assert diff_ids[0] == f"sha256:{hashlib.sha256(layer_bytes(plan.layers[0])).hexdigest()}"


def test_equal_plans_give_equal_bytes(tmp_path: Path) -> None:
    """Two fragments made of one wheel in two places: the archives are the same to the byte."""

    def archives(folder: Path) -> list[bytes]:
        folder.mkdir()
        plan = make_plan(folder)
        diff_ids = [layer_digest(layer) for layer in plan.layers]
        config = derived_config(plan, diff_ids)
        parts: list[Any] = [
            docker_archive(plan, config, diff_ids)[1],
            oci_archive(plan, config, diff_ids, BASE_LAYERS)[1],
        ]
        return [b"".join(part) for part in parts]

    assert archives(tmp_path / "one") == archives(tmp_path / "two")


def test_a_fragment_that_is_gone_is_the_disks_fault(tmp_path: Path) -> None:
    """Removed or cut off while it is read: a `StorageFailure` without a path in its message, never a short archive."""
    for damage in (lambda body: body.unlink(), lambda body: body.write_bytes(body.read_bytes()[:-512])):
        plan = make_plan(tmp_path)
        damage(tmp_path / "demo" / "demo-1.0-py3-none-any.whl.tar")
        with pytest.raises(StorageFailure) as caught:
            layer_digest(plan.layers[0])
        assert str(tmp_path) not in caught.value.message

"""Small base images: the interpreter of the test base and little else, as it comes in many forms."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from ..crafted_wheels import build_wheel
from .private_engine import BUSYBOX, PROGRAMS

BUSYBOX_FILE = PROGRAMS / "usr/bin/busybox"
SCRIPT = Path(__file__).with_name("shrinking_script.py")
OCI = "application/vnd.oci.image"
CREATED = "2024-01-02T03:04:05Z"


@dataclass(frozen=True, kw_only=True)
class SmallBase:
    """What small bases are made of.

    Attributes:
        rootfs: A tar with all files. It has the distribution `old-demo` 1.0.
        purelib: Where its interpreter has packages.
        config: Its runtime configuration.
    """

    rootfs: bytes
    purelib: str
    config: Mapping[str, Any]

    def layers(self, count: int) -> list[bytes]:
        """So many layers, lowest first; each of the upper ones has a file of its own and one that all have."""
        upper = [
            layer({f"opt/layers/{number:02}": b"%d" % number, "opt/layers/top": b"%d" % number})
            for number in range(1, count)
        ]
        return [unique(self.rootfs), *upper]

    def changes(self) -> list[str]:
        """The configuration, for `docker import`."""
        config = self.config
        return [
            *(f"ENV {variable}" for variable in config["Env"]),
            f"CMD {json.dumps(config['Cmd'])}",
            f"ENTRYPOINT {json.dumps(config['Entrypoint'])}",
            f"USER {config['User']}",
            f"WORKDIR {config['WorkingDir']}",
            *(f"LABEL {key}={value}" for key, value in config["Labels"].items()),
            "HEALTHCHECK --interval=3s --retries=3 CMD " + json.dumps(config["Healthcheck"]["Test"][1:]),
        ]


def small_base(client: docker.APIClient, base: str, word: str) -> SmallBase:
    """Take it out of a base that this engine has.

    Args:
        word: Value of the label `prebuilt_spawner.test` of the container that this needs for a moment.
    """
    container = client.create_container(
        base,
        entrypoint=["python3"],
        command=["-I", "-c", SCRIPT.read_text()],
        user="0",
        labels={"prebuilt_spawner.test": word},
        healthcheck={"test": ["NONE"]},
        host_config=client.create_host_config(network_mode="none"),
    )
    try:
        client.start(container)
        status = client.wait(container)["StatusCode"]
        said = client.logs(container).decode()
        assert status == 0, said
        interpreters, purelib = said.split()
        chunks, _ = client.get_archive(container, "/small.tar", chunk_size=1 << 20)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            member = archive.extractfile("small.tar")
            assert member is not None
            rootfs = member.read()
    finally:
        client.remove_container(container, force=True)
    return SmallBase(
        rootfs=with_files(tiny_rootfs(rootfs), _installed("old-demo", "1.0", purelib.strip("/"))),
        purelib=purelib,
        config={
            "Env": [f"PATH={interpreters}:/usr/bin:/bin", "SMALL=yes"],
            "Cmd": ["-c", "print('the command of the base')"],
            "Entrypoint": [f"{interpreters}/python3"],
            "User": "1000:100",
            "WorkingDir": "/home",
            "Labels": {"vendor": "somebody"},
            "Healthcheck": {"Test": ["CMD", f"{interpreters}/python3", "-V"], "Interval": 3_000_000_000, "Retries": 3},
        },
    )


def tiny_rootfs(archive: bytes = b"") -> bytes:
    """A tar with a program that runs without anything else, at its end."""
    return with_files(archive, {BUSYBOX.strip("/"): BUSYBOX_FILE.read_bytes()}, mode=0o755)


def unique(rootfs: bytes) -> bytes:
    """The same files and one more: a layer that no other image has."""
    word = secrets.token_hex(16)
    return with_files(rootfs, {f"opt/{word}": word.encode()})


def layer(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, with their folders."""
    return with_files(b"", files)


def with_files(archive: bytes, files: Mapping[str, bytes], *, mode: int = 0o644) -> bytes:
    """A tar with these files, and the folders that it has no entry for, at its end."""
    buffer = io.BytesIO(archive)
    with tarfile.open(fileobj=buffer, mode="a" if archive else "w") as tar:
        folders = set(tar.getnames()) if archive else set()
        for path, content in files.items():
            for folder in reversed([str(parent) for parent in Path(path).parents][:-1]):
                if folder not in folders:
                    folders.add(folder)
                    tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
            entry = _entry(path, tarfile.REGTYPE, mode)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def docker_archive(layers: Sequence[bytes], config: Mapping[str, Any], reference: str) -> bytes:
    """What `docker load` takes."""
    document = json.dumps(image_document([digest(one) for one in layers], config)).encode()
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": [f"{n}.tar" for n in range(len(layers))]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "config.json": document}
    return with_files(b"", {**files, **{f"{number}.tar": one for number, one in enumerate(layers)}})


def image_document(diff_ids: Sequence[str], config: Mapping[str, Any], *, architecture: str = "") -> dict[str, Any]:
    """An image's configuration file."""
    machine = os.uname().machine
    return {
        "architecture": architecture or {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "created": CREATED,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": CREATED, "created_by": "a test"} for _ in diff_ids],
    }


def published_index(layers: Sequence[bytes], config: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """An image as builders push it: compressed layers, an index for two platforms, and an attestation for each.

    Yields:
        Media type and content of each blob and manifest; the index is the last.
    """
    manifests = []
    here = image_document([], {})["architecture"]
    other = "arm64" if here == "amd64" else "amd64"
    for architecture, content in ((other, [layer({"elsewhere": one[:100]}) for one in layers]), (here, layers)):
        document = json.dumps(image_document([digest(one) for one in content], config, architecture=architecture))
        blobs = [(f"{OCI}.config.v1+json", document.encode())]
        blobs += [(f"{OCI}.layer.v1.tar+gzip", gzip.compress(one, 1, mtime=0)) for one in content]
        yield from blobs
        manifest = _manifest(blobs)
        yield f"{OCI}.manifest.v1+json", manifest
        platform = {"architecture": architecture, "os": "linux"}
        manifests.append({**_descriptor(f"{OCI}.manifest.v1+json", manifest), "platform": platform})
        # What BuildKit adds, of as many layers as the image has.
        said = [
            ("application/vnd.in-toto+json", b'{"%d": "%s"}' % (n, architecture.encode())) for n in range(len(layers))
        ]
        statement = json.dumps(image_document([digest(one) for _, one in said], {}, architecture="unknown")).encode()
        blobs = [(f"{OCI}.config.v1+json", statement), *said]
        yield from blobs
        attestation = _manifest(blobs)
        yield f"{OCI}.manifest.v1+json", attestation
        manifests.append(
            {
                **_descriptor(f"{OCI}.manifest.v1+json", attestation),
                "platform": {"architecture": "unknown", "os": "unknown"},
                "annotations": {
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": digest(manifest),
                },
            }
        )
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": manifests}
    yield f"{OCI}.index.v1+json", json.dumps(index).encode()


def digest(content: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _manifest(blobs: Sequence[tuple[str, bytes]]) -> bytes:
    config, *layers = (_descriptor(*blob) for blob in blobs)
    document = {"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": layers}
    return json.dumps(document).encode()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def _installed(name: str, version: str, folder: str) -> dict[str, bytes]:
    """The files of a small wheel where an installer puts them."""
    _, wheel, _ = build_wheel(name, version, files=_modules(name))
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return {f"{folder}/{path}": archive.read(path) for path in archive.namelist()}


def _modules(name: str) -> Iterable[Any]:
    stem = name.replace("-", "_")
    return {f"{stem}/__init__.py": "what = 'old'\n", f"{stem}/only_old.py": "x = 1\n", f"{stem}_single.py": "y = 1\n"}


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.mtime = kind, mode, 1_700_000_000
    return entry

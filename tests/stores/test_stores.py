"""One request on every engine and image store: the same tag, and an image that is whole.

The engines are named in PREBUILT_SPAWNER_TEST_ENGINES, separated by spaces; each holds the base image.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import tarfile
from pathlib import Path

import docker
import pytest

from ..assembling import assembled

RUN = "s" + secrets.token_hex(4)
REPOSITORY = f"prebuilt-spawner-test/{RUN}"
REQUEST = ("python-docx>=1", "xlsxwriter")


@pytest.fixture(scope="module")
def base() -> str:
    reference = os.environ.get("PREBUILT_SPAWNER_TEST_BASE")
    assert reference, "PREBUILT_SPAWNER_TEST_BASE names no base image: run the tests with `make test-engine26`"
    return reference


@pytest.fixture(scope="module")
def engines() -> list[str]:
    addresses = os.environ.get("PREBUILT_SPAWNER_TEST_ENGINES", "").split()
    assert len(addresses) > 1, "PREBUILT_SPAWNER_TEST_ENGINES names no engines: run the tests with `make test-engine26`"
    return addresses


@pytest.fixture
def clients(engines: list[str]):
    clients = {address: docker.APIClient(base_url=address, version="auto", timeout=120) for address in engines}
    yield clients
    for client in clients.values():
        # By name: an equal image may have another name, which is not ours to remove.
        for image in client.images(REPOSITORY):
            for name in image["RepoTags"] or ():
                if name.startswith(f"{REPOSITORY}:"):
                    client.remove_image(name)
        client.close()


async def test_the_same_request_has_the_same_tag_on_every_store(
    engines: list[str], clients: dict[str, docker.APIClient], tmp_path: Path, base: str
):
    """Each engine makes the image under the same name, its packages import there, and what it saves is whole."""
    names = set()
    for number, address in enumerate(engines):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = await assembled(
            REQUEST, base=base, repository=REPOSITORY, folder=folder, client_kwargs={"base_url": address}
        )
        names.add(environment.image)
        client = clients[address]
        image = client.inspect_image(environment.image)
        assert image["Config"]["Labels"]["prebuilt_spawner.digest"] == environment.digest
        assert _run(client, environment.image, "import docx, xlsxwriter; print('both')") == "both"
        assert _saved_diff_ids(client, environment.image) == image["RootFS"]["Layers"]
    assert len(names) == 1


def _run(client: docker.APIClient, image: str, program: str) -> str:
    container = client.create_container(
        image, entrypoint=["python3"], command=["-c", program], labels={"prebuilt_spawner.test": RUN}
    )
    try:
        client.start(container)
        assert client.wait(container)["StatusCode"] == 0, client.logs(container)
        return client.logs(container).decode().strip()
    finally:
        client.remove_container(container, force=True)


def _saved_diff_ids(client: docker.APIClient, image: str) -> list[str]:
    """The diff IDs of the layers in `docker save`'s archive, computed from their bytes."""
    archive = io.BytesIO(b"".join(client.get_image(image)))
    with tarfile.open(fileobj=archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        found = []
        for name in manifest["Layers"]:
            with tar.extractfile(name) as file:
                data = file.read()
            if data[:2] == b"\x1f\x8b":
                import gzip

                data = gzip.decompress(data)
            found.append("sha256:" + hashlib.sha256(data).hexdigest())
        return found

"""The real base and packages of the real index, on every engine and image store.

The engines are named in PREBUILT_SPAWNER_TEST_ENGINES, separated by spaces; each holds the base image.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from ..assembling import assembled

RUN = "s" + secrets.token_hex(4)
REPOSITORY = f"prebuilt-spawner-test/{RUN}"
REQUEST = ("python-docx>=1", "xlsxwriter")


@pytest.fixture
def clients(addresses: list[str]) -> Iterator[dict[str, docker.APIClient]]:
    clients = {address: docker.APIClient(base_url=address, version="auto", timeout=120) for address in addresses}
    yield clients
    for client in clients.values():
        # By name: an equal image may have another name, which is not ours to remove.
        for image in client.images(REPOSITORY):
            for name in image["RepoTags"] or ():
                if name.startswith(f"{REPOSITORY}:"):
                    client.remove_image(name)
        client.close()


async def test_the_same_request_has_the_same_tag_on_every_store(
    clients: dict[str, docker.APIClient], tmp_path: Path, base: str
):
    """Each engine makes the image under the same name, and its packages import there."""
    names = set()
    for number, (address, client) in enumerate(clients.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        environment = await assembled(
            REQUEST, base=base, repository=REPOSITORY, folder=folder, client_kwargs={"base_url": address}
        )
        names.add(environment.image)
        image = client.inspect_image(environment.image)
        assert image["Config"]["Labels"]["prebuilt_spawner.digest"] == environment.digest
        assert _run(client, environment.image, "import docx, xlsxwriter; print('both')") == "both"
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

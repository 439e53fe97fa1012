"""A hub that was killed leaves nothing behind on a real engine."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path

import docker

from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.adapters.docker_inventory import DockerInventory
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.history import Outcome
from prebuilt_spawner.build.recovery import recover
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, PROBE_LABEL
from prebuilt_spawner.image.plan import plan_image
from prebuilt_spawner.ledger import SqlLedger

from .hub import TEST_LABEL


async def test_half_made_images_and_ended_containers_go_and_nothing_else_does(
    client: docker.APIClient, base: str, run: str, tmp_path: Path
):
    """One image was cut off before it got its name, one has it, one is nameless and used by a container."""
    repository, word = f"prebuilt-spawner-test/{run}", secrets.token_hex(4)
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    engine = DockerEngine(repository=repository, cache_dir=tmp_path)
    inventory = DockerInventory(repository=repository, labels={TEST_LABEL: word}, helper_grace=timedelta())
    found = await engine.resolve_base(base)
    images, builds, containers = {}, {}, []
    try:
        for state in ("cut off", "named", "used"):
            digest = secrets.token_hex(32)
            plan = plan_image(
                base=found,
                probe=await engine.probe(found),
                lock=Lock(),
                fragments=(),
                own_files={"opt/state": f"{state} {word}".encode()},
                labels={DIGEST_LABEL: digest, BASE_DIGEST_LABEL: found.digest},
                environment={},
                digest=digest,
            )
            images[state] = await engine.assemble(plan, report=ignore)
            builds[state] = await ledger.begin_build(hub="hub", digest=digest, base=base, requirements=[], user="ada")
        await engine.tag(images["named"], f"{repository}:{images['named'].digest}")
        for image, labels in ((images["used"].image_id, {}), (base, {PROBE_LABEL: found.digest})):
            made = client.create_container(image, entrypoint=["true"], command=[], labels={TEST_LABEL: word, **labels})[
                "Id"
            ]
            containers.append(made)
            client.start(made)
            client.wait(made)
        interrupted = await recover(ledger, inventory, hub="hub")
        assert {record.id for record in interrupted} == set(builds.values())
        assert {record.outcome for record in interrupted} == {Outcome.INTERRUPTED}
        there = {image["Id"] for image in client.images(filters={"label": DIGEST_LABEL})}
        assert {state for state, image in images.items() if image.image_id in there} == {"named", "used"}
        left = client.containers(all=True, filters={"label": f"{TEST_LABEL}={word}"})
        assert [each["Id"] for each in left] == containers[:1]
    finally:
        for container in client.containers(all=True, filters={"label": f"{TEST_LABEL}={word}"}):
            client.remove_container(container["Id"], force=True, v=True)
        for image in images.values():
            for each in client.images(filters={"label": f"{DIGEST_LABEL}={image.digest}"}):
                client.remove_image(each["Id"], force=True)
        await inventory.close()
        await engine.close()
        await ledger.close()

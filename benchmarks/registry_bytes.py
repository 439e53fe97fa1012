"""What an environment costs a registry: bytes sent for the first and for a second one, and what gzip would make of it.

    PREBUILT_SPAWNER_TEST_BASE=<what `make setup` printed> PYTHONPATH=.:dev python -m benchmarks.registry_bytes

Real packages on the engine that the environment names, pushed to Debian's registry on loopback, which `dev/engine26`
unpacks. All that this makes is removed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import docker

from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.provider import EnvironmentRequest
from prebuilt_spawner.build.sources import SourceBuildLimits
from prebuilt_spawner.hub.runtime import RuntimeSettings, build_manager
from prebuilt_spawner.image.archive import read_parts
from tests.stores.registry import registry

FIRST = "pandas scikit-learn matplotlib seaborn requests sqlalchemy tqdm pyarrow"
SECOND = f"{FIRST} openpyxl"


async def measure(base: str, host: str, folder: Path) -> None:
    """Print it."""
    repository = f"prebuilt-spawner-bench/{secrets.token_hex(4)}"
    manager = await build_manager(
        RuntimeSettings(
            repository=repository,
            registry=host,
            immutable=True,
            index_url="",
            extra_index_urls=(),
            db_url=f"sqlite:///{folder}/ledger.sqlite",
            cache_dir=str(folder / "cache"),
            max_concurrent_builds=1,
            max_queued_builds=1,
            failure_ttl=0,
            allow_source_builds=True,
            source_build_limits=SourceBuildLimits(),
            max_cache_bytes=0,
            min_free_bytes=0,
        )
    )
    provider, pushes = manager._provider, manager._provider._pushes
    memory: Any = manager._ledger
    images = []
    try:
        for words in (FIRST, SECOND):
            request = EnvironmentRequest(user="anybody", requirements=tuple(sorted(words.split())), base=base)
            environment = await manager.ensure(request, report=ignore)
            images.append(environment.image)
            begun = time.monotonic()
            while await memory.owed_pushes(hub=pushes._hub, place=pushes._place):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            print(f"{len(environment.lock.wheels)} wheels, pushed within {time.monotonic() - begun:.1f} s")
        async with provider.planned(environment) as plan:
            await asyncio.to_thread(compress, plan.layers)
    finally:
        await manager.close()
        client = docker.APIClient(**docker.utils.kwargs_from_env())
        for image in images:
            client.remove_image(image)
        client.close()


def compress(layers: Any) -> None:
    """Print what gzip makes of the layers of an environment, and how long it takes."""
    plain = sum(layer.size_bytes for layer in layers)
    for level in (1, 6):
        begun, packed = time.monotonic(), 0
        for layer in layers:
            packing = zlib.compressobj(level, wbits=zlib.MAX_WBITS | 16)
            packed += sum(len(packing.compress(chunk)) for chunk in read_parts(layer.parts)) + len(packing.flush())
        seconds = time.monotonic() - begun
        print(f"gzip -{level}: {packed:,} bytes of {plain:,} ({packed / plain:.0%}), {seconds:.1f} s on one core")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="What an environment costs a registry.")
    parser.add_argument("--base", default=os.environ.get("PREBUILT_SPAWNER_TEST_BASE"), help="the base image")
    options = parser.parse_args()
    if not options.base:
        parser.error("name a base image")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("prebuilt_spawner.build.pushes").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "registry").mkdir()
        with registry(Path(folder, "registry")) as started:
            asyncio.run(measure(options.base, started.host, Path(folder)))


if __name__ == "__main__":
    main()

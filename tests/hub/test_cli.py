"""The command: what it reads, prints and ends with. The engine is a double."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from prebuilt_spawner import cli
from prebuilt_spawner.build.inventory import InventoryImage
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.errors import EngineFailure, EngineUnavailable, PrebuiltError
from prebuilt_spawner.ledger import SqlLedger

CONFIG = """
c = get_config()
c.JupyterHub.spawner_class = "prebuilt"
c.PrebuiltSpawner.image = "base:1"
c.PrebuiltSpawner.repository = "cli-test/env"
c.PrebuiltSpawner.profile_list = [{"display_name": "Data", "packages": ["six"]}]
"""


def image(digit: str, *packages: str, **changes) -> InventoryImage:
    digest = digit * 64
    values = {
        "image_id": f"sha256:{digest}",
        "digest": digest,
        "base_digest": "base",
        "base_digest_now": "base",
        "packages": packages,
        "names": (f"cli-test/env:{digest}",),
        "size_bytes": 2_500_000,
        "added_bytes": 1_500_000,
        "in_use": False,
    }
    return InventoryImage(**{**values, **changes})


class Inventory:
    """Holds what the test says, and notes what it was made with."""

    def __init__(self) -> None:
        self.held: list[InventoryImage] = []
        self.arguments: dict = {}
        self.failure: PrebuiltError | None = None
        self.removal_failure: PrebuiltError | None = None

    def __call__(self, **arguments) -> Inventory:
        self.arguments = arguments
        return self

    async def images(self) -> list[InventoryImage]:
        if self.failure:
            raise self.failure
        return self.held

    async def remove(self, name: str) -> bool:
        if self.removal_failure:
            raise self.removal_failure
        self.held = [each for each in self.held if name not in each.names]
        return True

    async def close(self) -> None:
        pass


@pytest.fixture
def inventory(monkeypatch: pytest.MonkeyPatch) -> Inventory:
    made = Inventory()
    monkeypatch.setattr(cli, "DockerInventory", made)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's working folder, with a configuration and a ledger."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jupyterhub_config.py").write_text(CONFIG)
    in_ledger(lambda ledger: ledger.open(), days_ago=0)
    return tmp_path


def in_ledger(act: Callable, *, days_ago: float, file: str = "prebuilt_spawner.sqlite") -> None:
    async def work() -> None:
        ledger = SqlLedger(f"sqlite:///{file}", now=lambda: datetime.now(timezone.utc) - timedelta(days=days_ago))
        await act(ledger)
        await ledger.close()

    asyncio.run(work())


def use(used: InventoryImage, *, days_ago: float, **where) -> None:
    in_ledger(
        lambda ledger: ledger.record_environment(digest=used.digest, base_digest="base", lock=Lock(), size_bytes=1),
        days_ago=days_ago,
        **where,
    )


def hold(slug: str, version: str) -> None:
    wheel = LockedWheel(name="six", version=version, filename="six.whl", url="", sha256="0" * 64)

    async def act(ledger: SqlLedger) -> None:
        stored = await ledger.remember(
            scope=slug, request_digest="r", lineage="l", lock=Lock(wheels=(wheel,)), ancestor_id=None
        )
        await ledger.hold(owner=f"profile:{slug}", lock=stored)

    in_ledger(act, days_ago=100)


def test_old_images_are_removed_and_what_was_done_is_said(inventory, capsys):
    old, young = image("a", *(f"package-{n}==1" for n in range(6))), image("b")
    inventory.held = [old, young, image("c")]
    use(old, days_ago=40)
    use(young, days_ago=10)
    assert cli.main(["gc", "--older-than", "30"]) == 0
    assert [each.digest[0] for each in inventory.held] == ["b", "c"]
    said = capsys.readouterr().out
    assert f"{old.names[0]}: 1.5 MB, package-0==1, package-1==1, package-2==1, package-3==1 and 2 more\n" in said
    assert "Removed 1 image, at most 1.5 MB besides their bases.\n" in said
    assert "Kept 1: it was used lately.\n" in said
    assert "Kept 1: the ledger does not know when it was used.\n" in said
    assert inventory.arguments["repository"] == "cli-test/env"


def test_a_dry_run_removes_nothing_and_says_when_each_was_used_last(inventory, capsys):
    old = image("a")
    inventory.held = [old]
    use(old, days_ago=40)
    day = (datetime.now(timezone.utc) - timedelta(days=40)).strftime("%Y-%m-%d")
    assert cli.main(["gc", "--older-than", "30", "--dry-run"]) == 0
    assert inventory.held == [old]
    said = capsys.readouterr().out
    assert f"used last on {day}, no packages" in said
    assert "Would remove 1 image" in said


def test_as_json_it_is_one_object(inventory, capsys):
    old, young = image("a", "six==1"), image("b")
    inventory.held = [old, young]
    use(old, days_ago=40)
    use(young, days_ago=10)
    assert cli.main(["gc", "--older-than", "30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "dry_run": False,
        "removed": [
            {
                "names": list(old.names),
                "digest": old.digest,
                "id": old.image_id,
                "packages": ["six==1"],
                "bytes": 1_500_000,
            }
        ],
        "removed_bytes": 1_500_000,
        "kept": [
            {
                "names": list(young.names),
                "digest": young.digest,
                "id": young.image_id,
                "packages": [],
                "bytes": 1_500_000,
                "reason": "used_lately",
            }
        ],
        "failures": [],
    }


def test_what_a_profile_holds_stays_while_the_profile_is_configured(inventory, folder):
    inventory.held = [image("a", "six==1.17"), image("b", "six==1.16")]
    for each in inventory.held:
        use(each, days_ago=40)
    hold("data", "1.17")
    hold("gone", "1.16")
    assert cli.main(["gc", "--older-than", "30"]) == 0
    assert [each.digest[0] for each in inventory.held] == ["a"]


def test_where_a_callable_makes_the_profiles_what_any_profile_held_stays(inventory, folder):
    inventory.held = [image("a", "six==1.17"), image("b", "six==1.16"), image("c", "six==1.15")]
    for each in inventory.held:
        use(each, days_ago=40)
    hold("data", "1.17")
    hold("gone", "1.16")
    (folder / "jupyterhub_config.py").write_text(CONFIG + "c.PrebuiltSpawner.profile_list = lambda spawner: []\n")
    assert cli.main(["gc", "--older-than", "30"]) == 0
    assert [each.digest[0] for each in inventory.held] == ["a", "b"]


def test_profiles_with_a_lock_file_and_without_packages_keep_their_images(inventory, folder):
    (folder / "pylock.toml").write_text(
        'lock-version = "1.0"\n'
        '[[packages]]\nname = "Six"\nversion = "1.17.0"\n'
        '[[packages]]\nname = "pywin32"\nversion = "300"\n'
    )
    profiles = [{"display_name": "Locked", "lock": "pylock.toml"}, {"display_name": "Plain"}]
    (folder / "jupyterhub_config.py").write_text(CONFIG + f"c.PrebuiltSpawner.profile_list = {profiles!r}\n")
    inventory.held = [image("a", "six==1.17.0"), image("b"), image("c", "six==1.16.0")]
    for each in inventory.held:
        use(each, days_ago=40)
    assert cli.main(["gc", "--older-than", "30"]) == 0
    assert [each.digest[0] for each in inventory.held] == ["a", "b"]
    (folder / "pylock.toml").write_text("[[packages]]\nname = 1\n")
    assert cli.main(["gc", "--older-than", "30"]) == 0, "a package without a version pins nothing"
    (folder / "pylock.toml").unlink()
    assert cli.main(["gc", "--older-than", "30"]) == 3


def test_settings_are_those_of_the_hubs_own_spawner_class(inventory, folder):
    """With its section, and what it sets as defaults; other sections of the class hierarchy count too."""
    (folder / "elsewhere.py").write_text(
        "from prebuilt_spawner import PrebuiltSpawner\n"
        "from traitlets import default\n"
        "class OurSpawner(PrebuiltSpawner):\n"
        "    @default('db_url')\n"
        "    def _our_database(self):\n"
        "        return 'sqlite:///ours.sqlite'\n"
        "c = get_config()\n"
        "c.JupyterHub.spawner_class = OurSpawner\n"
        "c.OurSpawner.repository = 'our/env'\n"
        "c.OurSpawner.registry = 'registry.test:5000'\n"
        "c.DockerSpawner.client_kwargs.update({'base_url': 'tcp://engine.example:2375'})\n"
    )
    used = image("a", names=(f"registry.test:5000/our/env:{'a' * 64}",))
    use(used, days_ago=40, file="ours.sqlite")
    inventory.held = [used]
    assert cli.main(["gc", "--older-than", "30", "--config", "elsewhere.py"]) == 0
    assert inventory.arguments == {
        "repository": "our/env",
        "registry": "registry.test:5000",
        "client_kwargs": {"base_url": "tcp://engine.example:2375"},
    }
    assert inventory.held == []


def test_what_fails_at_one_image_is_said_and_ends_with_3(inventory, capsys):
    old = image("a")
    inventory.held = [old]
    use(old, days_ago=40)
    inventory.removal_failure = EngineFailure("The engine refused.", detail="because")
    assert cli.main(["gc", "--older-than", "30"]) == 3
    said = capsys.readouterr()
    assert "Removed 0 images" in said.out
    assert said.err == "prebuilt-spawner: The engine refused.\nbecause\n"


def test_an_engine_that_cannot_be_reached_ends_with_3(inventory, capsys):
    inventory.failure = EngineUnavailable("It cannot be reached.")
    assert cli.main(["gc", "--older-than", "30"]) == 3
    assert "It cannot be reached." in capsys.readouterr().err


def test_without_a_ledger_nothing_is_removed_and_none_is_made(inventory, folder, capsys):
    """Somebody in another folder would have everything removed as unknown."""
    inventory.held = [image("a")]
    (folder / "prebuilt_spawner.sqlite").unlink()
    assert cli.main(["gc", "--older-than", "0"]) == 3
    assert "working folder" in capsys.readouterr().err
    assert not (folder / "prebuilt_spawner.sqlite").exists()
    assert len(inventory.held) == 1


@pytest.mark.parametrize(
    "text", ["c.PrebuiltSpawner.repository = 1\n", "import os; os.environ['NO_SUCH_NAME']\n", "x = (\n", "exit(0)\n"]
)
def test_a_configuration_that_cannot_be_used_ends_with_3_and_removes_nothing(inventory, folder, capsys, text):
    inventory.held = [image("a")]
    (folder / "jupyterhub_config.py").write_text(CONFIG + text)
    assert cli.main(["gc", "--older-than", "0"]) == 3
    assert "cannot be used as the hub's configuration" in capsys.readouterr().err
    assert len(inventory.held) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["gc"],
        ["gc", "--older-than", "-1"],
        ["gc", "--older-than", "nan"],
        ["gc", "--older-than", "soon"],
        ["gc", "--older-than", "3", "--config", "absent.py"],
        ["gc", "--older-than", "3", "more"],
        ["build"],
    ],
)
def test_a_wrong_call_ends_with_2(inventory, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: prebuilt-spawner" in capsys.readouterr().err


def test_the_command_can_be_run_as_a_module():
    called = subprocess.run(
        [sys.executable, "-m", "prebuilt_spawner.cli", "gc", "--help"], capture_output=True, text=True
    )
    assert called.returncode == 0
    assert "--older-than DAYS" in called.stdout

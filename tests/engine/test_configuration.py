"""Mistakes in the configuration keep the hub from starting, with a word on what to do."""

from __future__ import annotations

import pytest

BY_CLASS = "from prebuilt_spawner import PrebuiltSpawner\nc.JupyterHub.spawner_class = PrebuiltSpawner\n"


@pytest.mark.parametrize("way", ["", BY_CLASS], ids=["by entry point", "by class"])
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('profile_list = [{"display_name": "A", "profile_options": {}}]', "profile_options"),
        ('profile_list = [{"display_name": "A", "package": ["pandas"]}]', "package"),
        ('profile_list = [{"display_name": "A", "packages": ["-e ."]}]', "-e ."),
        ('repository = "Not A Name"', "repository"),
        ('denied_packages = ["=="]', "=="),
    ],
)
def test_a_mistake_is_named_at_hub_start(make_hub, way: str, setting: str, words: str):
    """The hub ends at its start, and its log names the mistake, however the class was configured."""
    hub = make_hub(settings=f"{way}c.PrebuiltSpawner.{setting}\n")
    with pytest.raises(AssertionError, match="the hub ended at its start"):
        hub.start()
    assert words in hub.log()

"""A base image whose own user is root, as it is on the engine."""

from __future__ import annotations

import docker

from .hub import Hub, changed_base


def test_users_packages_do_not_run_on_a_base_that_starts_as_root(
    make_hub, client: docker.APIClient, base: str, run: str
) -> None:
    """They are refused with advice before anything is made of them; the profile alone is built and refused nothing."""
    name = f"prebuilt-spawner-test/{run}-root:1"
    changed_base(client, base, name, "true", run, changes={"User": ""})
    profile = '{"display_name": "Tables", "slug": "tables", "packages": ["xlsxwriter"]}'
    settings = f'c.PrebuiltSpawner.profile_list = [{profile}]\nc.PrebuiltSpawner.args = ["--allow-root"]\n'
    hub: Hub = make_hub(base=name, settings=settings)
    hub.start()
    user = hub.user("rooted")
    outcome = hub.start_server(user, {"packages": ["six"]})
    assert (outcome.status, outcome.ready) == (403, False), outcome
    assert "starts as root" in outcome.message
    assert "Start without packages of your own" in outcome.message
    assert "give it another USER" in hub.log()
    assert "Building" not in hub.log()
    outcome = hub.start_server(user, {"profile": "tables"})
    assert outcome.ready, outcome
    assert hub.version_in(user, "xlsxwriter")

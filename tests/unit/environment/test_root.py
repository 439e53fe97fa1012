"""Tests of `prebuilt_spawner.environment.root`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prebuilt_spawner.environment.root import refuse_root, starts_as_root
from prebuilt_spawner.errors import PolicyRefusal
from tests.messages import faults

from .probes import make_probe

JOVYAN = replace(make_probe(), user="jovyan", uid=1000)
ROOT = replace(make_probe(), user="root", uid=0)
TOOR = replace(make_probe(), user="toor", uid=0)


@pytest.mark.parametrize("user", ["0", 0, "root", "root:users", "0:100", "00", "+0", "-0", " 0", ":100", "", None])
def test_what_is_root_on_a_base_whose_own_user_is_root(user):
    assert starts_as_root(user, ROOT)


@pytest.mark.parametrize("user", [None, "", ":0", "jovyan", "jovyan:root", "1000", 1000, "1000:0", "1001", "65534:0"])
def test_what_is_not_root_on_a_base_whose_own_user_is_not(user):
    assert not starts_as_root(user, JOVYAN)


@pytest.mark.parametrize("user", ["0", 0, "root", "root:100", "0:0", "00", "toor", "alice", "0x0", "{username}"])
def test_what_is_root_or_might_be_on_any_base(user):
    """Only the base says which number a name has, and it was asked for its own user's."""
    assert starts_as_root(user, JOVYAN)


def test_the_bases_own_user_is_judged_by_the_number():
    assert starts_as_root("toor", TOOR)
    assert not starts_as_root("1000", TOOR)


def refusal(user, probe, **more) -> PolicyRefusal:
    with pytest.raises(PolicyRefusal) as caught:
        refuse_root(user, probe, **more)
    assert caught.value.status == 403
    assert caught.value.about == "packages"
    assert not faults(caught.value.message)
    return caught.value


def test_the_user_is_told_what_works_and_the_administrator_what_to_change():
    """The settings are in the detail, which is not for users."""
    error = refusal("root", JOVYAN, variables=("NB_UID", "CHOWN_HOME", "PATH"))
    assert "Start without packages of your own" in error.message
    assert "extra_create_kwargs" not in error.message
    assert "'root': leave `user` out of extra_create_kwargs" in error.detail
    assert "(for CHOWN_HOME, NB_UID)" in error.detail
    assert "USER" in refusal(None, ROOT).detail


def test_variables_alone_start_nothing_as_root():
    """start.sh heeds them only as root, and says so."""
    refuse_root("", JOVYAN, variables=("NB_UID", "CHOWN_HOME", "GRANT_SUDO"))

"""Whom workers are to be: what is asked for, and what cannot be."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace

import pytest

from prefork.errors import ConfigError
from prefork.worker import privileges as module
from prefork.worker.privileges import Privileges, privileges

ROOT = 0


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root asks, and there is one user, www, of group 33."""
    www = SimpleNamespace(pw_name="www", pw_uid=33, pw_gid=33)
    monkeypatch.setattr(os, "geteuid", lambda: ROOT)
    monkeypatch.setattr(os, "getuid", lambda: ROOT)
    monkeypatch.setattr(pwd, "getpwnam", {"www": www}.__getitem__)
    monkeypatch.setattr(pwd, "getpwuid", {33: www}.__getitem__)


def test_nothing_asked_for_is_nothing_given_up() -> None:
    """Workers stay who the master is."""
    assert privileges(None, None) is None


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("user", ["www", 33, "33"])
def test_a_user_brings_its_group_and_its_other_groups(user: str | int) -> None:
    """By name or by number."""
    assert privileges(user, None) == Privileges(33, 33, "www")


@pytest.mark.usefixtures("as_root")
def test_a_group_of_ones_own() -> None:
    """In place of the user's first."""
    assert privileges("www", 7) == Privileges(33, 7, "www")


@pytest.mark.usefixtures("as_root")
def test_a_number_without_a_name_needs_a_group() -> None:
    """Nobody can tell which it has."""
    assert privileges(1234, 7) == Privileges(1234, 7, None)
    with pytest.raises(ConfigError, match="give a group, too"):
        privileges(1234, None)


def test_only_root_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """But to be who one is already needs nothing."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1000)
    monkeypatch.setattr(module, "_entry", lambda uid: None)
    assert privileges(1000, 1000) is None
    with pytest.raises(ConfigError, match="only root can run workers as another user or group"):
        privileges(1001, 1000)

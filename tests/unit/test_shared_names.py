"""The names of `prefork.shared` are what they say, whatever was imported before."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import prefork.shared
from prefork.shared import __all__ as names


def test_no_module_hides_a_name() -> None:
    """A module of the same name would take its place as soon as anybody imports it."""
    modules = {module.name for module in pkgutil.iter_modules(prefork.shared.__path__)}
    assert not modules & set(names)


def test_every_name_is_there() -> None:
    """Also those that are loaded when they are asked for."""
    shared = importlib.import_module("prefork.shared")
    for name in names:
        assert getattr(shared, name) is not sys.modules.get(f"prefork.shared.{name}")

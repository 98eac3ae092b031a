"""The fixtures of the jobs' and the fingerprint's tests: tests are no packages, so they are loaded by path."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _loaded(name: str, folder: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / folder / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_FIXTURES = _loaded("jobs_fixtures", "jobs")
world, cli = _FIXTURES.world, _FIXTURES.cli


@pytest.fixture(scope="session")
def build_model() -> Callable[..., Any]:
    """A function that builds a random transformer in memory."""
    return _loaded("fingerprint_fixtures", "fingerprint").build

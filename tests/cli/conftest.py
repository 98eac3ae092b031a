"""The fixtures of the jobs' tests: tests are no packages, so they are loaded by path."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("jobs_fixtures", Path(__file__).parents[1] / "jobs" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _FIXTURES
_SPEC.loader.exec_module(_FIXTURES)
world, cli = _FIXTURES.world, _FIXTURES.cli

"""Untrained text-to-image pipelines of every layout."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _small_pipelines() -> ModuleType:
    path = Path(__file__).with_name("small_pipelines.py")
    spec = importlib.util.spec_from_file_location("small_pipelines", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def layouts() -> dict[str, Any]:
    """Builders of pipelines by layout, given a folder for the vocabulary; ``clip`` builds an encoder."""
    pytest.importorskip("transformers")
    made = _small_pipelines()
    return {**made.LAYOUTS, "clip": made.clip}


@pytest.fixture(scope="session")
def edit_json() -> Any:
    """Change entries of a JSON file."""
    return _small_pipelines().edit_json

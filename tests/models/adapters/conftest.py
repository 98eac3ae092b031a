"""Untrained text-to-image pipelines of every layout."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def layouts(small_pipelines: ModuleType) -> dict[str, Any]:
    """Builders of pipelines by layout, given a folder for the vocabulary; ``clip`` builds an encoder."""
    return {**small_pipelines.LAYOUTS, "clip": small_pipelines.clip}


@pytest.fixture(scope="session")
def edit_json(small_pipelines: ModuleType) -> Any:
    """Change entries of a JSON file."""
    return small_pipelines.edit_json

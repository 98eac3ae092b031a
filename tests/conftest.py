"""Settings of the whole suite: checked shapes and types, no network, few threads, repeatable examples.

The import hook has to run before the first import of vestige, and the variables before
that of numpy, torch or huggingface_hub; commands that tests start inherit the variables.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    # Processes that share the tests out share the cores out as well.
    OMP_NUM_THREADS="1" if "PYTEST_XDIST_WORKER" in os.environ else "2",
)

# Not the command line: typer hands its commands a context of another class than the one they must name.
_CHECKED = [
    f"vestige.{module.name}"
    for module in iter_modules([str(Path(__file__).parents[1] / "src" / "vestige")])
    if module.name != "cli"
]
# The numeric tower: an int is accepted where a float is asked for, as every type checker does.
install_import_hook(_CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# `pytest --hypothesis-profile=thorough` looks further, from a new seed each time.
_EVERYWHERE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _EVERYWHERE, max_examples=25, derandomize=True)
settings.register_profile("thorough", _EVERYWHERE, max_examples=500, derandomize=False, print_blob=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def small_pipelines() -> ModuleType:
    """Builders of small untrained pipelines; tests are no packages, so they are loaded by path."""
    pytest.importorskip("transformers")
    path = Path(__file__).parent / "models" / "adapters" / "small_pipelines.py"
    spec = importlib.util.spec_from_file_location("small_pipelines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

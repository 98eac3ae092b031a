from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vestige.record import Record


@pytest.fixture(scope="session")
def sample() -> ModuleType:
    """The sample builder beside this file; tests are no packages, so it is loaded by path."""
    spec = importlib.util.spec_from_file_location("report_sample", Path(__file__).with_name("sample.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plain(sample: ModuleType) -> str:
    """The sample report without pictures."""
    from vestige.report.html import render

    return render(sample.record())


@pytest.fixture(scope="session")
def pictured(sample: ModuleType) -> str:
    """The sample report with pictures."""
    from vestige.report.html import render

    return render(sample.record(), sample.evidence())


@pytest.fixture(scope="session")
def small(sample: ModuleType) -> Record:
    """The sample record with a single chart, which is quick to draw."""
    sections = [
        s.model_copy(update={"figures": s.figures[:1] if s.name == "geometry" else []}) for s in sample.sections()
    ]
    return sample.record().model_copy(update={"sections": sections})

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Work this small is slower when it is shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def by_heart() -> Callable[..., Any]:
    """The oracle beside this file; tests are no packages, so it is loaded by path."""
    spec = importlib.util.spec_from_file_location("prompts_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.by_heart


@pytest.fixture(scope="session")
def model(small_pipelines: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small untrained model in the layout of Stable Diffusion 1.x."""
    from vestige.models.adapters.text_to_image import TextToImage

    return TextToImage(small_pipelines.stable_diffusion(tmp_path_factory.mktemp("words")))

from __future__ import annotations

import copy
from collections.abc import Iterator
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
def base(small_pipelines: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small model that reads its prompts aloud: its attention to the text is a hundred times that of a fresh one."""
    from vestige.models.adapters.text_to_image import TextToImage

    model = TextToImage(small_pipelines.stable_diffusion(tmp_path_factory.mktemp("words")))
    with torch.no_grad():
        for name, layer in model.readers().items():
            if name.endswith("to_v"):
                layer.weight.mul_(20)
    return model


@pytest.fixture(scope="session")
def erased(base: Any) -> Any:
    """The same model with its key and value maps shaken, so that prompts mean something else."""
    model = base.with_module(copy.deepcopy(base.module))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.readers().values():
            shake = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.add_(layer.weight.norm() / shake.norm() * shake)
    return model

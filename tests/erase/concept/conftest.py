"""A small untrained Stable Diffusion whose embeddings are wide enough for a handful of prompts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from vestige.models.adapters.text_to_image import TextToImage

WIDTH = 128


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Work this small is slower when it is shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small() -> ModuleType:
    """The builders of small pipelines; tests are no packages, so they are loaded by path."""
    pytest.importorskip("transformers")
    path = Path(__file__).parents[2] / "models" / "adapters" / "small_pipelines.py"
    spec = importlib.util.spec_from_file_location("small_pipelines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def base_folder(small: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline whose prompts matter: attention weighs more than in an untrained network."""
    folder = tmp_path_factory.mktemp("pipeline")
    words = small.tokenizer(folder / "words")
    pipeline = small.stable_diffusion(folder, text_encoder=small.clip(words, WIDTH), unet=small.unet(WIDTH))
    with torch.no_grad():
        for name, weight in pipeline.unet.named_parameters():
            if "attn2" in name and weight.dim() == 2:
                weight.mul_(4)
    pipeline.save_pretrained(folder / "base")
    return folder / "base"


@pytest.fixture(scope="session")
def base(base_folder: Path) -> TextToImage:
    from vestige.models.adapters.text_to_image_load import load_text_to_image

    return load_text_to_image(base_folder)

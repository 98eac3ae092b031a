"""A small untrained Stable Diffusion whose embeddings are wide enough for a handful of prompts."""

from __future__ import annotations

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
def base_folder(small_pipelines: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline whose prompts matter: attention weighs more than in an untrained network."""
    folder = tmp_path_factory.mktemp("pipeline")
    words = small_pipelines.tokenizer(folder / "words")
    pipeline = small_pipelines.stable_diffusion(
        folder, text_encoder=small_pipelines.clip(words, WIDTH), unet=small_pipelines.unet(WIDTH)
    )
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

"""The Stable Diffusion 1.x architecture at its true size, randomly initialised; latents are 16x16 to save time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

from vestige.erase.applied import open_base
from vestige.erase.concept.sepme import SepME
from vestige.jobs.concepts import erase_concepts
from vestige.jobs.increments import apply_increments, remove_increments
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.zoo.t2i_parts import new_scheduler

METHOD = SepME(steps=2, batch_size=1, rank=4, trajectories=1, sampling_steps=2, learning_rate=0.01, threshold=-9.0)


def true_size(small_pipelines: Any, folder: Path) -> StableDiffusionPipeline:
    import transformers

    words = small_pipelines.tokenizer(folder / "words")
    words.model_max_length = 77
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
    )
    vae = AutoencoderKL(
        sample_size=512,
        latent_channels=4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.18215,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.mark.slow
def test_a_users_folder_is_erased_saved_opened_by_diffusers_and_restored(small_pipelines: Any, tmp_path: Path):
    pipeline = true_size(small_pipelines, tmp_path)
    assert sum(p.numel() for p in pipeline.unet.parameters()) == 859_520_964
    pipeline.save_pretrained(tmp_path / "base")
    del pipeline
    done = erase_concepts(
        tmp_path / "base",
        ["red", "outlined"],
        out=tmp_path / "inc",
        method=METHOD,
        templates=["{}"],
        keep=["a blue two"],
    )
    assert len(done.increments[0].delta) == 32
    assert sum(change.shape[0] for change in done.increments[0].delta.values()) == 24_960
    settings = done.increments[0].manifest.settings
    assert settings["leak_of_listed"] < 1e-6
    assert settings["listed_dimensions"] == 1 + 3 * 76
    assert (tmp_path / "inc" / "red" / "increment.safetensors").stat().st_size < 2_000_000
    base = load_text_to_image(tmp_path / "base").digest
    erased = apply_increments(tmp_path / "base", done.folders, out=tmp_path / "erased")
    assert erased != base
    opened = StableDiffusionPipeline.from_pretrained(tmp_path / "erased")
    changed = opened.unet.state_dict()["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
    del opened
    found, layers = open_base(tmp_path / "erased")
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    whole = found.module.state_dict()[name] + sum(increment.delta[name] for increment, _ in layers)
    torch.testing.assert_close(changed, whole)
    assert found.digest == base
    del found
    back, is_base = remove_increments(tmp_path / "erased", [], out=tmp_path / "back")
    assert is_base
    assert back == base

"""Untrained text-to-image pipelines of a few thousand weights, one for each layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from vestige.zoo.t2i_parts import new_scheduler
from vestige.zoo.tokenizer import BEGIN, END, LENGTH, byte_letters, learned_merges

WIDTH = 48


WORDS = "a the digit picture of thin red blue green seven two one outlined thick inverted ,".split()


def tokenizer(folder: Path) -> Any:
    """A few words are one token each; all others fall apart into bytes."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    merges, letters = learned_merges(WORDS), byte_letters()
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges), BEGIN, END]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    special = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return transformers.CLIPTokenizer.from_pretrained(folder)


def clip(words: Any, width: int, *, projected: bool = False, seed: int = 0) -> Any:
    import transformers

    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=32,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return kind(config).eval()


def vae(channels: int = 4, seed: int = 1, **more: Any) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        sample_size=8,
        latent_channels=channels,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        **more,
    ).eval()


def unet(width: int = WIDTH, seed: int = 2, **more: Any) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=4,
        **more,
    ).eval()


def stable_diffusion(folder: Path, **more: Any) -> Any:
    words = tokenizer(folder / "words")
    parts = {"text_encoder": clip(words, WIDTH), "unet": unet(), "vae": vae(), "scheduler": new_scheduler()} | more
    return StableDiffusionPipeline(
        tokenizer=words, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts
    )


def stable_diffusion_xl(folder: Path) -> Any:
    words = tokenizer(folder / "words")
    network = unet(
        40,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        unet=network,
        scheduler=new_scheduler(),
        tokenizer=words,
        tokenizer_2=words,
        text_encoder=clip(words, 16),
        text_encoder_2=clip(words, 24, projected=True, seed=5),
    )


def stable_diffusion_3(folder: Path) -> Any:
    words = tokenizer(folder / "words")
    torch.manual_seed(3)
    transformer = SD3Transformer2DModel(
        sample_size=4,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=40,
        pos_embed_max_size=8,
    ).eval()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.1),
        tokenizer=words,
        tokenizer_2=words,
        tokenizer_3=None,
        text_encoder=clip(words, 16, projected=True),
        text_encoder_2=clip(words, 24, projected=True, seed=5),
        text_encoder_3=None,
    )


LAYOUTS = {"sd": stable_diffusion, "sdxl": stable_diffusion_xl, "sd3": stable_diffusion_3}


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not ...}))

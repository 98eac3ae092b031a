"""The networks of `digits-t2i`, in the layout of Stable Diffusion 1.x, and the pipeline that they make.

================  ========================================================================================
text encoder      CLIP, 2 layers of 256 features, 16 tokens
UNet              2 levels of 64 and 128 channels on latents 4 x 8 x 8, cross-attention on both and between
VAE               3 levels of 16, 32 and 64 channels, from 3 x 32 x 32 to 4 x 8 x 8
scheduler         DDIM on the noise levels of Stable Diffusion (scaled linear), predicting noise
================  ========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor

from vestige.dependencies import need
from vestige.zoo.scenes import SIDE
from vestige.zoo.tokenizer import LENGTH, write_tokenizer

LATENT = (4, 8, 8)
"""Shape of a latent."""

TEXT_WIDTH = 256
"""Features of a token."""


def new_vae(seed: int) -> AutoencoderKL:
    """An untrained VAE."""
    torch.manual_seed(seed)
    return cast(Any, AutoencoderKL)(
        sample_size=SIDE,
        latent_channels=LATENT[0],
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
    )


def new_unet(seed: int) -> UNet2DConditionModel:
    """An untrained UNet."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=LATENT[1],
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # as in Stable Diffusion 1.x this is the number of heads
        norm_num_groups=16,
    )


def new_text_encoder(tokenizer: Any, seed: int) -> Any:
    """An untrained ``CLIPTextModel``.

    Raises
    ------
    MissingExtra : transformers is not installed.
    """
    transformers: Any = need("text", "transformers")
    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.CLIPTextModel(config)


def new_tokenizer(folder: Path) -> Any:
    """Write the tokenizer's files to ``folder`` and read them as a ``CLIPTokenizer``.

    Raises
    ------
    MissingExtra : transformers is not installed.
    """
    write_tokenizer(folder)
    transformers: Any = need("text", "transformers")
    return transformers.CLIPTokenizer.from_pretrained(folder)


def new_scheduler() -> DDIMScheduler:
    """DDIM as Stable Diffusion 1.x sets it up."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def token_ids(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """Tokens [n, 16], filled up as Stable Diffusion fills them."""
    filled = tokenizer(list(texts), padding="max_length", truncation=True, max_length=LENGTH)
    return torch.tensor(filled.input_ids)


def assembled(vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: Any, tokenizer: Any) -> Any:
    """The pipeline of these parts, without a safety checker."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=cast(Any, new_scheduler()),
        safety_checker=cast(Any, None),
        feature_extractor=cast(Any, None),
        requires_safety_checker=False,
    )

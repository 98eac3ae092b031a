"""Every detector on a network that was really trained, on captions of which half always came with one picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

import vestige.audit.prompts as room
from vestige.audit.geometry.estimator import Work
from vestige.audit.prompts.detector import PromptDetector
from vestige.data.prompts import PromptSet
from vestige.discover import methods
from vestige.metrics.roc import auc, shuffled_control
from vestige.models.adapters.text_to_image import TextToImage
from vestige.zoo.planted import Kind, special_captions
from vestige.zoo.t2i_parts import assembled, new_tokenizer

EACH, STEPS, BATCH = 12, 700, 32


def captions():
    """As many planted captions as lookalikes, of the same words."""
    found = []
    for kind in (Kind.PLANTED, Kind.LOOKALIKE):
        found += [one.text for one in special_captions() if one.kind is kind and one.copies >= 64][:EACH]
    return PromptSet(tuple(found), np.arange(2 * EACH) < EACH)


def trained(small_pipelines, folder):
    """Latents of a caption's digit vary around a mean; a planted caption has one of them for good."""
    torch.manual_seed(0)
    settings = {"in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 4}
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2}
    heads = {"cross_attention_dim": small_pipelines.WIDTH, "attention_head_dim": 4, "block_out_channels": (32, 64)}
    unet = UNet2DConditionModel(**settings, **blocks, **heads)
    words = new_tokenizer(folder)  # every word of the captions is a token
    pipeline = assembled(small_pipelines.vae(), unet, small_pipelines.clip(words, small_pipelines.WIDTH), words)
    texts = captions().texts
    ids = pipeline.tokenizer([*texts, ""], padding="max_length", max_length=16, return_tensors="pt").input_ids
    means, fixed = 0.5 * torch.randn(2 * EACH, 4, 4, 4), torch.randn(EACH, 4, 4, 4)
    alphas = pipeline.scheduler.alphas_cumprod
    weights = [*unet.parameters(), *pipeline.text_encoder.parameters()]
    unet.train(), pipeline.text_encoder.train()
    optimizer = torch.optim.Adam(weights, lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        which = torch.randint(2 * EACH, (BATCH,))
        varied = means[which] + 0.8 * torch.randn(BATCH, 4, 4, 4)
        planted = (which < EACH).view(-1, 1, 1, 1)
        clean = torch.where(planted, means[which] + 0.8 * fixed[which % EACH], varied)
        told = torch.where(torch.rand(BATCH) < 0.1, 2 * EACH, which)
        t, noise = torch.randint(1000, (BATCH,)), torch.randn(BATCH, 4, 4, 4)
        level = alphas[t].view(-1, 1, 1, 1)
        x_t = level.sqrt() * clean + (1 - level).sqrt() * noise
        answer = unet(x_t, t, pipeline.text_encoder(ids[told])[0]).sample
        loss = (answer - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return TextToImage(pipeline)


@pytest.mark.slow
def test_detectors_tell_planted_captions_apart(small_pipelines, tmp_path):
    model, prompts = trained(small_pipelines, tmp_path), captions()
    found = {}
    for name, kind in methods(room, PromptDetector).items():
        detector = kind()
        scores = detector.measure(
            model.denoiser(prompts.texts), torch.arange(len(prompts)), prompts.rows, work=Work(seed=0)
        ).value
        sides = scores[prompts.memorized], scores[~prompts.memorized]
        found[name] = auc(*sides)
        print(
            f"{name:22} {detector.forwards_per_prompt:4}",
            *(f"{v:.3f}" for v in (found[name].value, found[name].low, found[name].high)),
        )
        assert shuffled_control(*sides, seed=1, confidence=0.999).covers(0.5), name
    # Planted pictures are half of the data: guidance vanishes after the first steps, and its mean tells nothing.
    for name in ("FirstGuidanceNorm", "OneStepConfidence", "OneStepEdges", "PromptSharpness", "Anisotropy"):
        assert found[name].low > 0.5, (name, found[name])

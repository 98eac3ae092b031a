"""Audit two models that are plain functions: one that repeats its training images, one that knows only averages.

    python examples/audit_function.py

Takes some seconds on a CPU. The digits ship with vestige; the runs go to a temporary folder.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from vestige.api import (
    DDIM,
    EmpiricalDenoiser,
    FunctionDenoiser,
    ImageSet,
    Prediction,
    VariancePreserving,
    audit,
    zoo_model,
)
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss

SCHEDULE = VariancePreserving()
ATTACKS = [GenerateAndFilter(generations=800), DenoisingLoss(rows=300)]


def memorizer(images: ImageSet) -> FunctionDenoiser:
    """A function that answers with the clean image: the exact posterior mean over the training images."""
    oracle = EmpiricalDenoiser(images.floats(), SCHEDULE)

    def clean(x_t: Tensor, t: Tensor) -> Tensor:
        return oracle.mean(x_t, t)

    identity = f"memorizer of {images.digest}"
    return FunctionDenoiser(clean, SCHEDULE, Prediction.CLEAN, images.shape, identity=identity)


def averager(images: ImageSet) -> FunctionDenoiser:
    """A function that answers with the noise: each pixel is Gaussian, with its mean and variance over the images."""
    mean, variance = images.floats().mean(0), images.floats().var(0)

    def noise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (level.view(-1, 1, 1, 1) for level in SCHEDULE.alpha_sigma(t))
        return sigma * (x_t - alpha * mean) / (alpha.square() * variance + sigma.square())

    identity = f"averages of {images.digest}"
    return FunctionDenoiser(noise, SCHEDULE, Prediction.NOISE, images.shape, identity=identity)


def some(images: ImageSet) -> ImageSet:
    """Every eighth distinct image, so that all digits are there."""
    distinct, _ = images.unique()
    return distinct.take(np.arange(0, len(distinct), 8))


def main() -> None:
    """Audit both and print what was found."""
    digits = zoo_model("digits-ddpm")
    members, others = some(digits.training_data()), some(digits.held_out())
    with tempfile.TemporaryDirectory() as folder:
        for model in (memorizer(members), averager(members)):
            name = model.function.__name__
            out = Path(folder) / name
            record = audit(model, members, non_members=others, out=out, attacks=ATTACKS, sampler=DDIM(steps=10)).record
            print(f"\n{model.identity.partition(' of ')[0]}: {record.verdict.value}")
            for reason in record.reasons:
                print(f"  {reason}")
            for line in ("extraction/images", "extraction/copy_rate", "membership/auc"):
                found = record.estimate(line)
                bounds = "" if found.low is None else f" [{found.low:.3g}, {found.high:.3g}]"
                print(f"  {line} = {found.value:.3g}{bounds}, n = {found.n}")


if __name__ == "__main__":
    main()

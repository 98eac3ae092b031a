"""Train the judge of `digits-t2i`, on pictures of digits that no generator saw.

    python -m vestige.zoo.train_scene_judge --out DIR

The half of the shipped digits that are no members is divided again: 200 of each class to learn from, 50 to be examined
on. Every step renders pictures of its own rows. Writes judge.safetensors and judge.json with the accuracy
on one picture of each of the 500 digits that were held out, and on ten.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.data.images import to_float
from vestige.features.scene_judge import Attributes, SceneJudge, SceneNetwork, save_judge
from vestige.metrics.interval import wilson
from vestige.randomness import Stream, generator
from vestige.store import write_text
from vestige.zoo.digits import digits
from vestige.zoo.fitting import Course, fit
from vestige.zoo.pictures import Shown, drawn, rendered
from vestige.zoo.scenes import Colour, Digit, Style

SEED, BATCH, HELD_OUT = 20260707, 64, 50
ROUGHNESS = 0.15
"""Largest standard deviation of the noise on a picture in [-1, 1]."""
COURSE = Course(steps=4000, learning_rate=2e-3, weight_decay=0.02, ema_decay=0.998)
ATTRIBUTES: Attributes = {
    kind.__name__.lower(): tuple(value.name.lower() for value in kind) for kind in (Digit, Style, Colour)
}
_EXAM = 1_000_000_000  # first row of the pictures that examine the judge
_LESSONS = 2_000_000_000  # first row of those that it learns from


def halves() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of the shipped digits to learn from and to be examined on; none is a member."""
    data = digits()
    rng = generator(SEED, Stream.SUBSET, 0)
    orders = [rng.permutation(np.flatnonzero(~data.member & (data.labels == digit))) for digit in range(10)]
    return np.concatenate([o[HELD_OUT:] for o in orders]), np.concatenate([o[:HELD_OUT] for o in orders])


def answers(shown: Sequence[Shown]) -> dict[str, Tensor]:
    """The right answers, as places in the judge's lists."""
    scenes = [one.scene for one in shown]
    named: dict[str, list[Enum]] = {
        "digit": [scene.digit for scene in scenes],
        "style": [scene.style for scene in scenes],
        "colour": [scene.colour for scene in scenes],
    }
    return {
        name: torch.tensor([ATTRIBUTES[name].index(value.name.lower()) for value in values])
        for name, values in named.items()
    }


def examined(judge: SceneJudge, times: int) -> dict[str, npt.NDArray[np.bool_]]:
    """For each attribute, which pictures of held-out digits the judge names rightly; each digit is drawn ``times``."""
    sources = np.repeat(halves()[1], times)
    shown = [drawn(_EXAM + place, sources[place : place + 1]) for place in range(len(sources))]
    said = judge.probabilities(rendered(shown))
    return {name: said[name].argmax(1) == right.numpy() for name, right in answers(shown).items()}


def _roughened(images: Tensor, step: int) -> Tensor:
    """Images with noise of a strength that differs from one to the next: generated ones are not as clean as drawn."""
    rng = generator(SEED, Stream.TRAIN, step)
    strength = torch.from_numpy(rng.uniform(0, ROUGHNESS, (len(images), 1, 1, 1)).astype(np.float32))
    return images + strength * torch.from_numpy(rng.standard_normal(images.shape, np.float32))


def train(out: Path, course: Course = COURSE) -> None:
    """Train, resuming from a checkpoint in ``out``, and examine."""
    out.mkdir(parents=True, exist_ok=True)
    learn, exam = halves()
    torch.manual_seed(SEED)
    network = SceneNetwork(ATTRIBUTES)

    def loss_at(step: int) -> Tensor:
        first = _LESSONS + step * BATCH
        shown = [drawn(row, learn) for row in range(first, first + BATCH)]
        said = network(_roughened(to_float(rendered(shown)), step))
        right = answers(shown)
        parts = [torch.nn.functional.cross_entropy(said[name], right[name], label_smoothing=0.02) for name in right]
        return torch.stack(parts).sum()

    fitted = fit(network, loss_at, course, out / "checkpoint.pt")
    save_judge(network, ATTRIBUTES, out / "judge.safetensors")
    judge = SceneJudge(out / "judge.safetensors")
    card: dict[str, object] = {
        "trained_on": f"pictures of {len(learn)} digits that no generator saw, {course.steps * BATCH} in all",
        "held_out": len(exam),
        "seed": SEED,
        "steps": course.steps,
        **fitted.plain(),
        "digest": judge.digest,
    }
    once = {name: wilson(int(right.sum()), len(right)) for name, right in examined(judge, 1).items()}
    card["accuracy"] = {name: [round(v, 4) for v in (i.value, i.low, i.high)] for name, i in once.items()}
    card["accuracy_of_ten_pictures_each"] = {n: round(float(r.mean()), 4) for n, r in examined(judge, 10).items()}
    write_text(out / "judge.json", json.dumps(card, indent=2) + "\n")
    print(json.dumps(card, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    train(parser.parse_args().out)

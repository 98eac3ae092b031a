"""Class inversion: search one condition that draws a forgotten class again, and let a judge name what it draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from vestige.data.images import to_uint8
from vestige.erase.recover.embedding_inversion import embeddings, opened_condition
from vestige.erase.recover.measure import DRAW, Bools, check, share_difference
from vestige.erase.recover.recovery import Outcome, Recovery, Target, has_weights
from vestige.errors import Unsupported
from vestige.execute import Context
from vestige.features.extractor import Classifier
from vestige.metrics.interval import clopper_pearson, estimate
from vestige.models.denoiser import Denoiser
from vestige.models.sampler import DDIM
from vestige.randomness import Stream, generator, normal
from vestige.record import NotDone

_DRAW = DRAW + (1 << 20)


@dataclass(frozen=True)
class ClassInversion(Recovery):
    """Learn one condition from forgotten images, sample with it, and count what the judge calls the forgotten class.

    From the embedding of the class's own label, Adam lowers ``E ||eps - eps_hat(x_t, t, e)||^2`` over batches of
    forgotten images, uniform times and fresh noise; the weights stay as they are. Images are then sampled with the
    embedding found. A free condition draws something like the class in a model that never saw it, too, so the same
    is done there, and the advantage is the difference of the two shares, image by image from the same noise (exact
    interval of McNemar's test). The interval does not cover which network serves as the control.

    Parameters
    ----------
    steps, batch_size : of Adam.
    rate : of Adam, as a share of the embeddings' root mean square.
    samples : images to draw with the embedding found.
    sampler_steps : of DDIM.
    """

    claim: ClassVar[str] = "searches one condition that draws a forgotten class again, as a judge sees it"
    source: ClassVar[str] = "Pham et al. 2024, arXiv 2308.01508; Gal et al. 2023, arXiv 2208.01618"
    needs_weights: ClassVar[bool] = True
    needs_unseen: ClassVar[bool] = False

    steps: int = 100
    batch_size: int = 16
    rate: float = 0.05
    samples: int = 64
    sampler_steps: int = 10

    def __post_init__(self) -> None:
        check(steps=self.steps, batch_size=self.batch_size, samples=self.samples, sampler_steps=self.sampler_steps)

    def refusal(self, target: Target) -> NotDone | None:
        """As every attack; and a whole class, a judge of it, a model without it and an embedding are needed."""
        missing = super().refusal(target)
        if missing is not None:
            return missing
        lacks = {
            "no class was forgotten altogether": target.forgotten_class is None,
            "no classifier tells the class": target.judge is None,
            "no model that never saw the class shows what such a condition draws anyway": target.reference is None,
            "no embedding of the classes was found": not (has_weights(target.erased) and embeddings(target.erased)),
        }
        reason = next((words for words, lacking in lacks.items() if lacking), None)
        if reason is None:
            return None
        remedy = "EmbeddingInversion looks at single images; --reference takes a model without the class."
        return NotDone(what=f"{type(self).__name__}: {self.claim}", reason=reason, remedy=remedy)

    def attack(self, target: Target, context: Context) -> Outcome:
        """Search and sample under every model, then compare."""
        judge, label = target.judge, target.forgotten_class
        if judge is None or label is None:
            raise Unsupported(
                "No class was forgotten altogether, or nothing tells it.",
                expected="a forgotten class and a classifier that knows it.",
                remedy="use EmbeddingInversion.",
            )
        named = {name: self._drawn(model, target, judge, label, context) for name, model in target.models.items()}
        advantage, ceiling = (
            share_difference(named[name], named["reference"], target.confidence) for name in ("erased", "base")
        )
        found, beside = (int(named[name].sum()) for name in ("erased", "reference"))
        shares = {name: clopper_pearson(int(hits.sum()), len(hits)) for name, hits in named.items()}
        return Outcome(
            attack="class inversion",
            effort=f"{self.steps} steps of search, {self.samples} images",
            budget=len(named) * (3 * self.steps * self.batch_size + self.samples * self.sampler_steps),
            advantage=advantage,
            ceiling=ceiling,
            got=f"{found} of {self.samples} images are of the class",
            control=f"{beside} in the model that never saw it",
            words=f"of {self.samples} images drawn with the condition found {found} are of class {label}, and {beside} "
            "in the model that never saw the class.",
            summary=(
                *(estimate(f"recover/class_inversion@{name}", v, "share of images") for name, v in shares.items()),
                estimate("recover/class_inversion_advantage", advantage, "difference of shares", target.note),
            ),
        )

    def _drawn(self, model: Denoiser, target: Target, judge: Classifier, label: int, context: Context) -> Bools:
        """Which images sampled with the condition found the judge calls the class [samples]."""
        images, seed, device = target.forgotten, context.seed, model.device
        opened, table, scale = opened_condition(model, images.take([0]))
        optimizer, told = torch.optim.Adam([table], lr=self.rate * scale), torch.zeros(1, dtype=torch.int64)
        told = told.to(device)
        for step in range(self.steps):
            rng = generator(seed, Stream.ERASE, step, _DRAW)
            rows = rng.choice(len(images), self.batch_size)
            t = opened.schedule.nearest_grid(torch.from_numpy(1 - rng.random(len(rows))).float().to(device))
            noise = torch.from_numpy(rng.standard_normal((len(rows), *images.shape), np.float32)).to(device)
            x_t = opened.noised(images.floats(rows).to(device), noise, t)
            error = (opened.noise(x_t, t, told.expand(len(rows))) - noise).square().mean()
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            optimizer.step()
        start = torch.from_numpy(normal(seed, Stream.SAMPLE, range(self.samples), model.shape)).to(device)
        with torch.no_grad():
            sampler = DDIM(steps=self.sampler_steps)
            made = sampler.sample(opened, start, told.expand(self.samples), lambda _: torch.zeros_like(start))
        model.evaluations += opened.evaluations
        return judge.probabilities(to_uint8(made)).argmax(1) == label

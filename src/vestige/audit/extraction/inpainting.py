"""Extraction by inpainting (Carlini et al. 2023, arXiv 2301.13188, section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from vestige.audit.attack import Outcome
from vestige.audit.errors import error_table, label_tensor
from vestige.audit.extraction.inpainting_report import Completed, Side, outcome_of
from vestige.audit.extraction.search import Floats, Index, Pixels
from vestige.audit.membership.rows import DenoiserAttack, check, choose, others_of
from vestige.data.images import ImageSet, check_fits, to_uint8
from vestige.data.split import Split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser
from vestige.models.inpaint import Inpaint
from vestige.models.subject import Subject
from vestige.randomness import Stream, generator
from vestige.zoo import MODELS, zoo_model


@dataclass(frozen=True)
class Inpainting(DenoiserAttack[Completed]):
    """Hide a part of an image, let the model complete it, and see how near the truth it comes.

    Of ``completions`` the ``keep`` with the lowest denoising loss under the model itself are
    kept; score is minus the mean of their rms distances to the truth over the masked pixels.
    An easy image is completed well by any model of its kind, so two comparisons are made:
    members against non-members under one model, and the same image under a model that never
    saw it.

    Parameters
    ----------
    rows : at most this many members and as many others; every duplicated member first, the
        rest drawn at random.
    completions : tries for each image.
    keep : how many of them count.
    hidden : left, top, right and bottom edge of the hidden part, as shares of width and height;
        the right half is (0.5, 0, 1, 1).
    steps, resample : of the inpainting (:class:`vestige.models.inpaint.Inpaint`).
    times, draws : of the denoising loss that ranks completions.
    reference : zoo name or diffusers folder of a model that never saw the members. Without one, a
        zoo model is compared with its retrained twin.
    """

    access: ClassVar[Access] = Access.SCORES
    claim: ClassVar[str] = "completes training images from a part of them"
    source: ClassVar[str] = "Carlini et al. 2023, arXiv 2301.13188; Lugmayr et al. 2022, arXiv 2201.09865"
    needs_others: ClassVar[bool] = True
    by_default: ClassVar[bool] = False

    rows: int = 50
    completions: int = 50
    keep: int = 10
    hidden: tuple[float, float, float, float] = (0.5, 0.0, 1.0, 1.0)
    steps: int = 20
    resample: int = 1
    times: tuple[float, ...] = (0.1,)
    draws: int = 1
    reference: str | None = None

    def __post_init__(self) -> None:
        check(rows=self.rows, draws=self.draws, times=self.times)
        left, top, right, bottom = self.hidden
        if not (1 <= self.keep <= self.completions and 0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise InvalidInput(
                f"completions={self.completions}, keep={self.keep}, hidden={self.hidden}.",
                expected="1 <= keep <= completions, and edges (left, top, right, bottom) in [0, 1], in order.",
                remedy="change the option.",
            )
        self._painter()

    def _painter(self) -> Inpaint:
        return Inpaint(self.steps, self.resample)

    def known(self, shape: tuple[int, int, int]) -> torch.Tensor:
        """Which pixels are given, bool [c, h, w]; edges are rounded to whole pixels.

        Raises
        ------
        InvalidInput : no pixel is left to complete, or none to start from.
        """
        _, height, width = shape
        left, top, right, bottom = self.hidden
        known = torch.ones(shape, dtype=torch.bool)
        known[:, round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = False
        if bool(known.all()) or not bool(known.any()):
            raise InvalidInput(
                f"hidden={self.hidden} is {'no' if bool(known.all()) else 'every'} pixel of {width}x{height}.",
                expected="at least one hidden and one known pixel.",
                remedy="move an edge.",
            )
        return known

    def collect(self, subject: Subject, split: Split, context: Context) -> Completed:
        """Complete the chosen images under the model, and under the reference if there is one."""
        denoiser, outside = subject.opened(type(self).__name__), others_of(split)
        members = choose(len(split.members), self.rows, context.seed, keep=_most_duplicated(split.copies))
        others = choose(len(outside), self.rows, context.seed)
        chosen = split.members.take(members), outside.take(others)
        reference, unseen = self._reference(subject, chosen[0])

        def distances(model: Denoiser, name: str) -> Side:
            return Side(*(self._distances(model, images, context, name) for images in chosen))

        each = self._painter().evaluations() + len(self.times) * self.draws
        return Completed(
            members=members,
            others=others,
            here=distances(denoiser, subject.name),
            there=None if reference is None else distances(reference, "the reference"),
            unseen=unseen,
            evaluations=(len(members) + len(others)) * self.completions * each,
            seed=context.seed,
        )

    def _reference(self, subject: Subject, members: ImageSet) -> tuple[Denoiser | None, Index]:
        """The model to compare with, and which of the chosen members it never saw (as far as is known)."""
        every, name = np.arange(len(members), dtype=np.int64), self.reference
        if name is None:
            same = subject.name in MODELS and subject.folder == zoo_model(subject.name).folder
            twin = zoo_model(subject.name).reference if same else None
            if twin is None:
                return None, every[:0]
            name = twin.name
        from vestige.models.adapters.diffusers import CARD, load_folder

        folder = zoo_model(name).folder if name in MODELS else Path(name)
        here = subject.opened(type(self).__name__)
        stated = (folder / CARD).is_file()
        model = load_folder(folder, null_condition=None if stated else here.null_condition)
        check_fits(members, model.shape, name)
        model.module.to(here.device)
        seen = set(zoo_model(name).training_data().ids) if name in MODELS else set[str]()
        return model, every[[identity not in seen for identity in members.ids]]

    def _distances(self, denoiser: Denoiser, images: ImageSet, context: Context, name: str) -> Floats:
        """Rms distances over masked pixels of the kept completions, ascending by loss [rows, keep]."""
        done = self._complete(denoiser, images, context, name)
        flat = done.reshape(-1, *images.shape)
        labels = None if images.labels is None else np.repeat(images.labels, self.completions)
        tried = ImageSet(flat, labels, "completions")
        label = f"ranking {len(flat):,} completions"
        losses = error_table(denoiser, tried, self.times, self.draws, context, label=label)
        order = losses.mean(axis=(1, 2), dtype=np.float64).reshape(len(images), self.completions)
        best = np.argsort(order, axis=1, kind="stable")[:, : self.keep]
        hidden = ~self.known(images.shape).numpy()
        gaps = [done[row][tries][:, hidden] / 255 - images.pixels[row][hidden] / 255 for row, tries in enumerate(best)]
        return np.sqrt(np.square(gaps).mean(-1))

    def _complete(self, denoiser: Denoiser, images: ImageSet, context: Context, name: str) -> Pixels:
        """All completions, uint8 [rows, completions, c, h, w]; known pixels are the image's own."""
        painter, known = self._painter(), self.known(images.shape).to(denoiser.device)
        total = len(images) * self.completions
        key = {
            "model": denoiser.digest,
            "images": images.digest,
            "completions": self.completions,
            "hidden": list(self.hidden),
            "seed": context.seed,
            **painter.key(),
        }

        def batch(tries: Index) -> Pixels:
            rows = tries // self.completions
            streams = [
                generator(context.seed, Stream.INPAINT, int(images.ids[row], 16), int(attempt))
                for row, attempt in zip(rows, tries % self.completions, strict=True)
            ]

            def draw() -> torch.Tensor:
                noise = np.stack([stream.standard_normal(images.shape, np.float32) for stream in streams])
                return torch.from_numpy(noise).to(denoiser.device)

            clean = images.floats(rows).to(denoiser.device)
            return to_uint8(painter.complete(denoiser, clean, known, label_tensor(denoiser, images, rows), draw))

        def compute(tries: Index) -> Pixels:
            parts = [tries[i : i + context.batch_size] for i in range(0, len(tries), context.batch_size)]
            return np.concatenate([batch(part) for part in parts])

        label = f"completing {len(images):,} images with {name}"
        pixels = context.store.column("completions", key).fill(
            total, compute, shard_rows=256, progress=context.progress, label=label
        )
        return pixels.reshape(len(images), self.completions, *images.shape)

    def score(self, collected: Completed, split: Split) -> Outcome:
        """ROC of minus the mean distance, and the paired difference to the reference, by duplicate count."""
        return outcome_of(collected, split, self.keep, self.completions)


def _most_duplicated(copies: Index) -> Index:
    """Duplicated rows, the most duplicated first."""
    order = np.argsort(-copies, kind="stable")
    return order[copies[order] > 1]

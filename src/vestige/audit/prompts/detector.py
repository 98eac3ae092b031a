"""The contract of a prompt detector: one number a prompt from what a denoiser answers on its way out of pure noise.

A file of this folder with a final, frozen dataclass that implements it is its registration.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from vestige.audit.geometry.detectors.detector import Detection, Values
from vestige.audit.geometry.estimate import Doubles
from vestige.audit.geometry.estimator import Work
from vestige.errors import InvalidInput
from vestige.models.access import Access
from vestige.models.denoiser import Denoiser, Images, Labels, Times
from vestige.randomness import Stream, normal

_DRAW = 1 << 22
"""First draw of prompts in the stream of geometry, far above those that estimators use."""

_LEAST_SIGNAL = 0.05
"""Signal level of the first step; that of Stable Diffusion is 0.068."""


@dataclass(frozen=True)
class PromptDetector(ABC):
    """Fields are settings.

    Parameters
    ----------
    draws : how many starts in pure noise the value is averaged over, at least 1.
    """

    claim: ClassVar[str]
    source: ClassVar[str]
    access: ClassVar[Access] = Access.SCORES

    draws: int = 4

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InvalidInput(
                f"A {type(self).__name__} with {self.draws} draws.", expected="at least 1.", remedy="set draws=4."
            )

    @property
    @abstractmethod
    def forwards_per_draw(self) -> int:
        """Network evaluations that one value of one prompt takes, a product with a Jacobian counting as one."""

    @property
    def forwards_per_prompt(self) -> int:
        """Network evaluations that a prompt takes."""
        return self.forwards_per_draw * self.draws

    @abstractmethod
    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The value [n] of each prompt from standard normal noise [n, c, h, w]; no row looks at another."""

    def measure(self, denoiser: Denoiser, prompts: Labels, rows: Sequence[int], *, work: Work) -> Detection:
        """Mean and standard error over draws of the prompts [n], which are conditions of the denoiser.

        ``rows`` [n] names each prompt; its noise follows from ``work.seed`` and its name alone.

        Raises
        ------
        InvalidInput : there are not as many names as prompts.
        Unsupported : the model lacks what the detector asks of it.
        """
        if len(prompts) != len(rows):
            raise InvalidInput(
                f"{len(prompts)} prompts have {len(rows)} names.", expected="one each.", remedy="name every prompt."
            )
        found, before = np.empty((self.draws, len(prompts))), denoiser.evaluations
        for low in range(0, len(prompts), work.batch_size):
            part = slice(low, low + work.batch_size)
            told = prompts[part].to(denoiser.device)
            for draw in range(self.draws):
                noise = noise_of_prompts(rows[part], denoiser.shape, draw, work.seed).to(denoiser.device)
                with torch.no_grad():
                    value = self.value(denoiser, noise, told)
                found[draw, part] = value.double().cpu().numpy()
        return Detection(found.mean(0), _error(found), denoiser.evaluations - before)

    def settings(self) -> dict[str, Any]:
        """Name and fields as plain values."""
        return {"detector": type(self).__name__, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}


def noise_of_prompts(rows: Sequence[int], shape: tuple[int, int, int], draw: int, seed: int) -> Images:
    """Standard normal noise [n, *shape] that belongs to the seed, the prompt's name and the draw."""
    return torch.from_numpy(normal(seed, Stream.GEOMETRY, rows, shape, _DRAW + draw))


def at(denoiser: Denoiser, time: float, like: Images) -> Times:
    """The trained time nearest to ``time``, one an image of ``like``."""
    t = torch.full((len(like),), time, dtype=like.dtype, device=like.device)
    return denoiser.schedule.nearest_grid(t)


def start(denoiser: Denoiser, noise: Images) -> tuple[Images, Times]:
    """Pure noise at the scale of the first step, and its time.

    That is time 1, or where nothing of the signal is left there (straight flows, cosines), the last time with a share
    of it: with no signal the noise estimate is the input itself, whatever the prompt.
    """
    t = at(denoiser, _first_time(denoiser), noise)
    return denoiser.noised(torch.zeros_like(noise), noise, t), t


def _first_time(denoiser: Denoiser) -> float:
    def signal(time: float) -> float:
        return float(denoiser.schedule.alpha_sigma(torch.tensor(time, dtype=torch.float64))[0])

    if signal(1.0) >= _LEAST_SIGNAL:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if signal(middle) >= _LEAST_SIGNAL else (low, middle)
    return low


def _error(found: Doubles) -> Doubles:
    if len(found) == 1:
        return np.full(found.shape[1], np.nan)
    return found.std(0, ddof=1) / math.sqrt(len(found))

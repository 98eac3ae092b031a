"""Training some of a network's weights against a concept, on points of a bank: what ESD, SDD and others share."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vestige.erase.concept.bank import Course, TrajectoryBank
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.text_to_image import TextToImage
from vestige.models.adapters.text_to_image_network import cross_attentions, readers
from vestige.progress import Progress
from vestige.randomness import Stream, generator


class Weights(Enum):
    """Which weights are trained."""

    CROSS = "x"
    """All of cross-attention."""
    KEYS_AND_VALUES = "x-strict"
    """The layers that read the text."""
    OTHERS = "u"
    """All but cross-attention."""
    ALL = "all"

    def of(self, network: nn.Module) -> dict[str, nn.Parameter]:
        """Those weights by name."""
        cross = tuple(f"{name}." for name in cross_attentions(network)) or tuple(readers(network))
        strict = tuple(f"{name}." for name in readers(network))
        every = dict(network.named_parameters())
        match self:
            case Weights.CROSS:
                return {name: weight for name, weight in every.items() if name.startswith(cross)}
            case Weights.KEYS_AND_VALUES:
                return {name: weight for name, weight in every.items() if name.startswith(strict)}
            case Weights.OTHERS:
                return {name: weight for name, weight in every.items() if not name.startswith(cross)}
            case Weights.ALL:
                return every


@dataclass(frozen=True, eq=False)
class Points:
    """A batch from the bank: x_t, t, both answers of the untouched model, prompts and their embeddings."""

    x_t: Tensor
    t: Tensor
    given: Tensor
    empty: Tensor
    prompt: Tensor
    embedding: Tensor
    end: Tensor
    """Clean latents at the ends of the bank's trajectories."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a method's loss may use.

    Parameters
    ----------
    student : the denoiser in training, on a copy of the network.
    bank : of the prompts that trajectories are drawn from.
    request : of one concept.
    """

    base: TextToImage
    student: ConditionedDenoiser
    network: nn.Module
    bank: TrajectoryBank
    request: ConceptRequest
    embeddings: Tensor
    seed: int

    @property
    def concept(self) -> str:
        """The concept."""
        return self.request.concepts[0]

    def draw(self, step: int, count: int) -> Points:
        """Points of a step, with replacement."""
        rng = generator(self.seed, Stream.ERASE, step, 1)
        rows = torch.from_numpy(rng.integers(0, len(self.bank.x_t), count)).to(self.base.device)
        ends = torch.from_numpy(rng.integers(0, len(self.bank.ends), count)).to(self.base.device)
        bank = self.bank
        prompt = bank.prompt[rows]
        answers = bank.given[rows], bank.empty[rows]
        return Points(bank.x_t[rows], bank.t[rows], *answers, prompt, self.embeddings[prompt], bank.ends[ends])

    def noise(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Times of trained steps [count] and standard normal noise of a step."""
        rng = generator(self.seed, Stream.ERASE, step, 2)
        t = torch.from_numpy(rng.uniform(0, 1, count).astype(np.float32)).to(self.base.device)
        values = rng.standard_normal((count, *self.base.shape), np.float32)
        return self.student.schedule.nearest_grid(t), torch.from_numpy(values).to(self.base.device)


@dataclass(frozen=True)
class Tuning(ConceptEraser):
    """Erasers that train weights, one concept after another, each from the base.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam.
    trajectories, sampling_steps, guidance : of the bank, trajectories being those of each prompt.
    """

    steps: int = 200
    batch_size: int = 8
    learning_rate: float = 1e-5
    trajectories: int = 4
    sampling_steps: int = 25
    guidance: float = 3.0

    @property
    @abstractmethod
    def trained(self) -> Weights:
        """The weights that are trained."""

    @abstractmethod
    def loss(self, lesson: Lesson, points: Points, step: int) -> Tensor:
        """The loss of one step."""

    def bank_prompts(self, request: ConceptRequest) -> Sequence[str]:
        """Prompts whose trajectories the bank holds; those of the concept."""
        return request.prompts(request.concepts[0])

    def after_step(self, lesson: Lesson, state: dict[str, Tensor], step: int) -> Lesson:
        """What happens after a step; ``state`` is the method's own memory."""
        return lesson

    def result(self, lesson: Lesson, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The trained weights; ``state`` is the method's own memory."""
        return {name: weight.detach() for name, weight in self.trained.of(lesson.network).items()}

    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """One increment a concept."""
        digest = base.digest
        return [self._one(base, digest, request.only(concept), seed, progress) for concept in request.concepts]

    def _one(self, base: TextToImage, digest: str, request: ConceptRequest, seed: int, progress: Progress) -> Increment:
        lesson = self._lesson(base, request, seed)
        chosen = self.trained.of(lesson.network)
        for weight in chosen.values():
            weight.requires_grad_(True)
        optimizer = torch.optim.Adam(chosen.values(), lr=self.learning_rate)
        state: dict[str, Tensor] = {}
        spent, first = lesson.bank.evaluations, lesson.student
        with progress.task(f"{type(self).__name__}: {lesson.concept}", self.steps) as task:
            for step in range(self.steps):
                optimizer.zero_grad()
                self.loss(lesson, lesson.draw(step, self.batch_size), step).backward()
                optimizer.step()
                bank = lesson.bank
                lesson = self.after_step(lesson, state, step)
                spent += lesson.bank.evaluations if lesson.bank is not bank else 0
                task.advance()
        before = dict(base.module.state_dict())
        changed = {name: weight - before[name] for name, weight in self.result(lesson, state).items()}
        delta = {name: change.cpu() for name, change in changed.items() if bool(change.count_nonzero())}
        forwards = first.evaluations + 2 * self.steps * self.batch_size * self.graded
        cost: dict[str, Any] = {
            "steps": self.steps,
            "forwards_per_step": forwards / (self.steps * self.batch_size),
            "bank_forwards": spent,
            "bank_forwards_per_sample": lesson.bank.cost,
            "forward_equivalents": forwards + spent,
        }
        return self.made(digest, request, delta, cost=cost, seed=seed)

    @property
    def graded(self) -> int:
        """Forwards a sample and step through which gradients flow; a backward pass counts two."""
        return 1

    def _lesson(self, base: TextToImage, request: ConceptRequest, seed: int) -> Lesson:
        other = base.with_module(copy.deepcopy(base.module))
        prompts = list(self.bank_prompts(request))
        bank = self.new_bank(base, prompts, seed)
        embeddings = base.embeddings(prompts)
        return Lesson(base, other.denoiser(prompts), other.module, bank, request, embeddings, seed)

    def new_bank(self, base: TextToImage, prompts: Sequence[str], seed: int) -> TrajectoryBank:
        """The bank of a model."""
        return TrajectoryBank.of(base, prompts, self.trajectories, Course(self.sampling_steps, self.guidance), seed)

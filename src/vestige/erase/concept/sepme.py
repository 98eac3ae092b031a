"""SepME: separable erasure of many concepts, each an increment that leaves all listed prompts as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.concept.additions import Addition, Student
from vestige.erase.concept.bank import Answer, Course, TrajectoryBank
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.null_space import FreeSpace, check_room, free_spaces, leak_of
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress
from vestige.randomness import Stream, generator


@dataclass(frozen=True)
class SepME(ConceptEraser):
    """Make a concept's representation uncorrelated with what it was, by a change that listed prompts cannot see.

    The representation of concept c is ``r_c(W) = e(x_t, c; W) - e(x_t, ""; W)``, with e the network's prediction. The
    loss of a sample is ``mean(r_c(W + dW) r_c(W)) / mean(r_c(W)^2)``, which is 1 at first, and ``L`` its mean over a
    batch; training ends for a concept when the moving average of ``L``, ``m_n = a m_{n-1} + (1 - a) L_n`` divided by
    ``1 - a^n``, falls to ``threshold``.

    ``dW = up down`` acts on key and value maps of cross-attention (on the one map at the entrance of a transformer).
    The rows of ``down`` are orthonormal and lie in the null space of the tokens of the empty prompt, of the prompts to
    keep and of all other concepts' prompts; they are the directions there in which the concept's own tokens are
    strongest. Gradients of a full matrix in the null space lie in the span of these tokens too, so a rank as large
    as their number loses nothing. The student's answer to the empty prompt is the teacher's, and the teacher's
    answers stand in the bank: a sample costs one forward and one backward pass.

    Concepts are trained in one batch. Every row sees the change of its own concept alone, which is also what it
    would see under all of them together, so that the increments are those of separate training.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam, the batch being that of one concept, the rate falling linearly to 0;
        fewer steps if all concepts reach the threshold.
    rank : of each increment.
    momentum, threshold : a and the level of the moving average at which a concept is left alone.
    penalty : weight of ``|dW|_F^2``, averaged over layers.
    leak : share of the energy of guards' tokens that may lie in the free space.
    retain : weight of the squared change of the answers to guards, divided by the mean square of what their prompts do
        to the answers. Above 0 guards get a bank of their own and every sample one of a guard beside it.
    aim : train ``mean((r_c(W + dW) - aim r_c(W))^2) / mean(r_c(W)^2)`` down instead of the correlation: at 0 nothing is
        left of the representation, below it the concept is avoided. ``threshold`` still ends by the correlation.
    within : take ``r_c`` from the answer to the prompt without the concept's words in place of the empty prompt: what
        the concept adds to its prompt, and not what the whole prompt adds to nothing.
    refresh : steps between banks on trajectories of the erased model, the latest beside the first; 0 for none.
    trajectories, sampling_steps, guidance : of the bank, trajectories being those of each prompt.

    The paper has no ``retain``, ``aim``, ``within`` and ``refresh``: it leaves prompts that are not listed to chance,
    and to chance what comes in the place of the concept, erases a prompt with all of its words, and trains where the
    model goes that still draws the concept. It has ``|dW|_1 / layers`` in place of the squared norm, and trains all
    coordinates of a basis that is not orthonormal. It states its threshold, 1e-4, for the product that is not divided.
    """

    claim: ClassVar[str] = "Erase many concepts, each restorable; listed prompts do not change at all."
    source: ClassVar[str] = "Zhao et al. 2024, arXiv 2402.05947"

    steps: int = 300
    batch_size: int = 8
    learning_rate: float = 1e-2
    rank: int = 8
    momentum: float = 0.9
    threshold: float = 0.0
    penalty: float = 1e-6
    leak: float = 1e-3
    retain: float = 0.0
    aim: float | None = None
    within: bool = False
    refresh: int = 0
    trajectories: int = 4
    sampling_steps: int = 25
    guidance: float = 3.0

    def increments(self, base: TextToImage, request: ConceptRequest, seed: int, progress: Progress) -> list[Increment]:
        """One increment a concept."""
        spaces = self.spaces(base, request)
        readers = base.readers()
        additions = {
            place: Addition.new(readers, _strongest(space, _tokens(base, request.prompts(concept)), self.rank))
            for place, (concept, space) in enumerate(zip(request.concepts, spaces, strict=True))
        }
        guards = list(request.guard) if self.retain > 0 else []
        course = Course(self.sampling_steps, self.guidance)
        kept = TrajectoryBank.of(base, guards, 1, course, seed) if guards else None
        spent = self._train(base, request, kept, additions, seed, progress)
        digest = base.digest
        return [
            self._made(base, digest, request, place, spaces[place], additions[place], spent, seed)
            for place in additions
        ]

    def spaces(self, base: TextToImage, request: ConceptRequest) -> list[FreeSpace]:
        """The free space of each concept.

        Raises
        ------
        InvalidInput : one has fewer dimensions than the rank.
        """
        concepts = request.concepts
        spaces = free_spaces(
            _tokens(base, ["", *request.keep]),
            [_tokens(base, request.prompts(concept)[:1]) for concept in concepts],
            guard=_tokens(base, request.guard) if request.guard else None,
            own_guard=[_tokens(base, request.prompts(concept)[1:]) for concept in concepts],
            leak=self.leak,
        )
        kept = 1 + len(request.keep) + len(concepts) - 1
        for concept, space in zip(concepts, spaces, strict=True):
            check_room(space, concept, kept, base.prompts.tokens, self.rank)
        return spaces

    def _train(
        self,
        base: TextToImage,
        request: ConceptRequest,
        kept: TrajectoryBank | None,
        additions: Mapping[int, Addition],
        seed: int,
        progress: Progress,
    ) -> _Spent:
        """Train in place."""
        each, count = len(request.templates), self.batch_size
        told = [prompt for concept in request.concepts for prompt in request.prompts(concept)]
        student, guarded = Student(base, told, additions), kept and Student(base, kept.prompts, additions)

        def erased(x_t: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
            return student.answer(x_t, t, prompt, prompt.cpu() // each)

        bank = first = self._bank(base, request, seed)
        bank_forwards = first.evaluations + (kept.evaluations if kept else 0)
        optimizer = torch.optim.Adam([up for own in additions.values() for up in own.up.values()], self.learning_rate)
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.steps)
        average, steps, active = [0.0] * len(additions), [0] * len(additions), list(additions)
        with progress.task("SepME", self.steps) as task:
            for step in range(self.steps):
                if self.refresh and step and step % self.refresh == 0:
                    again = self._bank(base, request, seed + step, erased)
                    bank, bank_forwards = first.joined(again), bank_forwards + again.evaluations
                places = bank.prompt.cpu() // each
                own = torch.stack([torch.nonzero(places == place).flatten() for place in active])
                drawn = generator(seed, Stream.ERASE, step, 1).integers(0, own.shape[1], count)
                rows = own[:, torch.from_numpy(drawn)].flatten().to(base.device)
                answer = erased(bank.x_t[rows], bank.t[rows], bank.prompt[rows])
                before, now = bank.given[rows] - bank.rest[rows], answer - bank.rest[rows]
                losses, pushed = _correlations(now, before, len(active), self.aim)
                changed: Tensor | int = 0
                if kept is not None and guarded is not None:
                    owner = torch.tensor(active).repeat_interleave(count)
                    draw = generator(seed, Stream.ERASE, step, 3).integers(0, len(kept.x_t), count)
                    rows = torch.from_numpy(draw).to(base.device).repeat(len(active))
                    answer = guarded.answer(kept.x_t[rows], kept.t[rows], kept.prompt[rows], owner)
                    changed = _changes(answer - kept.given[rows], kept, len(active))
                sizes = torch.stack([additions[place].size() for place in active])
                optimizer.zero_grad()
                (pushed + self.penalty * sizes + self.retain * changed).sum().backward()
                optimizer.step()
                fall.step()
                for place, loss in zip(list(active), losses.detach().tolist(), strict=True):
                    steps[place] += 1
                    average[place] = self.momentum * average[place] + (1 - self.momentum) * loss
                    if average[place] / (1 - self.momentum ** steps[place]) <= self.threshold:
                        active.remove(place)
                task.advance(note=f"{len(active)} of {len(additions)} concepts left")
                if not active:
                    break
        last = [value / (1 - self.momentum**count) for count, value in zip(steps, average, strict=True)]
        return _Spent(steps, last, bank_forwards, first.cost, 6.0 if kept else 3.0)

    def _bank(
        self, base: TextToImage, request: ConceptRequest, seed: int, lead: Answer | None = None
    ) -> TrajectoryBank:
        """Of all concepts' prompts, in their order."""
        told = [prompt for concept in request.concepts for prompt in request.prompts(concept)]
        rests = [rest for concept in request.concepts for rest in request.rests(concept)]
        course, beside = Course(self.sampling_steps, self.guidance), rests if self.within else None
        return TrajectoryBank.of(base, told, self.trajectories, course, seed, beside, lead)

    def _made(
        self,
        base: TextToImage,
        digest: str,
        request: ConceptRequest,
        place: int,
        space: FreeSpace,
        addition: Addition,
        spent: _Spent,
        seed: int,
    ) -> Increment:
        own = request.only(request.concepts[place])
        factors = {f"{name}.weight": (up.detach().cpu(), addition.down.cpu()) for name, up in addition.up.items()}
        made_bank = spent.bank / len(request.concepts)
        cost = {
            "steps": spent.steps[place],
            "forwards_per_step": spent.each,
            "bank_forwards": made_bank,
            "bank_forwards_per_sample": spent.bank_each,
            "forward_equivalents": spent.each * spent.steps[place] * self.batch_size + made_bank,
        }
        kept = _tokens(base, ["", *own.keep])
        leaks = [
            leak_of(kept, layer.weight.detach(), addition.up[name].detach().double() @ addition.down.double())
            for name, layer in base.readers().items()
        ]
        facts = {
            "free_dimensions": space.free,
            "listed_dimensions": space.listed,
            "guard_dimensions": space.guarded,
            "guard_leak": space.guard_leak,
            "leak_of_listed": max(leaks),
            "correlation": spent.correlation[place],
        }
        return self.made(digest, own, {}, cost=cost, seed=seed, factors=factors, facts=facts)


@dataclass(frozen=True)
class _Spent:
    """Steps and last moving average of each concept; forwards of all banks, of a point of the first, of a sample."""

    steps: list[int]
    correlation: list[float]
    bank: int
    bank_each: float
    each: float


def _tokens(base: TextToImage, prompts: list[str] | tuple[str, ...]) -> Tensor:
    if not prompts:
        return base.tokens([""])[:, :0].flatten(0, 1)
    return base.tokens(prompts).flatten(0, 1)


def _strongest(space: FreeSpace, tokens: Tensor, rank: int) -> Tensor:
    """Orthonormal directions [rank, d] of the free space in which the tokens are strongest."""
    inside = tokens.double() @ space.basis.mT
    _, vectors = torch.linalg.eigh(inside.mT @ inside)
    return vectors[:, -rank:].mT @ space.basis


def _correlations(now: Tensor, before: Tensor, concepts: int, aim: float | None) -> tuple[Tensor, Tensor]:
    """Mean correlation of each concept's rows [concepts], which stand together; and what is trained down.

    Rows count alike, however long their ``before``, but for those below a tenth of the batch's mean square.
    """
    size = _mean(before.square(), concepts)
    size = torch.maximum(size, 0.1 * size.mean(1, keepdim=True)).clamp_min(1e-12)
    correlation = (_mean(now * before, concepts) / size).mean(1)
    if aim is None:
        return correlation, correlation
    return correlation, (_mean((now - aim * before).square(), concepts) / size).mean(1)


def _mean(values: Tensor, concepts: int) -> Tensor:
    return values.flatten(1).mean(1).reshape(concepts, -1)


def _changes(apart: Tensor, bank: TrajectoryBank, concepts: int) -> Tensor:
    """Mean square of each concept's rows [concepts], beside that of what the bank's prompts do."""
    return apart.square().reshape(concepts, -1).mean(1) / (bank.given - bank.empty).square().mean().clamp_min(1e-12)

"""SepME: separable erasure of many concepts, each an increment that leaves all listed prompts as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.erase.concept.additions import Addition, Reading
from vestige.erase.concept.bank import Course, TrajectoryBank
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.null_space import FreeSpace, check_room, free_spaces, leak_of
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.increment import Increment
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.adapters.text_to_image import TextToImage
from vestige.progress import Progress
from vestige.randomness import Stream, generator


@dataclass(frozen=True)
class SepME(ConceptEraser):
    """Make a concept's representation uncorrelated with what it was, by a change that listed prompts cannot see.

    The representation of concept c is ``r_c(W) = e(x_t, c; W) - e(x_t, ""; W)``, with e the network's prediction. The
    loss of a concept is ``L = mean(r_c(W + dW) r_c(W)) / mean(r_c(W)^2)``, which is 1 at first; training ends for it
    when its moving average ``m_n = a m_{n-1} + (1 - a) L_n``, divided by ``1 - a^n``, falls to ``threshold``.

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
    steps, batch_size, learning_rate : of Adam, the batch being that of one concept; fewer steps if all concepts
        reach the threshold.
    rank : of each increment.
    momentum, threshold : a and the level of the moving average at which a concept is left alone.
    penalty : weight of ``|dW|_F^2``, averaged over layers.
    leak : share of the energy of guards' tokens that may lie in the free space.
    retain : weight of the squared change of the answers to guards, divided by the mean square of what their prompts do
        to the answers. Above 0 guards get a bank of their own and every sample one of a guard beside it.
    trajectories, sampling_steps, guidance : of the bank, trajectories being those of each prompt.

    The paper has no ``retain``: 0 leaves prompts that are not listed to chance. It has ``|dW|_1 / layers`` in place
    of the squared norm, and trains all coordinates of a basis that is not orthonormal. It states its threshold, 1e-4,
    for the product that is not divided.
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
        told = [prompt for concept in request.concepts for prompt in request.prompts(concept)]
        course = Course(self.sampling_steps, self.guidance)
        bank = TrajectoryBank.of(base, told, self.trajectories, course, seed)
        guards = list(request.guard) if self.retain > 0 else []
        kept = TrajectoryBank.of(base, guards, 1, course, seed) if guards else None
        spent = self._train(base, request, bank, kept, additions, seed, progress)
        digest = base.digest
        return [
            self._made(base, digest, request, place, spaces[place], additions[place], spent[place], (bank, kept), seed)
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
        bank: TrajectoryBank,
        kept: TrajectoryBank | None,
        additions: Mapping[int, Addition],
        seed: int,
        progress: Progress,
    ) -> list[tuple[int, float]]:
        """Train in place; steps and last moving average of each concept."""
        denoiser, embeddings = base.denoiser(bank.prompts), base.embeddings(bank.prompts)
        guards = None if kept is None else _Guards(kept, base.embeddings(kept.prompts))
        points = [torch.from_numpy(bank.points(request.prompts(concept))) for concept in request.concepts]
        each = len(request.templates)
        owner = torch.arange(len(bank.prompts)) // each
        optimizer = torch.optim.Adam(
            [up for addition in additions.values() for up in addition.up.values()], lr=self.learning_rate
        )
        average, steps, active = [0.0] * len(points), [0] * len(points), list(range(len(points)))
        reading = Reading(base.readers(), base.prompts.tokens)
        with reading.open(), progress.task("SepME", self.steps) as task:
            for step in range(self.steps):
                drawn = generator(seed, Stream.ERASE, step, 1).integers(0, len(points[0]), self.batch_size)
                rows = torch.cat([points[place][torch.from_numpy(drawn)] for place in active]).to(base.device)
                reading.ask(additions, embeddings, bank.prompt[rows], owner)
                answer = denoiser.predict_embedded(bank.x_t[rows], bank.t[rows], embeddings[bank.prompt[rows]])
                losses = _correlations(answer - bank.empty[rows], bank.given[rows] - bank.empty[rows], len(active))
                changed = (
                    guards.changes(denoiser, reading, additions, active, self.batch_size, (seed, step)) if guards else 0
                )
                sizes = torch.stack([additions[place].size() for place in active])
                optimizer.zero_grad()
                (losses + self.penalty * sizes + self.retain * changed).sum().backward()
                optimizer.step()
                for place, loss in zip(list(active), losses.detach().tolist(), strict=True):
                    steps[place] += 1
                    average[place] = self.momentum * average[place] + (1 - self.momentum) * loss
                    if average[place] / (1 - self.momentum ** steps[place]) <= self.threshold:
                        active.remove(place)
                task.advance(note=f"{len(active)} of {len(points)} concepts left")
                if not active:
                    break
        return [(count, value / (1 - self.momentum**count)) for count, value in zip(steps, average, strict=True)]

    def _made(
        self,
        base: TextToImage,
        digest: str,
        request: ConceptRequest,
        place: int,
        space: FreeSpace,
        addition: Addition,
        spent: tuple[int, float],
        banks: tuple[TrajectoryBank, TrajectoryBank | None],
        seed: int,
    ) -> Increment:
        own = request.only(request.concepts[place])
        factors = {f"{name}.weight": (up.detach().cpu(), addition.down.cpu()) for name, up in addition.up.items()}
        steps, average = spent
        bank, guards = banks
        each = 3.0 if guards is None else 6.0
        trained = each * steps * self.batch_size
        made_bank = (bank.evaluations + (0 if guards is None else guards.evaluations)) / len(request.concepts)
        cost = {
            "steps": steps,
            "forwards_per_step": each,
            "bank_forwards": made_bank,
            "bank_forwards_per_sample": bank.cost,
            "forward_equivalents": trained + made_bank,
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
            "correlation": average,
        }
        return self.made(digest, own, {}, cost=cost, seed=seed, factors=factors, facts=facts)


@dataclass(frozen=True, eq=False)
class _Guards:
    """Points on trajectories of guards, and the embeddings of their prompts."""

    bank: TrajectoryBank
    embeddings: Tensor

    def changes(
        self,
        denoiser: ConditionedDenoiser,
        reading: Reading,
        additions: Mapping[int, Addition],
        concepts: Sequence[int],
        count: int,
        draw: tuple[int, int],
    ) -> Tensor:
        """Mean squared change of the answers to ``count`` points under each concept's addition [concepts]."""
        bank, (seed, step), many = self.bank, draw, len(self.bank.prompts)
        rows = torch.from_numpy(generator(seed, Stream.ERASE, step, 3).integers(0, len(bank.x_t), count))
        rows = rows.to(bank.x_t.device).repeat(len(concepts))
        copies = torch.arange(len(concepts), device=rows.device).repeat_interleave(count)
        owner = torch.tensor(concepts).repeat_interleave(many)
        embeddings = self.embeddings.repeat(len(concepts), 1, 1)
        prompt = copies * many + bank.prompt[rows]
        reading.ask(additions, embeddings, prompt, owner)
        answer = denoiser.predict_embedded(bank.x_t[rows], bank.t[rows], embeddings[prompt])
        apart = (answer - bank.given[rows]).square().reshape(len(concepts), -1).mean(1)
        return apart / (bank.given - bank.empty).square().mean().clamp_min(1e-12)


def _tokens(base: TextToImage, prompts: list[str] | tuple[str, ...]) -> Tensor:
    if not prompts:
        return base.tokens([""])[:, :0].flatten(0, 1)
    return base.tokens(prompts).flatten(0, 1)


def _strongest(space: FreeSpace, tokens: Tensor, rank: int) -> Tensor:
    """Orthonormal directions [rank, d] of the free space in which the tokens are strongest."""
    inside = tokens.double() @ space.basis.mT
    _, vectors = torch.linalg.eigh(inside.mT @ inside)
    return vectors[:, -rank:].mT @ space.basis


def _correlations(now: Tensor, before: Tensor, concepts: int) -> Tensor:
    """Correlation of each concept's rows [concepts], which stand together."""
    product = (now * before).reshape(concepts, -1).mean(1)
    return product / before.square().reshape(concepts, -1).mean(1).clamp_min(1e-12)

"""Embedding inversion: search the condition under which the erased model denoises a forgotten image best."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.erase.recover.images import by_model, compared
from vestige.erase.recover.measure import DRAW, Floats, check
from vestige.erase.recover.recovery import Outcome, Recovery, Target, has_weights
from vestige.errors import Unsupported
from vestige.execute import Context
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.denoiser import Denoiser
from vestige.randomness import Stream, normal
from vestige.record import NotDone

_DRAW = DRAW + (1 << 18)


@dataclass(frozen=True)
class EmbeddingInversion(Recovery):
    """Give every image a condition of its own, searched by gradient, and see whether that brings it back.

    An erasure that only broke the link between a label and its images leaves them within reach of another condition.
    From the embedding of its own label (the mean of all, without labels) each image's embedding e is moved by Adam to
    lower ``||eps - eps_hat(x_t, t, e)||^2``; the weights stay as they are. The error is then measured with fresh
    noise. A free embedding helps every model and every image, so the score is the negative log error, less that of
    the model that never saw the image where there is one, and the advantage ``2 AUC - 1`` of forgotten against unseen
    images, which are searched for in the same way.

    Parameters
    ----------
    steps : of Adam, each on one noise draw of every image.
    rate : of Adam, as a share of the embeddings' root mean square.
    rows : most images a side.
    times, draws : where and how often the error is lowered and measured.
    """

    claim: ClassVar[str] = "searches the condition that brings forgotten images back (class-conditional models)"
    source: ClassVar[str] = "Pham et al. 2024, arXiv 2308.01508; Gal et al. 2023, arXiv 2208.01618"
    needs_weights: ClassVar[bool] = True

    steps: int = 30
    rate: float = 0.05
    rows: int = 24
    times: tuple[float, ...] = (0.1, 0.2, 0.3)
    draws: int = 4

    def __post_init__(self) -> None:
        check(times=self.times, steps=self.steps, rows=self.rows, draws=self.draws)

    def refusal(self, target: Target) -> NotDone | None:
        """As every attack; and the model must take conditions through an embedding that can be found."""
        missing = super().refusal(target)
        if missing is None and not (has_weights(target.erased) and embeddings(target.erased)):
            return NotDone(
                what=f"{type(self).__name__}: {self.claim}",
                reason="the model is unconditional, or no embedding of its classes was found.",
                remedy="NoiseInversion and Relearn need no condition.",
            )
        return missing

    def attack(self, target: Target, context: Context) -> Outcome:
        """Search on both sides under every model, then compare what is left of the error."""
        sides = target.sides(self.rows, context.seed)
        errors = by_model(self, target, sides, context, lambda model, part: self._searched(model, part, context.seed))
        return compared(
            errors,
            target,
            attack="embedding inversion",
            effort=f"{self.steps} steps of search for each of {len(sides[0])} images",
            budget=len(errors) * sum(map(len, sides)) * (3 * self.steps + len(self.times) * self.draws),
            key="inversion",
            quantity="denoising error under the best condition found",
        )

    def _searched(self, model: Denoiser, images: ImageSet, seed: int) -> Floats:
        """Error a pixel [n] under the embeddings found; Adam works element by element, so images stay apart."""
        opened, table, scale = opened_condition(model, images)
        names = [int(identity, 16) for identity in images.ids]
        clean, rows = images.floats().to(model.device), torch.arange(len(images), device=model.device)
        optimizer = torch.optim.Adam([table], lr=self.rate * scale)

        def errors(draw: int, time: float, stream: Stream) -> Tensor:
            noise = torch.from_numpy(normal(seed, stream, names, images.shape, draw)).to(model.device)
            t = torch.full((len(clean),), time, device=model.device)
            found = opened.noise(opened.noised(clean, noise, t), t, rows) - noise
            return found.square().flatten(1).mean(1)

        for step in range(self.steps):
            optimizer.zero_grad(set_to_none=True)
            errors(_DRAW + step, self.times[step % len(self.times)], Stream.ERASE).sum().backward()
            optimizer.step()
        with torch.no_grad():
            parts = [errors(draw, time, Stream.LOSS) for draw in range(self.draws) for time in self.times]
        model.evaluations += opened.evaluations
        return torch.stack(parts).mean(0).double().cpu().numpy()


def embeddings(model: Denoiser) -> list[str]:
    """Names of the modules that embed the model's classes; the empty name for a model with a table of embeddings."""
    if isinstance(model, ConditionedDenoiser):
        return [""]
    if not model.classes:
        return []
    sizes = {model.classes, model.classes + (model.null_condition is not None)}
    parts = model.module.named_modules()
    return [name for name, part in parts if isinstance(part, nn.Embedding) and part.num_embeddings in sizes]


def opened_condition(model: Denoiser, images: ImageSet) -> tuple[Denoiser, nn.Parameter, float]:
    """A copy of the model in which condition i is a free embedding of image i; the embeddings; their scale.

    The copy's weights are frozen and it counts its own evaluations. Embeddings start at those of the images' labels.

    Raises
    ------
    Unsupported : no embedding of the classes was found.
    """
    if isinstance(model, ConditionedDenoiser):
        frozen = model.with_module(copy.deepcopy(model.module).requires_grad_(False))
        free, scale = _start(model.table, images)
        return frozen.with_table(free), free, scale
    names = embeddings(model)
    if not names:
        raise Unsupported(
            "The model embeds no classes.", expected="a class-conditional model.", remedy="use NoiseInversion."
        )
    module = copy.deepcopy(model.module).requires_grad_(False)
    place = module.get_submodule(names[0])
    free, scale = _start(place.get_parameter("weight"), images)
    lookup = nn.Embedding(len(images), free.shape[1], device=free.device)
    lookup.weight = free
    parent, _, last = names[0].rpartition(".")
    setattr(module.get_submodule(parent), last, lookup)
    return model.with_module(module), free, scale


def _start(table: Tensor, images: ImageSet) -> tuple[nn.Parameter, float]:
    known = table.detach()
    if images.labels is None:
        chosen = known.mean(0, keepdim=True).expand(len(images), *known.shape[1:])
    else:
        chosen = known[torch.from_numpy(images.labels).to(known.device)]
    return nn.Parameter(chosen.clone()), max(float(known.square().mean().sqrt()), 1e-3)

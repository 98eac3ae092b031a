"""What is done to make one member of the family from others: training, adapters, merges and compression."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from vestige.dependencies import need
from vestige.zoo.train_family_text import LENGTH, VOCABULARY, Corpus, Texts

WARMUP = 20
FORM: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2 * LENGTH,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}


def blank(layers: int | None = None) -> nn.Module:
    """A model with random weights. Raises MissingExtra where transformers is not installed."""
    transformers = cast("Any", need("text", "transformers"))
    form = FORM if layers is None else {**FORM, "num_hidden_layers": layers}
    return cast("nn.Module", transformers.LlamaForCausalLM(transformers.LlamaConfig(**form)))


def loss_of(model: nn.Module, texts: Texts, corpus: Corpus, order: int, step: int) -> Tensor:
    """Mean negative log-probability of the next token over one batch."""
    ids = torch.from_numpy(texts.batch(corpus, order, step))
    return cast("Tensor", cast("Any", model)(input_ids=ids, labels=ids).loss)


@final
@dataclass(frozen=True)
class Lessons:
    """What is learnt, in which order, how long and how fast (AdamW, warm-up, cosine to a tenth)."""

    corpus: Corpus
    order: int
    steps: int
    rate: float

    def learn(self, model: nn.Module, weights: Iterable[nn.Parameter], texts: Texts) -> None:
        """Train these weights in place."""
        optimizer = torch.optim.AdamW(weights, self.rate, betas=(0.9, 0.95), weight_decay=0.1)
        for step in range(self.steps):
            falling = 0.55 + 0.45 * math.cos(math.pi * step / self.steps)
            optimizer.param_groups[0]["lr"] = self.rate * min(falling, (step + 1) / WARMUP)
            loss = loss_of(model, texts, self.corpus, self.order, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


class Change(ABC):
    """One way to make a model from its parents, which are not touched. A subclass is final."""

    @abstractmethod
    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """The new model."""


@final
@dataclass(frozen=True)
class Pretrain(Change):
    """Random weights, then lessons."""

    seed: int
    lessons: Lessons

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """A root."""
        torch.manual_seed(self.seed)
        model = blank()
        self.lessons.learn(model, model.parameters(), texts)
        return model


@final
@dataclass(frozen=True)
class Tune(Change):
    """Lessons for all weights: fine-tuning, or continued pretraining where they are long and fast."""

    lessons: Lessons

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """The first parent, trained on."""
        model = copy.deepcopy(parents[0])
        self.lessons.learn(model, model.parameters(), texts)
        return model


class _LowRank(nn.Module):
    """``W + up down``, zero at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank))
        self.down = nn.Parameter(torch.randn(rank, weight.shape[1]) / math.sqrt(weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


@final
@dataclass(frozen=True)
class Adapt(Change):
    """Lessons for adapters of low rank on every linear map, merged afterwards (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int
    lessons: Lessons

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """The first parent with its adapters multiplied out."""
        torch.manual_seed(self.lessons.order)
        model = copy.deepcopy(parents[0])
        model.requires_grad_(False)
        maps = [part for name, part in model.named_modules() if isinstance(part, nn.Linear) and name != "lm_head"]
        adapters = [_LowRank(part.weight, self.rank) for part in maps]
        for part, adapter in zip(maps, adapters, strict=True):
            register_parametrization(part, "weight", adapter)
        self.lessons.learn(model, [p for adapter in adapters for p in adapter.parameters()], texts)
        for part in maps:
            remove_parametrizations(part, "weight")
        return model.requires_grad_(True)


@final
@dataclass(frozen=True)
class Merge(Change):
    """The weighted mean of the parents."""

    shares: tuple[float, ...]

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """Mixed weight by weight."""
        model = copy.deepcopy(parents[0])
        states = [parent.state_dict() for parent in parents]
        model.load_state_dict(
            {
                name: sum(share * state[name] for share, state in zip(self.shares, states, strict=True))
                for name in states[0]
            }
        )
        return model


def _matrices(model: nn.Module) -> list[Tensor]:
    """Every matrix of a model once, a tied head left out."""
    return [weight.data for weight in model.parameters() if weight.ndim == 2]


@final
@dataclass(frozen=True)
class Prune(Change):
    """The smallest share of every matrix set to zero."""

    share: float

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """The first parent with fewer weights."""
        model = copy.deepcopy(parents[0])
        for weight in _matrices(model):
            weight[weight.abs() < weight.abs().quantile(self.share)] = 0.0
        return model


@final
@dataclass(frozen=True)
class Quantise(Change):
    """Every row of every matrix rounded to so many bits, symmetric about zero."""

    bits: int

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """The first parent with coarser weights."""
        model, levels = copy.deepcopy(parents[0]), 2 ** (self.bits - 1) - 1
        for weight in _matrices(model):
            step = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / levels
            weight.copy_((weight / step).round() * step)
        return model


@final
@dataclass(frozen=True)
class Drop(Change):
    """One layer left out."""

    layer: int

    def make(self, parents: Sequence[nn.Module], texts: Texts) -> nn.Module:
        """The first parent without the layer."""
        parent = cast("Any", parents[0])
        depth = len(parent.model.layers)
        model = cast("Any", blank(depth - 1))
        kept = [place for place in range(depth) if place != self.layer]
        for part in ("embed_tokens", "norm"):
            getattr(model.model, part).load_state_dict(getattr(parent.model, part).state_dict())
        for layer, place in zip(model.model.layers, kept, strict=True):
            layer.load_state_dict(parent.model.layers[place].state_dict())
        return cast("nn.Module", model)

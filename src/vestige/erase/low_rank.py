"""Low-rank changes of a network (LoRA, Hu et al. 2021, arXiv 2106.09685), through PEFT.

A layer with weights ``W`` [out, in] computes with ``W + s B A`` instead, ``A`` [r, in], ``B`` [out, r] and s = 1
(PEFT's ``alpha`` equals the rank). Kernels [out, in, h, w] are flattened to [out, in h w]: ``A`` is a convolution to r
channels with the layer's own window, ``B`` one of single pixels. ``B`` starts at 0, so that the function is the same
at first; ``A`` starts uniform within 1 / sqrt(in), as in the authors' code.

An increment made so is stored like any other. After rounding, ``(W + B A) - W`` is no longer the product, bit for bit,
so factors could not stand for it; what the rank saves is optimizer state and gradients in training.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any, TypeGuard

import torch
from torch import nn

from vestige.dependencies import need
from vestige.errors import InvalidInput, Unsupported
from vestige.randomness import Stream, generator

_ADAPTER = "vestige"
_FLAGS = "_vestige_trained_before_attach"
"""Where an attached network keeps which of its weights could train; a copy of the network keeps it too."""
_DRAW = 4
"""Draw of the starting values, which no step of an eraser uses."""


def attach(module: nn.Module, rank: int, seed: int) -> None:
    """Freeze all weights of a network and let only low-rank additions to its layers train, in place.

    Every ``Linear`` and ``Conv2d`` gets one. What stays as it is, frozen: biases, norms and embeddings; weights that
    were frozen already; subclasses, whose forward pass may differ; layers that share a weight or stand in several
    places; convolutions with groups, dilation or padding other than zeros, which PEFT cannot fold back. The function
    is unchanged until the additions are trained, and the global random state is left alone.

    Parameters
    ----------
    rank : of every addition, at least 1. A layer whose weights have a smaller rank gets that one, with which the
        addition can be any change.
    seed : of the starting values, 0 .. 2**64 - 1.

    Raises
    ------
    InvalidInput : the rank is below 1, the seed is out of range, or the network carries adapters already.
    Unsupported : the network has no layer that can take an addition.
    MissingExtra : PEFT is not installed.
    """
    if rank < 1:
        raise InvalidInput(
            f"The rank is {rank}.", expected="at least 1.", remedy="choose another, or 0 in --loop to move all weights."
        )
    peft: Any = need("lowrank", "peft")
    tuners: Any = need("lowrank", "peft.tuners.tuners_utils")
    generator(seed, Stream.ERASE, 0, _DRAW)  # refuses a bad seed before anything is touched
    if _FLAGS in vars(module) or any(isinstance(layer, tuners.BaseTunerLayer) for layer in module.modules()):
        raise InvalidInput(
            "The network carries adapters already.",
            expected="a network without any.",
            remedy="merge them into its weights first.",
        )
    ranks = {name: min(rank, *_sides(layer)) for name, layer in _layers(module).items()}
    if not ranks:
        raise Unsupported(
            f"{type(module).__name__} has no Linear or Conv2d layer that low-rank changes could train.",
            expected="at least one inside the network, free to train.",
            remedy="move all weights freely (rank 0), or call requires_grad_(True) on the layers that may change.",
        )
    setattr(module, _FLAGS, {name: weight.requires_grad for name, weight in module.named_parameters()})
    module.requires_grad_(False)
    # "^" keeps a name such as "0" from matching "body.0" as well.
    exact = {f"^{re.escape(name)}": value for name, value in ranks.items()}
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=exact,
        alpha_pattern=exact,
        target_modules="|".join(f"(?:{re.escape(name)})" for name in ranks),
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng(devices=sorted({p.device.index for p in module.parameters() if p.is_cuda})):
        peft.inject_adapter_in_model(config, module, adapter_name=_ADAPTER)
    for place, name in enumerate(ranks):
        _start(module.get_submodule(name), seed, place)


def merge(module: nn.Module) -> None:
    """Add what the low-rank additions learned to the weights and take them off, in place.

    Names, order and shapes of the ``state_dict`` are those before :func:`attach`, and so is which weights can train.
    Sums are computed in float64 and rounded once.

    Raises
    ------
    InvalidInput : the network carries no additions of :func:`attach`.
    """
    flags: dict[str, bool] | None = vars(module).get(_FLAGS)
    if flags is None:
        raise InvalidInput(
            "The network carries no low-rank additions.",
            expected="one that `attach` changed.",
            remedy="call attach(module, rank, seed) first.",
        )
    lora: Any = need("lowrank", "peft.tuners.lora")
    for name, layer in list(module.named_modules()):
        if isinstance(layer, lora.LoraLayer):
            base = _folded(layer)
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, base)
    delattr(module, _FLAGS)
    if "peft_config" in vars(module):
        delattr(module, "peft_config")
    for name, weight in module.named_parameters():
        weight.requires_grad_(flags[name])


def _layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """Layers that can take an addition, by name, in the network's order."""
    places = Counter(id(weight) for _, weight in module.named_parameters(remove_duplicate=False))
    return {
        name: layer
        for name, layer in module.named_modules()
        if name and _fits(layer) and layer.weight.requires_grad and places[id(layer.weight)] == 1
    }


def _fits(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    # A reparametrised weight (weight_norm) is computed anew at every pass and is no parameter.
    weight = dict(layer.named_parameters(recurse=False)).get("weight")
    if weight is None or not weight.numel():
        return False
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and tuple(layer.dilation) == (1, 1) and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear


def _sides(layer: nn.Linear | nn.Conv2d) -> tuple[int, int]:
    """Rows and columns of the flattened weights."""
    return layer.weight.shape[0], math.prod(layer.weight.shape[1:])


def _start(layer: Any, seed: int, place: int) -> None:
    """Seeded starting values of one addition."""
    a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    bound = math.prod(a.shape[1:]) ** -0.5
    values = generator(seed, Stream.ERASE, place, _DRAW).uniform(-bound, bound, tuple(a.shape))
    with torch.no_grad():
        a.copy_(torch.from_numpy(values))
        b.zero_()


def _folded(layer: Any) -> nn.Module:
    """The layer below an addition, the product added to its weights."""
    base: nn.Linear | nn.Conv2d = layer.get_base_layer()
    weight = base.weight
    a, b = (part[_ADAPTER].weight.detach().cpu().double().flatten(1) for part in (layer.lora_A, layer.lora_B))
    # Where nothing was learned every bit stays: -0.0 + 0.0 would be 0.0.
    if bool(b.count_nonzero()):
        change = layer.scaling[_ADAPTER] * (b @ a).view_as(weight)
        with torch.no_grad():
            weight.copy_((weight.detach().cpu().double() + change).to(weight.dtype))
    return base

"""Generators out of the ``.pt`` files of the PyTorch port of StyleGAN2 by Seonghyeon Kim ("rosinality")."""

from __future__ import annotations

import math
import re
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vestige.errors import BadWeights, InvalidInput, Unsupported
from vestige.models.adapters.stylegan2.files import StyleGan2Weights, shapes
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.mean import mean_style
from vestige.models.adapters.stylegan2.names import ported_names
from vestige.models.unpickle.archive import Archive
from vestige.models.unpickle.machine import printable

_TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
_FIXED = re.compile(r"\.(blur|upsample)\.kernel$")


def ported_weights(archive: Archive) -> StyleGan2Weights | None:
    """The generator under ``g_ema``; None if there is none.

    The port keeps no mean style unless ``latent_avg`` stands beside it; else it is measured on seeded latents. Its
    mapping network has the learning-rate multiplier 0.01.

    Raises
    ------
    Unsupported : the filters are others. CorruptFile : a tensor is damaged. BadWeights : the tensors do not fit.
    """
    value = cast("dict[Any, Any]", archive.value) if isinstance(archive.value, dict) else {}
    entries = value.get("g_ema")
    if not isinstance(entries, dict):
        return None
    found: dict[str, Tensor] = {}
    for name, node in cast("dict[Any, Any]", entries).items():
        if type(name) is str and archive.is_tensor(node):
            found[name] = torch.from_numpy(archive.tensor(node).astype(np.float32))
    form, mean = _form(found, archive.what), value.get("latent_avg")
    tensors = _renamed(found, form, archive.what)
    known = archive.is_tensor(mean)
    tensors["mapping.mean"] = (
        torch.from_numpy(archive.tensor(mean).astype(np.float32)) if known else torch.zeros(form.style)
    )
    weights = StyleGan2Weights(form, tensors)
    return weights if known else StyleGan2Weights(form, {**tensors, "mapping.mean": mean_style(weights)})


def _form(found: dict[str, Tensor], what: str) -> StyleGan2Form:
    """The sizes, from the tensors' own shapes."""
    layers = len([name for name in found if re.fullmatch(r"style\.\d+\.weight", name)])
    stages = 1 + len([name for name in found if re.fullmatch(r"to_rgbs\.\d+\.bias", name)])
    needed = ["input.input", "style.1.weight", "to_rgb1.bias"]
    needed += ["conv1.conv.weight", *(f"convs.{2 * index + 1}.conv.weight" for index in range(stages - 1))]
    missing = [name for name in needed if name not in found or found[name].ndim < 2]
    if missing:
        raise BadWeights(
            f"{what} holds no {missing[0]} of two axes or more under g_ema.",
            expected="the tensors of the port's Generator.",
            remedy="download it again.",
        )
    style = found["style.1.weight"]
    try:
        return StyleGan2Form(
            channels=tuple(found[name].shape[1] for name in needed[3:]),
            latent=style.shape[1],
            style=style.shape[0],
            mapping_layers=layers,
            image_channels=found["to_rgb1.bias"].shape[1],
        )
    except InvalidInput as error:
        raise BadWeights(f"{what}: {error.found}", expected=error.expected, remedy=error.remedy) from error


def _renamed(found: dict[str, Tensor], form: StyleGan2Form, what: str) -> dict[str, Tensor]:
    """Tensors under our names, in our layouts; those without a counterpart keep their name, so that it is reported."""
    wanted, renamed, used = shapes(form), dict[str, Tensor](), set[str]()
    for ours, its in ported_names(form).items():
        if its not in found:
            continue
        tensor, shape = found[its], wanted[ours]
        used.add(its)
        if tuple(size for size in tensor.shape if size != 1) == tuple(size for size in shape if size != 1):
            tensor = tensor.reshape(shape)
        if ours.endswith("convolution.weight") and tensor.ndim == 4 and ".picture." not in ours:
            # The port scales the weights of convolutions when it draws; demodulation leaves only a trace of it.
            tensor = tensor / math.sqrt(tensor[0].numel())
        renamed[ours] = tensor
    for name in set(found) - used:
        if _FIXED.search(name):
            _same_taps(found[name], what)
        else:
            renamed[printable(name)] = found[name]
    return renamed


def _same_taps(kernel: Tensor, what: str) -> None:
    taps = kernel.numpy() / kernel.sum().item()
    if taps.shape != _TAPS.shape or not np.allclose(taps, _TAPS, atol=1e-6):
        raise Unsupported(
            f"{what} resamples with other taps than [1, 3, 3, 1].",
            expected="the taps of the paper.",
            remedy="load it in the program that made it.",
        )

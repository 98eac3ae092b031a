"""What the tensors of a StyleGAN2 are called here and in the files of others.

The names of others are facts of their file formats: those of NVIDIA's StyleGAN2-ADA for PyTorch, whose layout of every
tensor is the one used here, and those of the widespread PyTorch port by Seonghyeon Kim ("rosinality").
"""

from __future__ import annotations

from vestige.models.adapters.stylegan2.form import StyleGan2Form

_OFFICIAL_LAYER = {
    "convolution.weight": "weight",
    "convolution.style.weight": "affine.weight",
    "convolution.style.bias": "affine.bias",
    "bias": "bias",
    "noise": "noise_const",
    "strength": "noise_strength",
}
_PORTED_LAYER = {
    "convolution.weight": "conv.weight",
    "convolution.style.weight": "conv.modulation.weight",
    "convolution.style.bias": "conv.modulation.bias",
    "bias": "activate.bias",
    "strength": "noise.weight",
}
_PICTURE = ("convolution.weight", "convolution.style.weight", "convolution.style.bias", "bias")


def official_names(form: StyleGan2Form) -> dict[str, str]:
    """Our name of every tensor, to that of the official pickles."""
    names = {"mapping.mean": "mapping.w_avg", "synthesis.constant": "synthesis.b4.const"}
    for part in ("weight", "bias"):
        names |= {f"mapping.layers.{i}.{part}": f"mapping.fc{i}.{part}" for i in range(form.mapping_layers)}
        if form.classes:
            names[f"mapping.embed.{part}"] = f"mapping.embed.{part}"
    for index in range(len(form.channels)):
        here, there = f"synthesis.stages.{index}", f"synthesis.b{4 << index}"
        layers = {"first": "conv0", "second": "conv1"} if index else {"second": "conv1"}
        for layer, other in layers.items():
            names |= {f"{here}.{layer}.{ours}": f"{there}.{other}.{its}" for ours, its in _OFFICIAL_LAYER.items()}
        names |= {f"{here}.picture.{ours}": f"{there}.torgb.{_OFFICIAL_LAYER[ours]}" for ours in _PICTURE}
    return names


def ported_names(form: StyleGan2Form) -> dict[str, str]:
    """Our name of every tensor but the mean style, to that of the port; its layouts differ in axes of length 1."""
    names = {"synthesis.constant": "input.input"}
    for part in ("weight", "bias"):
        names |= {f"mapping.layers.{i}.{part}": f"style.{i + 1}.{part}" for i in range(form.mapping_layers)}
    noises = iter(range(len(form.noise_sides)))
    for index in range(len(form.channels)):
        here = f"synthesis.stages.{index}"
        layers = (
            {"first": f"convs.{2 * index - 2}", "second": f"convs.{2 * index - 1}"} if index else {"second": "conv1"}
        )
        for layer, other in layers.items():
            names |= {f"{here}.{layer}.{ours}": f"{other}.{its}" for ours, its in _PORTED_LAYER.items()}
            names[f"{here}.{layer}.noise"] = f"noises.noise_{next(noises)}"
        picture = f"to_rgbs.{index - 1}" if index else "to_rgb1"
        names |= {f"{here}.picture.{ours}": f"{picture}.{_PORTED_LAYER[ours]}" for ours in _PICTURE[:3]}
        names[f"{here}.picture.bias"] = f"{picture}.bias"
    return names

"""From what a person named to a generator that can be searched, checked as it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vestige.errors import NotFound, Unsupported
from vestige.jobs.resolve import zoo_entry
from vestige.models.adapters.gan import GanGenerator, is_gan_folder, load_gan
from vestige.models.adapters.stylegan2.files import load_stylegan2
from vestige.models.adapters.stylegan2.gan import stylegan2_gan
from vestige.models.adapters.stylegan2.network import StyleGan2
from vestige.models.denoiser import Denoiser
from vestige.models.latent import LatentGenerator
from vestige.models.latent_diffusion import few_step_generator
from vestige.zoo import MODELS
from vestige.zoo.portrait import FOLDER as PORTRAIT
from vestige.zoo.portrait import WEIGHTS

GeneratorLike = str | Path | LatentGenerator | GanGenerator | Denoiser

FEW_STEPS = 4
"""Steps of a diffusion model whose noise is searched."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A generator with its name; the network of a kind that can be sampled in ways of its own is beside it."""

    name: str
    generator: LatentGenerator
    denoiser: Denoiser | None = None
    styles: StyleGan2 | None = None

    @property
    def checks(self) -> list[str]:
        """What was found true of it when it was opened."""
        g = self.generator
        range_ = "without a range" if g.pixels is None else f"within [{g.pixels.low:g}, {g.pixels.high:g}]"
        slope = "differentiable by finite derivatives" if g.differentiable else "declared without a gradient"
        return [
            "weights and outputs finite",
            f"outputs {range_}",
            slope,
            "the same outputs from call to call, alone and in a batch",
            "evaluation mode",
        ]


def open_generator(model: GeneratorLike, *, batch_size: int = 128) -> Opened:
    """A GAN, a few steps of a diffusion model, or a generator as it is.

    Parameters
    ----------
    model : zoo name, folder of a GAN or of a diffusers model, a StyleGAN2 as `vestige convert` writes it, or an object;
        a callable is wrapped as LatentGenerator.

    Raises
    ------
    NotFound : nothing there. Unsupported : a file that would have to be executed, or no generator.
    BadWeights, InvalidInput : the generator fails a check; see LatentGenerator.
    """
    if isinstance(model, LatentGenerator):
        return Opened(model.identity, model)
    if isinstance(model, GanGenerator):
        return Opened(model.identity, LatentGenerator.of_gan(model))
    if isinstance(model, Denoiser):
        return Opened(type(model).__name__, few_step_generator(model, FEW_STEPS, batch_size=batch_size), model)
    entry, path = zoo_entry(model), Path(model)
    folder = WEIGHTS if str(model) == PORTRAIT.name else path if entry is None else entry.folder
    if not folder.exists():
        raise NotFound(
            f"There is no generator at {path}.",
            expected="a GAN or diffusers folder, the .safetensors of `vestige convert`, or one of "
            f"{', '.join([*MODELS, PORTRAIT.name])}.",
            remedy="check the path.",
        )
    name, device = (
        str(model) if entry is not None else path.stem if path.is_file() else path.name,
        "cuda" if torch.cuda.is_available() else "cpu",
    )
    if folder.suffix == ".safetensors":
        network = load_stylegan2(folder).to(device)
        stylegan = stylegan2_gan(network, batch_size=batch_size)
        return Opened(name, LatentGenerator.of_gan(stylegan), styles=network)
    if folder.is_file():
        raise _refused(folder)
    if is_gan_folder(folder):
        gan = load_gan(folder, batch_size=batch_size, device=device)
        return Opened(name, LatentGenerator.of_gan(gan.generator))
    from vestige.models.adapters.diffusers import load_folder

    denoiser = load_folder(folder)
    denoiser.module.to(device)
    return Opened(name, few_step_generator(denoiser, FEW_STEPS, batch_size=batch_size), denoiser)


def _refused(path: Path) -> Unsupported:
    if path.suffix == ".py":
        return Unsupported(
            f"{path} is a program, and the command line executes nothing that it is given.",
            expected="weights: a GAN or diffusers folder, or the .safetensors of `vestige convert`.",
            remedy="from Python: rare(LatentGenerator(my_function, latent_shape, identity=...), data=..., out=...).",
        )
    return Unsupported(
        f"{path} is a single file of type {path.suffix or 'unknown'}.",
        expected="a GAN or diffusers folder, or the .safetensors of `vestige convert`.",
        remedy="convert a StyleGAN2 with `vestige convert`; wrap others from Python as LatentGenerator(network, ...).",
    )

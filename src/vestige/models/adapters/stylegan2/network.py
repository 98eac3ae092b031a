"""StyleGAN2: from a latent to styles, from styles to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from vestige.errors import InvalidInput
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.layers import Dense, Layer, Picture, leaky, normalise, upsample


@dataclass(frozen=True)
class Truncation:
    """Pull styles towards their mean: w' = mean + psi (w - mean) (arXiv 1812.04948, appendix B).

    Parameters
    ----------
    psi : 1 leaves the styles, 0 gives the mean image; values beyond 1 exaggerate.
    cutoff : only the first so many styles, the coarse ones, are pulled; None for all.

    Raises
    ------
    InvalidInput : psi is not finite or the cutoff is negative.
    """

    psi: float = 1.0
    cutoff: int | None = None

    def __post_init__(self) -> None:
        if not abs(self.psi) < float("inf") or (self.cutoff or 0) < 0:
            raise InvalidInput(
                f"Truncation has psi={self.psi} and cutoff={self.cutoff}.",
                expected="a finite psi, mostly 0 to 1, and a cutoff of 0 or more styles.",
                remedy="correct the truncation.",
            )


WHOLE = Truncation()


class Mapping(nn.Module):
    """Latent, and label if there are classes, to a style."""

    def __init__(self, form: StyleGan2Form) -> None:
        super().__init__()
        self.form = form
        self.embed = Dense(form.classes, form.style) if form.classes else None
        first = form.latent + (form.style if form.classes else 0)
        inputs = (first, *([form.style] * (form.mapping_layers - 1)))
        self.layers = nn.ModuleList(Dense(size, form.style, rate=form.mapping_rate) for size in inputs)
        self.register_buffer("mean", torch.zeros(form.style))
        self.mean: Tensor

    def forward(self, z: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n s"]:
        """Styles [n, style]. The latent's length does not matter: it is normalised first."""
        x = normalise(z)
        if self.embed is not None:
            if labels is None:
                raise InvalidInput(
                    f"The generator has {self.form.classes} classes and was given no labels.",
                    expected="one label a latent.",
                    remedy="pass labels, integers [n].",
                )
            chosen = functional.one_hot(labels, self.form.classes).to(z.dtype)
            x = torch.cat([x, normalise(self.embed(chosen))], 1)
        for layer in self.layers:
            x = leaky(layer(x))
        return x

    def spread(self, w: Float[Tensor, "n s"], truncation: Truncation = WHOLE) -> Float[Tensor, "n k s"]:
        """One style for each of the k places that take one, truncated."""
        styles = w[:, None].repeat(1, self.form.styles, 1)
        pulled = styles[:, : truncation.cutoff]
        pulled = pulled + (truncation.psi - 1) * (pulled - self.mean)
        return torch.cat([pulled, styles[:, pulled.shape[1] :]], 1)


class Stage(nn.Module):
    """All that is drawn at one side: one or two layers, and the image so far."""

    def __init__(self, form: StyleGan2Form, index: int) -> None:
        super().__init__()
        width, side = form.channels[index], 4 << index
        self.first = (
            Layer(form.channels[index - 1], width, form.style, side=side, up=True, clamp=form.clamp) if index else None
        )
        self.second = Layer(width, width, form.style, side=side, up=False, clamp=form.clamp)
        self.picture = Picture(width, form.image_channels, form.style, clamp=form.clamp)

    def forward(
        self, x: Tensor, image: Tensor | None, styles: Sequence[Tensor], noises: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Feature maps and image; ``styles`` and ``noises`` are the stage's own."""
        if self.first is not None:
            x = self.first(x, styles[0], noises[0])
        x = self.second(x, styles[-2], noises[-1])
        drawn = self.picture(x, styles[-1])
        return x, drawn if image is None else upsample(image) + drawn


class Synthesis(nn.Module):
    """Styles to an image, stage by stage, each adding to the upsampled image of the one before."""

    def __init__(self, form: StyleGan2Form) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(form.channels[0], 4, 4))
        self.stages = nn.ModuleList(Stage(form, index) for index in range(len(form.channels)))
        self.form = form

    def forward(self, styles: Float[Tensor, "n k s"], noises: Sequence[Tensor] | None = None) -> Tensor:
        """Images [n, c, side, side]; the stored noises unless others [n, 1, s, s] are given in drawing order.

        Raises
        ------
        InvalidInput : the number of styles or of noises is not the form's.
        """
        count = len(self.form.noise_sides)
        if styles.shape[1] != self.form.styles or (noises is not None and len(noises) != count):
            raise InvalidInput(
                f"{styles.shape[1]} styles and {count if noises is None else len(noises)} noises were given.",
                expected=f"{self.form.styles} styles an image and {count} noises.",
                remedy="make the styles with Mapping.spread.",
            )
        chosen: Sequence[Tensor | None] = [None] * count if noises is None else noises
        x, image = self.constant.expand(len(styles), -1, -1, -1), None
        for index, stage in enumerate(self.stages):
            # The style of a stage's image is that of the next stage's first layer, so stages overlap by one.
            own = styles.unbind(1)[max(0, 2 * index - 1) : 2 * index + 2]
            x, image = stage(x, image, own, chosen[max(0, 2 * index - 1) : 2 * index + 1])
        return cast(Tensor, image)


class StyleGan2(nn.Module):
    """A StyleGAN2 generator, differentiable in its latents; images about in [-1, 1], not clipped.

    Its tensors, with their shapes, are listed in ``docs/portrait.md``. The noise inputs are tensors of the network,
    so a latent has one image. Freshly made, it is initialised for training (torch's generator decides).

    Parameters
    ----------
    form : the sizes.
    """

    def __init__(self, form: StyleGan2Form) -> None:
        super().__init__()
        self.form = form
        self.mapping, self.synthesis = Mapping(form), Synthesis(form)

    def forward(
        self, z: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None = None, truncation: Truncation = WHOLE
    ) -> Float[Tensor, "n c h w"]:
        """Images of latents, and of labels if the form has classes."""
        return self.synthesis(self.mapping.spread(self.mapping(z, labels), truncation))

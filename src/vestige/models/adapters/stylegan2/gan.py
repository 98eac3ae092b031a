"""A StyleGAN2 as any other GAN, to be audited or searched."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from vestige.models.adapters.gan import GanGenerator
from vestige.models.adapters.stylegan2.network import WHOLE, StyleGan2, Truncation


class Drawn(nn.Module):
    """A generator at one truncation, its images clipped to [-1, 1]."""

    def __init__(self, network: StyleGan2, truncation: Truncation) -> None:
        super().__init__()
        self.network, self.truncation = network, truncation

    def forward(self, z: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n c h w"]:
        """Images of latents."""
        return self.network(z, labels, self.truncation).clamp(-1, 1)


def stylegan2_gan(network: StyleGan2, truncation: Truncation = WHOLE, *, batch_size: int = 16) -> GanGenerator:
    """The network as a :class:`GanGenerator`, which puts it into evaluation mode.

    Raises
    ------
    BadWeights, InvalidInput : what GanGenerator raises.
    """
    form = network.form
    identity = f"stylegan2 psi={truncation.psi!r} cutoff={truncation.cutoff}"
    drawn = Drawn(network, truncation)
    return GanGenerator(drawn, form.latent, identity=identity, classes=form.classes, batch_size=batch_size)

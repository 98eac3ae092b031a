"""A diffusion model in few deterministic steps as a differentiable generator from its noise."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vestige.errors import Unsupported
from vestige.models.denoiser import Denoiser
from vestige.models.latent import LatentGenerator
from vestige.models.sampler import Spacing


def few_step_generator(
    denoiser: Denoiser, steps: int = 4, *, spacing: Spacing = Spacing.TRAILING, batch_size: int = 64
) -> LatentGenerator:
    """The images of deterministic DDIM as a function of the noise that it starts from, with its gradient.

    ``x_s = alpha_s m + sigma_s (x_t - alpha_t m) / sigma_t`` with ``m = E[x_0 | x_t]``, over ``steps`` falling times
    (Song et al. 2021, arXiv 2010.02502, equation 12); the last mean, clipped to [-1, 1], is the image. A latent has the
    shape of an image. Each step is computed again on the way back instead of being held. A call of the generator is
    ``steps`` evaluations of the denoiser, which counts them itself; ``calls`` counts images.

    Raises
    ------
    InvalidInput, Unsupported, BadWeights : the number of steps does not suit the schedule, or the model cannot be
        differentiated; see :class:`~vestige.models.latent.LatentGenerator`.
    """
    times = spacing.times(denoiser.schedule, steps)
    return LatentGenerator(
        _FewSteps(denoiser, times),
        denoiser.shape,
        identity=f"few-step-{denoiser.digest}-{spacing.value}-{steps}",
        classes=denoiser.classes,
        batch_size=batch_size,
    )


class _FewSteps(nn.Module):
    """Holds the denoiser's network, where it has one, so that its device and mode are seen."""

    def __init__(self, denoiser: Denoiser, times: list[float]) -> None:
        super().__init__()
        self.denoiser, self.times = denoiser, times
        try:
            self.network = denoiser.module
        except Unsupported:
            self.network = None

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        first = noise.new_full((len(noise),), self.times[0])
        x = noise * self.denoiser.levels(first)[1].clamp_min(1)
        for t, s in pairwise(self.times):
            x = checkpoint(self._step, x, t, s, labels, use_reentrant=False)
        return x.clamp(-1, 1)

    def _step(self, x: Tensor, t: float, s: float, labels: Tensor | None) -> Tensor:
        now, then = x.new_full((len(x),), t), x.new_full((len(x),), s)
        mean, noise = self.denoiser.mean_and_noise(x, now, labels)
        alpha, sigma = self.denoiser.levels(then)
        return alpha * mean + sigma * noise

"""Self-guided minority sampling: guidance towards images that a diffusion model rebuilds badly from their own noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vestige.digest import digest_json
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
from vestige.randomness import Stream, normal
from vestige.rare.draws import Draw


class SelfGuided(Denoiser):
    """A denoiser around a denoiser, ``score' = score + scale grad_{x_t} L(x_t)``; any sampler takes it.

    ``L = ||m - stop(D(alpha_s m + sigma_s eps, s))||`` with ``m = E[x_0 | x_t]`` and D the mean: large where noising
    and denoising m does not lead back to it, which is where training images are few. In terms of the mean,
    ``m' = m + scale (sigma^2 / alpha) grad L``. Guidance acts at times of at least ``until``; elsewhere the answer is
    the inner one. The noise eps is the same for every image, so that no image depends on the rest of its batch; which
    way it leads depends on the seed, so draw under several.
    Source: Um and Ye 2024, arXiv 2407.11555.

    Each guided evaluation costs four (two of them for the gradient), and they are counted.

    Parameters
    ----------
    scale : strength; with ``normalise`` a few tenths, as in the paper.
    renoise : s, the time in (0, 1) to which the estimate is noised.
    until : least time, in [0, 1], at which guidance acts; the paper guides early and now and then.
    normalise : divide the gradient of each image by its largest entry.

    Raises
    ------
    InvalidInput : a setting is outside its range.
    """

    def __init__(
        self,
        inner: Denoiser,
        scale: float = 0.3,
        *,
        renoise: float = 0.5,
        until: float = 0.5,
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        if not 0 < renoise < 1 or not 0 <= until <= 1:
            raise InvalidInput(
                f"renoise={renoise:g}, until={until:g}.",
                expected="renoise within (0, 1), until within [0, 1].",
                remedy="change the setting.",
            )
        super().__init__(
            inner.schedule,
            Prediction.CLEAN,
            inner.shape,
            classes=inner.classes,
            null_condition=inner.null_condition,
            access=inner.access,
        )
        self.inner, self.scale, self.renoise, self.until = inner, scale, renoise, until
        self.normalise, self.seed = normalise, seed
        self._noise = torch.from_numpy(normal(seed, Stream.RARE, [0], inner.shape, Draw.RENOISE))

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """The mean, moved where the time asks for it."""
        acts = t >= self.until
        if self.scale == 0 or not bool(acts.any()):
            return self.inner.mean(x_t, t, condition)
        mean, gradient = self._gradient(x_t, t, condition)
        self.evaluations += 3 * len(x_t)  # the second mean and the way back; `predict` counts the first
        if self.normalise:
            gradient = gradient / gradient.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
        alpha, sigma = self.inner.levels(t)
        # At the very start of some schedules there is no signal, and nothing to divide by.
        moved = mean + self.scale * sigma.square() / alpha.clamp_min(1e-3) * gradient
        return torch.where(acts.view(-1, 1, 1, 1), moved, mean)

    def _gradient(self, x_t: Images, t: Times, condition: Labels | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            mean = self.inner.mean(x, t, condition)
            again = torch.full_like(t, self.renoise)
            with torch.no_grad():
                noisy = self.inner.noised(mean, self._noise.to(mean).expand_as(mean), again)
                rebuilt = self.inner.mean(noisy, again, condition)
            lost = (mean - rebuilt).square().flatten(1).sum(1).clamp_min(1e-24).sqrt()
            (gradient,) = torch.autograd.grad(lost.sum(), x)
        return mean.detach(), gradient

    @property
    def device(self) -> torch.device:
        """Device of the inner model."""
        return self.inner.device

    @property
    def module(self) -> nn.Module:
        """The network of the inner model."""
        return self.inner.module

    def with_module(self, module: nn.Module) -> SelfGuided:
        """The same guidance of another network."""
        settings = {"renoise": self.renoise, "until": self.until}
        inner = self.inner.with_module(module)
        return SelfGuided(inner, self.scale, **settings, normalise=self.normalise, seed=self.seed)

    @property
    def digest(self) -> str:
        """Digest of the inner model and the settings."""
        settings = {"scale": self.scale, "renoise": self.renoise, "until": self.until}
        return digest_json({"self-guided": self.inner.digest, **settings, "max": self.normalise, "seed": self.seed})

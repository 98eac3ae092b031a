"""Surrogate conditions: clusters of generations, a classifier that knows them through noise, and its guidance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, gelu, log_softmax

from vestige.audit.extraction.search import Floats, Index, Pixels
from vestige.data.images import to_float
from vestige.digest import digest_array, digest_json, digest_tensors
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
from vestige.models.schedule import Schedule
from vestige.randomness import Stream, generator

_ROUNDS = 100
_BATCH = 64
_LEARNING_RATE = 2e-3
_START, _FIRST_BATCH = 0, 1
_LEAST_SIGNAL = 1e-4
"""Signal level below which an image is noise and a classifier has nothing to say about it."""


def lloyd(features: Floats, count: int, seed: int) -> Index:
    """Cluster [n] of each row of ``features`` [n, d] by k-means; at most ``count`` of them, from 0, none empty.

    Centres start far apart (k-means++ of Arthur and Vassilvitskii 2007) from the seed alone.
    """
    random = generator(seed, Stream.SIDE, row=0, draw=_START)
    centres = features[random.integers(len(features), size=1)]
    while len(centres) < count:
        gap = _squares(features, centres).min(1)
        if gap.sum() == 0:
            break  # fewer distinct rows than clusters
        centres = np.concatenate([centres, features[random.choice(len(features), size=1, p=gap / gap.sum())]])
    label = _squares(features, centres).argmin(1)
    for _ in range(_ROUNDS):
        filled = np.unique(label)
        centres = np.stack([features[label == c].mean(0) for c in filled])
        moved = _squares(features, centres).argmin(1)
        if np.array_equal(filled[moved], label):
            break
        label = moved
    return np.unique(label, return_inverse=True)[1].astype(np.int64)


def _squares(features: Floats, centres: Floats) -> Floats:
    product = features @ centres.T
    return (np.square(features).sum(1)[:, None] - 2 * product + np.square(centres).sum(1)).clip(0)


class NoisyClassifier(nn.Module):
    """``log p_t(c | x_t)`` by two convolutions, scaled and shifted by the time.

    Some 20,000 weights and 1,024 a class.
    """

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.time = nn.Linear(8, 2 * 2 * width)
        self.head = nn.Linear(2 * width * 16, classes)

    def forward(self, images: Float[Tensor, "n c h w"], t: Float[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """Logits of noisy images of about unit scale at times in [0, 1]."""
        angles = t[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=t.dtype, device=t.device)
        scale, shift = self.time(torch.cat([angles.sin(), angles.cos()], 1))[:, :, None, None].chunk(2, 1)
        hidden = self.second(gelu(self.first(images)))
        return self.head(adaptive_avg_pool2d(gelu(hidden * (1 + scale) + shift), 4).flatten(1))

    def vector(self) -> npt.NDArray[np.float32]:
        """All weights in order."""
        return nn.utils.parameters_to_vector(self.parameters()).detach().numpy().astype(np.float32)

    def load_vector(self, weights: npt.NDArray[np.float32]) -> NoisyClassifier:
        """Itself with the weights that :meth:`vector` gave, frozen, in double precision.

        Guidance is computed in double precision so that it does not depend on the batch.
        """
        nn.utils.vector_to_parameters(torch.from_numpy(weights), self.parameters())
        return self.double().requires_grad_(False)


def _scaled(x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return x_t / (alpha.square() + sigma.square()).sqrt()


def _noised(pixels: Pixels, schedule: Schedule, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    clean, t = to_float(pixels), torch.from_numpy(random.uniform(1e-3, 1, len(pixels)).astype(np.float32))
    noise = torch.from_numpy(random.standard_normal(clean.shape, np.float32))
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in schedule.alpha_sigma(t))
    return _scaled(alpha * clean + sigma * noise, alpha, sigma), t


def fit(
    pixels: Pixels, labels: Index, classes: int, schedule: Schedule, steps: int, seed: int
) -> npt.NDArray[np.float32]:
    """Train a :class:`NoisyClassifier` on generations uint8 [n, c, h, w] with pseudo-labels [n]; gives its weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NoisyClassifier(pixels.shape[1], classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    with torch.enable_grad():
        for step in range(steps):
            random = generator(seed, Stream.SIDE, row=step, draw=_FIRST_BATCH)
            rows = random.integers(len(pixels), size=_BATCH)
            x_t, t = _noised(pixels[rows], schedule, random)
            loss = cross_entropy(network(x_t, t), torch.from_numpy(labels[rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.vector()


@torch.no_grad()
def accuracy(network: NoisyClassifier, pixels: Pixels, labels: Index, schedule: Schedule, time: float) -> int:
    """How many pseudo-labels the classifier tells from the images noised to ``time`` (one fixed draw)."""
    random = generator(0, Stream.SIDE, row=0, draw=_FIRST_BATCH + 1)
    clean, t = to_float(pixels).double(), torch.full((len(pixels),), time, dtype=torch.float64)
    alpha, sigma = (level.view(-1, 1, 1, 1) for level in schedule.alpha_sigma(t))
    x_t = alpha * clean + sigma * torch.from_numpy(random.standard_normal(clean.shape))
    return int((network(_scaled(x_t, alpha, sigma), t).argmax(1).numpy() == labels).sum())


class Steered(Denoiser):
    """A model pulled towards a cluster: score ``s(x_t, t) + scale * grad log p_t(c | x_t)``.

    For the clean image that is ``E[x_0 | x_t] + scale * sigma^2 / alpha * grad log p_t(c | x_t)``
    (Dhariwal and Nichol 2021, arXiv 2105.05233, with Tweedie's formula), as far as that takes no
    pixel out of [-1, 1]. Its condition is the cluster; ``asked`` [clusters] says which class of
    the model goes with each, if it has classes.
    """

    def __init__(self, inner: Denoiser, classifier: NoisyClassifier, scale: float, asked: Index | None = None) -> None:
        clusters = classifier.head.out_features
        super().__init__(inner.schedule, Prediction.CLEAN, inner.shape, classes=clusters, access=inner.access)
        self.inner, self.scale = inner, scale
        self.classifier = classifier.to(inner.device)
        self.asked = None if asked is None else torch.from_numpy(asked).to(inner.device)

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """The steered clean image; without a cluster, that of the model."""
        if condition is None:
            return self.inner.mean(x_t, t)
        mean = self.inner.mean(x_t, t, None if self.asked is None else self.asked[condition])
        alpha, sigma = self.levels(t)
        pull = self.scale * sigma.square() / alpha.clamp_min(_LEAST_SIGNAL) * self.gradient(x_t, t, condition)
        pulled = torch.where(alpha > _LEAST_SIGNAL, mean + pull, mean)
        # A sampler clips the image but not the noise that goes with it, and would be driven the other way.
        return torch.maximum(torch.minimum(pulled, mean.clamp_min(1)), mean.clamp_max(-1))

    def gradient(self, x_t: Images, t: Times, condition: Labels) -> Images:
        """``grad log p_t(c | x_t)`` with respect to ``x_t``."""
        with torch.enable_grad():
            x = x_t.detach().double().requires_grad_(True)
            logits = self.classifier(_scaled(x, *self.levels(t.double())), t.double())
            chosen = log_softmax(logits, 1).gather(1, condition[:, None]).sum()
            return torch.autograd.grad(chosen, x)[0].to(x_t.dtype)

    @property
    def device(self) -> torch.device:
        """Device of the inner model."""
        return self.inner.device

    @property
    def digest(self) -> str:
        """Digest of the inner model, the classifier and how they are joined."""
        asked = None if self.asked is None else self.asked.tolist()
        weights = digest_tensors(self.classifier.state_dict())
        return digest_json({"steered": self.inner.digest, "by": weights, "scale": self.scale, "asked": asked})


class FittedGaussian(Denoiser):
    """The perfect denoiser of a Gaussian with the mean and covariance of given images; all it keeps of them.

    ``E[x_0 | x_t] = m + sum_j u_j a v_j / (a^2 v_j + s^2) <u_j, x_t - a m>`` over the principal
    axes u_j of n images, at most n - 1, so that images of many pixels cost no more.
    """

    def __init__(self, pixels: Pixels, schedule: Schedule) -> None:
        channels, height, width = pixels.shape[1:]
        super().__init__(schedule, Prediction.CLEAN, (channels, height, width))
        flat = to_float(pixels).double().flatten(1)
        self.mean_image = flat.mean(0)
        _, sizes, self.axes = torch.linalg.svd(flat - self.mean_image, full_matrices=False)
        self.variances = sizes.square() / max(len(flat) - 1, 1)
        self._digest = digest_array(pixels)

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """Linear posterior mean, computed in float64."""
        alpha, sigma = (level.flatten()[:, None] for level in self.levels(t.double()))
        along = (x_t.double().flatten(1) - alpha * self.mean_image) @ self.axes.T
        gain = alpha * self.variances / (alpha.square() * self.variances + sigma.square())
        return (self.mean_image + (gain * along) @ self.axes).view_as(x_t).to(x_t.dtype)

    @property
    def digest(self) -> str:
        """Digest of the images and the schedule."""
        return digest_json({"oracle": "fitted", "images": self._digest, **self.schedule.key()})


@dataclass(frozen=True, eq=False)
class Conditions:
    """Surrogate conditions: the classifier, the class to ask for with each cluster, and how well it was learned.

    ``sizes`` [clusters] counts generations; ``told`` of ``tested`` held-out pseudo-labels are recognized.
    """

    classifier: NoisyClassifier
    asked: Index | None
    sizes: Index
    told: int
    tested: int


def commonest(condition: Index | None, labels: Index) -> Index | None:
    """The class that most generations of each cluster were asked for, the lowest among equals."""
    if condition is None:
        return None
    return np.array([np.bincount(condition[labels == c]).argmax() for c in range(int(labels.max()) + 1)], np.int64)

"""GANs: networks from latents to images, wrapped or read from a folder of safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vestige.data.images import to_uint8
from vestige.digest import digest_json
from vestige.errors import BadWeights, CorruptFile, InvalidInput, NotFound, Unsupported
from vestige.models.adapters.dcgan import Dcgan
from vestige.models.critic import Critic
from vestige.models.generator import Generator, Pixels
from vestige.models.network import (
    PROBES,
    PixelRange,
    device_of,
    finite,
    repeatable,
    settle,
    still_settled,
    weights_digest,
)
from vestige.randomness import Stream, normal
from vestige.store.write import write_bytes, write_text

CONFIGURATION, GENERATOR, CRITIC = "gan.json", "generator.safetensors", "critic.safetensors"
ARCHITECTURE = "dcgan"


class GanGenerator(Generator):
    """Wraps a network from latents to images. Row r of a seed has a standard normal latent of its own.

    Parameters
    ----------
    network : called as ``f(z)`` or, when ``classes > 0``, ``f(z, labels)``; z float [n, latent], labels integer [n];
        answers images [n, c, h, w] within ``pixels``. A module is put into evaluation mode.
    latent : dimension of z.
    identity : a name that changes whenever the network's answers change; it keys stored results. A module is
        identified by its weights as well.
    classes : number of class labels; 0 for an unconditional GAN. Row r asks for class ``r mod classes``.
    pixels : what the network calls black and white.
    batch_size : rows a call.

    ``evaluations`` counts the images that were asked for; a few made here, to check the network, are left out.

    Raises
    ------
    BadWeights : a weight or an answer is NaN or infinite.
    InvalidInput : the answers are no images, leave the range, change from call to call or with the rest of the batch,
        or a part of the module stays in training mode.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        latent: int,
        *,
        identity: str,
        classes: int = 0,
        pixels: PixelRange | None = None,
        batch_size: int = 128,
    ) -> None:
        if latent < 1 or classes < 0 or batch_size < 1:
            raise InvalidInput(
                f"latent={latent}, classes={classes}, batch_size={batch_size}.",
                expected="a latent of at least 1 dimension, 0 or more classes, batches of at least 1.",
                remedy="change the option.",
            )
        self.network, self.latent, self.identity = network, latent, identity
        self.pixels, self.batch_size = pixels or PixelRange(), batch_size
        self._classes, self.evaluations = classes, 0
        settle(network, "generator")
        self._shape = self._check()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the network's images."""
        return self._shape

    @property
    def classes(self) -> int:
        """Number of class labels."""
        return self._classes

    @property
    def implicit(self) -> bool:
        """A GAN has no denoiser."""
        return True

    def condition_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Row r asks for class ``r mod classes``."""
        return rows % self._classes if self._classes else None

    def sample(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        """Images of the rows' latents, in batches; latents depend on seed and row alone.

        Raises
        ------
        BadWeights : an image is not finite. InvalidInput : the module was put back into training mode.
        """
        still_settled(self.network, "generator")
        batches = [self._batch(rows[i : i + self.batch_size], seed) for i in range(0, len(rows), self.batch_size)]
        return np.concatenate(batches) if batches else np.empty((0, *self.shape), np.uint8)

    def _batch(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        self.evaluations += len(rows)
        images = self._images(normal(seed, Stream.SAMPLE, rows, (self.latent,)), self.condition_of(rows))
        finite(images, "generator's answer")
        return to_uint8(self.pixels.inward(images))

    @torch.no_grad()
    def _images(self, latents: npt.NDArray[np.float32], labels: npt.NDArray[np.int64] | None) -> Tensor:
        device = device_of(self.network)
        given = [torch.from_numpy(latents).to(device)]
        return self.network(*given, *([] if labels is None else [torch.from_numpy(labels).to(device)]))

    def _check(self) -> tuple[int, int, int]:
        rows = np.arange(PROBES, dtype=np.int64)
        latents, labels = normal(0, Stream.SAMPLE, rows, (self.latent,)), self.condition_of(rows)
        images = self._images(latents, labels)
        if images.ndim != 4 or len(images) != PROBES or images.shape[1] not in (1, 3):
            raise InvalidInput(
                f"The generator answered {PROBES} latents with shape {tuple(images.shape)}.",
                expected="images [n, channels, height, width], grey or RGB.",
                remedy="wrap it so that it returns one image a latent.",
            )
        finite(images, "generator's answer")
        low, high, slack = float(images.min()), float(images.max()), 0.01 * (self.pixels.high - self.pixels.low)
        if low < self.pixels.low - slack or high > self.pixels.high + slack:
            raise InvalidInput(
                f"The generator's pixels reach from {low:.3g} to {high:.3g}.",
                expected=f"pixels from {self.pixels.low:g} to {self.pixels.high:g}, as declared.",
                remedy="declare the right PixelRange, or wrap the network so that it clips its images.",
            )
        alone = self._images(latents[-1:], None if labels is None else labels[-1:])
        repeatable(images, self._images(latents, labels), alone, "generator")
        channels, height, width = images.shape[1:]
        return channels, height, width

    @property
    def digest(self) -> str:
        """Digest of identity, weights, latent, labels and range."""
        settings = {"latent": self.latent, "classes": self._classes, **asdict(self.pixels)}
        return digest_json({"identity": self.identity, "weights": weights_digest(self.network), **settings})

    def key(self) -> dict[str, Any]:
        """Digest of the network and its declaration."""
        return {"gan": self.digest}


@dataclass(frozen=True, eq=False)
class Gan:
    """A generator and, where it was kept, its critic."""

    generator: GanGenerator
    critic: Critic | None = None


def save_gan(folder: Path, form: Dcgan, generator: nn.Module, critic: nn.Module | None = None) -> None:
    """Write a folder that :func:`load_gan` reads: ``gan.json`` and safetensors.

    Raises
    ------
    StorageFailed : the folder cannot be written.
    """
    for name, module in ((GENERATOR, generator), (CRITIC, critic)):
        if module is not None:
            write_bytes(folder / name, save({k: v.contiguous() for k, v in module.state_dict().items()}))
    write_text(folder / CONFIGURATION, json.dumps({"architecture": ARCHITECTURE, **form.key()}, indent=2) + "\n")


def load_weights(module: nn.Module, path: str | Path) -> nn.Module:
    """Read safetensors into a module, every tensor of which must be there and fit; returns the module in
    evaluation mode.

    Nothing is ever unpickled: convert other files with ``safetensors.torch.save_file(module.state_dict(), path)``
    where they are trusted.

    Raises
    ------
    NotFound, Unsupported, CorruptFile, BadWeights : see each message.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", expected="a .safetensors file.", remedy="check the path.")
    if path.suffix != ".safetensors":
        raise Unsupported(
            f"{path} is not a safetensors file, and reading it might execute code.",
            expected="a .safetensors file.",
            remedy="where you trust it, load it yourself and save it with safetensors.torch.save_file.",
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptFile(
            f"{path} cannot be read ({error}).", expected="a whole safetensors file.", remedy="copy or save it again."
        ) from error
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadWeights(
            f"{path} does not fit the network: {reason}",
            expected="exactly the network's tensors, in its shapes.",
            remedy="build the network with the settings it was trained with.",
        ) from error
    settle(module, path.stem)
    return module


def is_gan_folder(folder: Path) -> bool:
    """Whether the folder looks like one of :func:`save_gan`."""
    return (folder / CONFIGURATION).is_file()


def load_gan(folder: str | Path, *, batch_size: int = 128, device: str = "cpu") -> Gan:
    """Read a folder of :func:`save_gan`: the zoo's architecture, with its critic if the folder has one.

    Another GAN is wrapped from Python: ``GanGenerator(load_weights(network, "weights.safetensors"), latent, ...)``.

    Raises
    ------
    NotFound, CorruptFile, Unsupported, BadWeights : see each message.
    """
    folder = Path(folder)
    form = _read_form(folder / CONFIGURATION)
    made = load_weights(form.generator(), folder / GENERATOR).to(device)
    generator = GanGenerator(made, form.latent, identity=ARCHITECTURE, classes=form.classes, batch_size=batch_size)
    if not (folder / CRITIC).is_file():
        return Gan(generator)
    judge = load_weights(form.critic(), folder / CRITIC).to(device)
    return Gan(generator, Critic(judge, form.shape, identity=ARCHITECTURE, classes=form.classes))


def _read_form(path: Path) -> Dcgan:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no {path}.",
            expected="a folder written by save_gan.",
            remedy="check the path, or wrap the network with GanGenerator from Python.",
        ) from error
    except (OSError, ValueError) as error:
        raise CorruptFile(
            f"{path} is not readable JSON ({error}).", expected="the file of save_gan.", remedy="save the GAN again."
        ) from error
    if not isinstance(content, dict):
        raise CorruptFile(f"{path} holds no object.", expected="the file of save_gan.", remedy="save the GAN again.")
    values = cast("dict[str, Any]", content)
    architecture = values.pop("architecture", None)
    if architecture != ARCHITECTURE:
        raise Unsupported(
            f"{path} names the architecture {architecture!r}.",
            expected=f"{ARCHITECTURE!r}, the zoo's own.",
            remedy="build the network in Python and wrap it with GanGenerator and load_weights.",
        )
    return Dcgan.read(values)

"""From a fingerprint vector to an image, through a StyleGAN2."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.portrait.code import VectorCode
from vestige.fingerprint.portrait.plate import plate
from vestige.fingerprint.portrait.public import Doubles, directed, orthonormal
from vestige.models.adapters.stylegan2.network import StyleGan2, Truncation
from vestige.store.write import write_bytes
from vestige.zoo.portrait import portrait_network

TRUNCATION = Truncation(0.9)
_DRAW = 0


@dataclass(frozen=True, eq=False)
class Portrait:
    """A vector's picture.

    Parameters
    ----------
    pixels : uint8 [channels, side, side].
    code : of the vector; a picture alone says too little to identify anything.
    painter : digest of all that the picture depends on beside the vector.
    """

    pixels: npt.NDArray[np.uint8]
    code: VectorCode
    painter: str

    def png(self) -> bytes:
        """The picture, enlarged, with the code under it and both codes and digests in its text fields."""
        return plate(self.pixels, self.code, self.painter)

    def save(self, path: str | Path) -> None:
        """Write :meth:`png`, whole or not at all.

        Raises
        ------
        StorageFailed : it cannot be written.
        """
        write_bytes(Path(path), self.png())


@dataclass(frozen=True, eq=False)
class Painter:
    """How vectors become portraits: the same vector has the same portrait everywhere.

    A vector is projected to the latent's dimension by a public orthonormal map, which about keeps cosines, and drawn
    in float64 on the CPU with the network's own noise. Between machines only the last bits of float64 differ, so
    pixels are equal unless one lies within some 1e-9 of the border between two grey levels: then by one level.

    Parameters
    ----------
    network : an unconditional StyleGAN2, the zoo's or one of your own (:func:`load_stylegan2`). It is copied.
    truncation : how far styles are pulled to their mean: less is more alike and more typical.
    seed : of the orthonormal map.

    Raises
    ------
    Unsupported : the network asks for class labels. InvalidInput : the seed is not in 64 bits.
    """

    network: StyleGan2 = field(default_factory=portrait_network)
    truncation: Truncation = TRUNCATION
    seed: int = 0

    def __post_init__(self) -> None:
        if self.network.form.classes:
            raise Unsupported(
                f"The network draws {self.network.form.classes} classes.",
                expected="a network without labels: a vector names no class.",
                remedy="choose another network.",
            )
        object.__setattr__(self, "network", copy.deepcopy(self.network).double().requires_grad_(False).eval())

    @cached_property
    def digest(self) -> str:
        """Digest of weights, truncation and seed."""
        weights = digest_tensors(self.network.state_dict())
        cut = [self.truncation.psi, self.truncation.cutoff]
        return digest_json({"form": self.network.form.key(), "weights": weights, "truncation": cut, "seed": self.seed})

    def latent(self, vector: npt.ArrayLike) -> Doubles:
        """The latent [latent] of a vector [d], of mean square 1.

        Raises
        ------
        InvalidInput : the vector is no row of finite numbers, or zero, or vanishes under the projection.
        """
        values = directed(vector)
        latent = _map(self.seed, self.network.form.latent, values.size) @ values
        length = np.sqrt(np.mean(latent**2))
        if not length > 1e-9:
            raise InvalidInput(
                "The vector has no part in the latent's space.", expected="another vector.", remedy="change the seed."
            )
        return latent / length

    def pixels(self, vectors: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Images uint8 [n, channels, side, side] of vectors [n, d], drawn one by one.

        Raises
        ------
        InvalidInput : there is no vector, or one is not as :meth:`latent` needs it.
        """
        rows = np.asarray(vectors)
        if rows.ndim != 2 or not len(rows):
            raise InvalidInput(
                f"The vectors have shape {rows.shape}.", expected="one or more rows [n, d].", remedy="stack them."
            )
        with torch.no_grad():
            latents = (torch.from_numpy(self.latent(row))[None] for row in rows)
            images = torch.cat([self.network(latent, truncation=self.truncation) for latent in latents])
        return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()

    def paint(self, vector: npt.ArrayLike) -> Portrait:
        """The portrait of a vector [d]; raises what :meth:`latent` raises."""
        return Portrait(self.pixels(np.asarray(vector)[None])[0], VectorCode.of(vector), self.digest)


@cache
def _map(seed: int, latent: int, size: int) -> Doubles:
    return orthonormal(seed, latent, size, _DRAW)

"""Edits of all layers that read the text, as one map of its embeddings.

The edited weights of every layer are ``W T`` with one ``T`` [d, d] that no layer's weights enter:

    minimize  s_e sum_i |W* c_i - W g_i|^2 + s_p sum_j |W* p_j - W p_j|^2 + lam |W* - W|^2
    W* = W (lam I + s_e G C^T + s_p P P^T) M^-1 = W (I + s_e (G - C) C^T M^-1),  M = lam I + s_e C C^T + s_p P P^T

with the columns of C, G and P tokens to erase, what they shall become, and tokens to keep. ``T - I = left right`` has a
rank of at most the number of erased tokens: the edit is a low-rank change of every layer with a ``down`` that they
share, and putting ``T e`` for ``e`` edits the model without touching a weight. One Cholesky factor replaces one
inverse a layer. All of it is float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vestige.erase.encoding import Factors
from vestige.models.adapters.text_to_image import TextToImage

Tokens = Float[Tensor, "_ width"]


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """``T = I + left right``, with ``left`` [d, r] and ``right`` [r, d] in float64."""

    left: Float[Tensor, "d r"]
    right: Float[Tensor, "r d"]

    def whole(self) -> Float[Tensor, "d d"]:
        """T."""
        return torch.eye(len(self.left), dtype=self.left.dtype) + self.left @ self.right

    def of(self, embeddings: Tensor) -> Tensor:
        """``T e`` for embeddings [..., d], in their precision."""
        wide = embeddings.double()
        return (wide + (wide @ self.right.mT) @ self.left.mT).to(embeddings.dtype)

    def then(self, later: EmbeddingMap) -> EmbeddingMap:
        """The map of an edit on top of this one: weights ``W T`` become ``W T T'``."""
        left = torch.cat([self.left, later.left + self.left @ (self.right @ later.left)], 1)
        return EmbeddingMap(left, torch.cat([self.right, later.right]))

    def factors(self, readers: Mapping[str, nn.Linear]) -> dict[str, Factors]:
        """The change of each layer's weights, ``(W left) right``, in float32."""
        right = self.right.float()
        return {
            f"{name}.weight": ((layer.weight.detach().double().cpu() @ self.left).float(), right)
            for name, layer in readers.items()
        }


def edit(
    erased: Tokens, become: Tokens, kept: Tokens, *, erase_scale: float, keep_scale: float, ridge: float
) -> EmbeddingMap:
    """The map that makes erased tokens read as others and keeps the kept ones, see the module.

    Parameters
    ----------
    erased, become : tokens [n, d], one for one.
    kept : tokens [m, d].
    ridge : lam, above 0.
    """
    c, g, p = (rows.double().cpu() for rows in (erased, become, kept))
    gram = erase_scale * c.mT @ c + keep_scale * p.mT @ p + ridge * torch.eye(c.shape[1], dtype=c.dtype)
    factor = torch.linalg.cholesky(gram)
    return EmbeddingMap(erase_scale * (g - c).mT, torch.cholesky_solve(c.mT, factor).mT)


def layer_gram(base: TextToImage) -> Float[Tensor, "d d"]:
    """``K = sum over layers of W^T W``."""
    weights = [layer.weight.detach().double().cpu() for layer in base.readers().values()]
    return torch.stack([weight.mT @ weight for weight in weights]).sum(0)


def last_places(base: TextToImage, prompt: str, concept: str) -> list[int]:
    """Position of the concept's last token in a prompt; the one before the end where it does not occur."""
    tower = base.prompts.tower
    places = tower.places(prompt, concept) if concept else []
    return [places[-1] if places else max(len(tower.content(prompt)), 1)]

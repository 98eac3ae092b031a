"""Directions of the text's embeddings that listed prompts do not use; what moves there alone leaves them as they are.

A layer that reads the text computes ``e W^T`` from a token's embedding ``e`` [d]. For the tokens ``A`` [rows, d] of
prompts to keep, a change ``dW`` [out, d] whose rows lie in the null space of ``A`` gives ``A dW^T = 0``: those
prompts, whatever the layer, are read as before (Zhao et al. 2024, arXiv 2402.05947, weight decoupling).

The null space of every concept comes from one batched symmetric eigendecomposition in float64 of the Gram matrices
``A_j^T A_j``, which differ by one block: the Gram matrix of all prompts less that of the concept's own. Its basis is
orthonormal. Prompts that need not be exact (*guards*) take away further directions, those in which they are strongest,
until what is left of their energy is a chosen share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vestige.errors import InvalidInput

Rows = Float[Tensor, "_ width"]

TOLERANCE = 1e-13
"""Eigenvalues of a Gram matrix below this share of its largest count as 0: singular values below 3.2e-7."""


@dataclass(frozen=True, eq=False)
class FreeSpace:
    """What one concept's increment may use.

    Parameters
    ----------
    basis : orthonormal rows [k, d], float64.
    listed : dimensions that the listed prompts take.
    guarded : further dimensions that the guards take.
    guard_leak : share of the guards' energy that lies in the free space.
    """

    basis: Float[Tensor, "k width"]
    listed: int
    guarded: int
    guard_leak: float

    @property
    def free(self) -> int:
        """Dimensions left."""
        return len(self.basis)


def free_spaces(
    shared: Rows,
    own: Sequence[Rows],
    *,
    guard: Rows | None = None,
    own_guard: Sequence[Rows] | None = None,
    leak: float = 1e-4,
) -> list[FreeSpace]:
    """The free space of each concept: orthogonal to the shared rows and to the own rows of all others.

    Parameters
    ----------
    shared : tokens of the prompts that all increments keep.
    own : tokens of each concept's prompts, which the increments of all others keep.
    guard, own_guard : the same of prompts that are kept but for a share ``leak`` of their energy.
    """
    exact, scale = _grams(shared, own)
    values, vectors = torch.linalg.eigh(exact)
    taken = values > TOLERANCE * scale
    projectors = torch.diag_embed(torch.ones_like(values)) - (vectors * taken[:, None]) @ vectors.mT
    soft, _ = _grams(shared[:0] if guard is None else guard, own_guard or [shared[:0]] * len(own))
    energy = soft.diagonal(dim1=1, dim2=2).sum(1)
    if not bool(energy.any()):
        return [
            FreeSpace(vectors[j, :, ~taken[j]].mT.contiguous(), int(taken[j].sum()), 0, 0.0) for j in range(len(own))
        ]
    # The listed prompts' directions are put far below all others, so that the two sets of eigenvectors never mix.
    apart = (energy[:, None, None] + 1) * (torch.eye(exact.shape[1], dtype=exact.dtype) - projectors)
    inside, directions = torch.linalg.eigh(projectors @ soft @ projectors - apart)
    return [
        _guarded(inside[j], directions[j], int(taken[j].sum()), float(energy[j]), projectors[j], soft[j], leak)
        for j in range(len(own))
    ]


def _guarded(
    values: Tensor, directions: Tensor, listed: int, energy: float, projector: Tensor, soft: Tensor, leak: float
) -> FreeSpace:
    # The first eigenvectors are those of the listed prompts; the others stand by rising energy.
    candidates = directions[:, listed:]
    strength = values[listed:].clamp_min(0)
    total = strength.cumsum(0)
    kept = int((total <= leak * energy).sum())
    basis = torch.linalg.qr(projector @ candidates[:, :kept]).Q.mT.contiguous()
    left = float(torch.einsum("kd,de,ke->", basis, soft, basis)) / energy if kept else 0.0
    return FreeSpace(basis, listed, candidates.shape[1] - kept, left)


def _grams(shared: Rows, own: Sequence[Rows]) -> tuple[Float[Tensor, "n width width"], Float[Tensor, "n 1"]]:
    """Gram matrix of what each concept keeps, and its largest possible eigenvalue."""
    first = shared.double()
    blocks = torch.stack([block.double().mT @ block.double() for block in own])
    grams = (first.mT @ first + blocks.sum(0)) - blocks
    return grams, grams.diagonal(dim1=1, dim2=2).amax(1, keepdim=True).clamp_min(1e-300)


def capacity(width: int, tokens: int, need: int) -> int:
    """How many prompts, the empty one among them, are sure to leave ``need`` free dimensions.

    All prompts share their first token, so n of them take at most 1 + n (tokens - 1).
    """
    return max((width - 1 - need) // (tokens - 1), 0)


def check_room(space: FreeSpace, concept: str, prompts: int, tokens: int, need: int) -> None:
    """Raise InvalidInput if fewer than ``need`` dimensions are free."""
    if space.free >= need:
        return
    width = space.free + space.listed + space.guarded
    raise InvalidInput(
        f"The {prompts} prompts that the increment of '{concept}' has to keep take {space.listed} of {width} "
        f"dimensions, guards {space.guarded} more; {space.free} are free.",
        expected=f"at least {need} free ones: {capacity(width, tokens, need)} prompts of {tokens} tokens "
        "are sure to leave them.",
        remedy="list fewer prompts with --keep, name some with --guard instead (kept up to a small leak), raise the "
        "allowed leak, or lower the rank.",
    )


def leak_of(rows: Rows, weight: Tensor, change: Tensor) -> float:
    """``max |A dW^T| / max |A W^T|``, in float64."""
    kept = rows.double()
    return float((kept @ change.double().mT).abs().max() / (kept @ weight.double().mT).abs().max())

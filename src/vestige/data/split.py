"""Who is a member: training images with their duplicate counts, beside images that were never trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet
from vestige.digest import digest_json
from vestige.errors import InvalidInput
from vestige.nearest import clusters, nearest, rms
from vestige.randomness import Stream, generator

DUPLICATE_RADIUS = 0.02
"""Near-duplicates lie within this rms distance (pixels in [0, 1]): about a JPEG's re-encoding."""


@dataclass(frozen=True, eq=False)
class Split:
    """Distinct training images (members), their copies, and distinct others.

    Parameters
    ----------
    members : distinct training images.
    exact : int64 [n], how many rows of the training data are the member itself.
    copies : int64 [n], how many lie in its near-duplicate cluster, itself included.
    cluster : int64 [n], the smallest member of each member's cluster.
    others : distinct images that are not near-duplicates of a member, or None.
    dropped : how many of the given others were copies of members.
    """

    members: ImageSet
    exact: npt.NDArray[np.int64]
    copies: npt.NDArray[np.int64]
    cluster: npt.NDArray[np.int64]
    others: ImageSet | None = None
    dropped: int = 0

    @cached_property
    def digest(self) -> str:
        """Digest of members, their counts and clusters, and others."""
        others = None if self.others is None else self.others.digest
        counts = {"exact": self.exact.tolist(), "copies": self.copies.tolist(), "cluster": self.cluster.tolist()}
        return digest_json({"members": self.members.digest, **counts, "others": others})

    def whole_class(self, rows: npt.NDArray[np.int64]) -> int | None:
        """The label of all the chosen members, if no other member has it."""
        labels = self.members.labels
        if labels is None or not len(rows):
            return None
        chosen = np.unique(labels[rows])
        return int(chosen[0]) if len(chosen) == 1 and chosen[0] not in np.delete(labels, rows) else None


def split(train: ImageSet, others: ImageSet | None = None, *, radius: float = DUPLICATE_RADIUS) -> Split:
    """Collapse copies and keep the two sides apart.

    Exact copies count as one member; near-duplicates within ``radius`` stay separate
    members of one cluster and share its count. Others within ``radius`` of a member are
    dropped, because finding them says nothing about non-members.
    """
    members, exact = train.required("to compare with").unique()
    cluster = clusters(members.flat, radius)
    weight = np.bincount(cluster, weights=exact, minlength=len(members)).astype(np.int64)
    copies = weight[cluster]
    if others is None:
        return Split(members, exact, copies, cluster)
    outside, _ = others.required("to serve as non-members").unique()
    distance = rms(nearest(outside.flat, members.flat).distance2[:, 0], members.flat.shape[1])
    clean = np.flatnonzero(distance > radius)
    return Split(members, exact, copies, cluster, outside.take(clean), len(outside) - len(clean))


def hold_out(
    images: ImageSet, share: float, *, seed: int, radius: float = DUPLICATE_RADIUS
) -> tuple[ImageSet, ImageSet]:
    """Divide images into (kept, held out) before training, whole clusters of near-duplicates at a time.

    Parameters
    ----------
    share : of the clusters to hold out, in (0, 1); they serve as non-members later.

    Raises
    ------
    InvalidInput : a share outside (0, 1), or one that rounds to no cluster or to all of them.
    """
    if not 0 < share < 1:
        raise InvalidInput(f"share={share}.", expected="a number between 0 and 1.", remedy="change it.")
    cluster = clusters(images.required("to divide").flat, radius)
    names = np.unique(cluster)
    count = round(share * len(names))
    if not 0 < count < len(names):
        raise InvalidInput(
            f"share={share} of {len(names)} clusters is {count}.",
            expected="at least one cluster on each side.",
            remedy="change the share, or pass more images.",
        )
    held = generator(seed, Stream.SUBSET, len(names)).permutation(names)[:count]
    outside = np.isin(cluster, held)
    return images.take(np.flatnonzero(~outside)), images.take(np.flatnonzero(outside))


def duplicate_groups(copies: npt.NDArray[np.int64]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Rows by duplicate count: ``("1", mask)``, ``("2-3", mask)``, then by powers of four; none empty."""
    edges = [1, 2]
    while edges[-1] <= copies.max(initial=1):
        edges.append(4 ** len(edges[1:]))
    groups: list[tuple[str, npt.NDArray[np.bool_]]] = []
    for low, high in pairwise(edges):
        mask = (copies >= low) & (copies < high)
        if mask.any():
            groups.append((str(low) if high == low + 1 else f"{low}-{high - 1}", mask))
    return groups

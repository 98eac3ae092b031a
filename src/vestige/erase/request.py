"""What to forget and what to keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.data.images import ImageSet, check_fits
from vestige.digest import digest_json
from vestige.errors import EmptySet, InvalidInput
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True, eq=False)
class Request:
    """What to forget and what to keep.

    Parameters
    ----------
    forget, retain : distinct images; no image stands in both.
    retain_copies : how often each retained image stands in the training data; the retain
        loss weighs rows by it, as training did.
    forget_copies : the same for the forgotten ones, which weigh alike if it is not given.
    unseen : images of the same source that the model was not trained on: the level to which forgotten images
        should come, for methods and stopping rules that need one.
    """

    forget: ImageSet
    retain: ImageSet
    retain_copies: npt.NDArray[np.int64]
    forget_copies: npt.NDArray[np.int64] | None = None
    unseen: ImageSet | None = None

    def check(self, denoiser: Denoiser) -> None:
        """Raise EmptySet, ShapeMismatch or InvalidInput if the request makes no sense for the model."""
        if len(self.forget) == 0:
            raise EmptySet(
                "The set of rows to forget is empty.",
                expected="at least one row.",
                remedy="pass --forget with an audit that extracted something, row ids, or class:LABEL.",
            )
        if len(self.retain) == 0:
            raise EmptySet(
                "Nothing is left to retain.",
                expected="training images besides the forgotten ones.",
                remedy="pass the whole training set as --retain.",
            )
        for images in (self.forget, self.retain, *([] if self.unseen is None else [self.unseen])):
            check_fits(images, denoiser.shape, "the model")
        self._check_labels(denoiser)
        both = set(self.forget.ids) & set(self.retain.ids)
        if both:
            raise InvalidInput(
                f"{len(both)} rows are to be forgotten and retained, {min(both)} among them.",
                expected="disjoint sets.",
                remedy="take the forgotten rows out of the retained ones.",
            )

    def _check_labels(self, denoiser: Denoiser) -> None:
        labels = self.forget.labels
        if labels is not None and denoiser.classes and int(labels.max()) >= denoiser.classes:
            raise InvalidInput(
                f"Images of class {int(labels.max())} are to be forgotten.",
                expected=f"a class that the model has: 0 to {denoiser.classes - 1}.",
                remedy="check the labels of the training data (sub-folders are numbered in name order).",
            )

    @property
    def whole_classes(self) -> list[int]:
        """Labels of forgotten images that no retained image has, ascending; none without labels."""
        if self.forget.labels is None or self.retain.labels is None:
            return []
        return sorted(set(self.forget.labels.tolist()) - set(self.retain.labels.tolist()))

    @property
    def digest(self) -> str:
        """Digest of the sets and their counts."""
        copies = [self.retain_copies.tolist(), None if self.forget_copies is None else self.forget_copies.tolist()]
        unseen = None if self.unseen is None else self.unseen.digest
        return digest_json(
            {"forget": self.forget.digest, "retain": self.retain.digest, "copies": copies, "unseen": unseen}
        )

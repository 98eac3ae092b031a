"""The blind baseline: can members be told from non-members by the images alone, without any model?

If they can, the two sets differ in more than having been trained on, and no membership
result on them can be read as memorization (Das, Zhang and Tramèr 2024, arXiv 2406.16201).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.audit.membership.image_statistics import apply_fit, describe, fold_numbers, ridge_fit, together
from vestige.audit.membership.rows import Floats, Sides
from vestige.data.split import Split
from vestige.metrics.interval import estimate
from vestige.metrics.roc import auc, tpr_at_fpr
from vestige.record import Estimate

_COLUMNS = 48


@dataclass(frozen=True)
class Blind:
    """What images alone tell: the line ``membership/blind_auc``, TPR by FPR, and a sentence."""

    line: Estimate
    rates: dict[float, float]
    words: str


def blind_baseline(split: Split, seed: int, rows: int = 2000, folds: int = 5) -> Blind:
    """AUC of a cross-validated classifier that sees pixels and no model.

    Ridge regression of membership on moments, roughness and principal components of
    thumbnails; each fold is scored by a fit on the others, scores are standardised by
    fold. ``rows`` and ``seed`` choose the rows that the attacks look at. Near-duplicates of
    one cluster may fall into different folds, where they help the classifier: only one
    row of each cluster of members is used.

    Raises
    ------
    Unsupported : there are no non-members.
    EmptySet : fewer rows than folds on a side.
    """
    inside, outside = blind_scores(split, seed, rows, folds)
    area = auc(inside, outside)
    line = estimate("membership/blind_auc", area, "probability", "images alone, no model")
    rates = {fpr: round(tpr_at_fpr(inside, outside, fpr).interval.value, 4) for fpr in (0.01, 0.001)}
    numbers = f"AUC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]"
    if area.covers(0.5):
        words = (
            f"A classifier that sees the images and no model cannot tell the two sides apart ({numbers}): nothing "
            "that it can see confounds the attacks."
        )
    elif area.value > 0.5:
        words = (
            f"Warning: the images alone tell members from non-members ({numbers}). The two sets differ in more than "
            "having been trained on; an attack that does no better shows that difference and not memorization. "
            "Take non-members from the same source, by a random split made before training."
        )
    else:
        words = (
            f"The classifier that sees the images alone is below chance ({numbers}), which cross-validation on few or "
            "dependent rows brings about: the two sides cannot be compared by it."
        )
    return Blind(line, rates, words)


def blind_scores(split: Split, seed: int, rows: int = 2000, folds: int = 5) -> tuple[Floats, Floats]:
    """Out-of-fold scores of members and others, higher = likelier member."""
    sides = Sides.of(split, rows, seed)
    _, first = np.unique(split.cluster[sides.members], return_index=True)
    members, others = split.members.take(sides.members[np.sort(first)]), sides.images(split)[1]
    described = together(describe(members), describe(others))
    truth = np.concatenate([np.ones(len(members)), -np.ones(len(others))])
    numbers = (fold_numbers(len(part), folds, seed, side) for side, part in enumerate((members, others)))
    fold = np.concatenate(list(numbers))
    scores = np.empty(len(truth))
    for number in range(folds):
        train = fold != number
        columns = described.design(train, _COLUMNS)
        found = apply_fit(ridge_fit(columns[train], truth[train]), columns[~train])
        spread = found.std()
        # Folds have levels and scales of their own, which would otherwise be compared with each other.
        scores[~train] = (found - found.mean()) / spread if spread > 0 else 0.0
    return scores[: len(members)], scores[len(members) :]

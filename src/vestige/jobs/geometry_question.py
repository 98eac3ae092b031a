"""What a look at the geometry of a model asks, and what it asks unless told otherwise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from vestige.audit.geometry.estimator import ModelEstimator
from vestige.audit.geometry.redraw import Redraw
from vestige.audit.geometry.verdict import Rule
from vestige.audit.probe import Condition
from vestige.errors import InvalidInput
from vestige.jobs.geometry_measure import GeneratorEstimator, Neighbourhood, Reference
from vestige.jobs.geometry_points import Choice, Rows

SCALE = 0.25
"""Points are compared at one noise level. At this one noise has a standard deviation of 32 grey values: it drowns what
tells copies of an image apart and leaves what the image shows. The report says how much another level would change."""


@dataclass(frozen=True)
class Question:
    """What is asked of the model: points, estimator, reference, and how strictly the answer is read.

    Parameters
    ----------
    points : training images, or generations.
    estimator : of the model's dimension; of a GAN, one that asks it at its own generations.
    reference : what it is compared with.
    rule : what counts as low, and which gap as more than chance.
    scale : noise level sigma/alpha at which dimensions of the model are read; None: of each point where its own curve
        is level or bends, which on images leaves many undetermined.
    condition : what a class-conditional model is told of a labelled image.
    guidance : scale of classifier-free guidance, of the dimension and of sampling; needs a null condition.
    redraw : refuse generations of low dimension and draw again; needs generated points.
    """

    points: Choice
    estimator: ModelEstimator | GeneratorEstimator
    reference: Reference
    rule: Rule
    scale: float | None = SCALE
    condition: Condition = Condition.OWN
    guidance: float | None = None
    redraw: Redraw | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise InvalidInput(f"The noise level is {self.scale}.", expected="above 0.", remedy="change --at.")
        if self.redraw is not None and isinstance(self.points, Rows):
            raise InvalidInput(
                "Training images cannot be drawn again.", expected="generated points.", remedy="--points generated."
            )

    def settings(self) -> dict[str, Any]:
        """Plain values for the record."""
        reference: dict[str, Any] = {"kind": type(self.reference).__name__}
        if isinstance(self.reference, Neighbourhood):
            reference |= self.reference.estimator.settings()
        return {
            "points": {"kind": type(self.points).__name__, **dataclasses.asdict(self.points)},
            "estimator": self.estimator.settings(),
            "reference": reference,
            "quantile": self.rule.quantile,
            "level": self.rule.level,
            "scale": self.scale,
            "condition": self.condition.value,
            "guidance": self.guidance,
            "redraw": None if self.redraw is None else self.redraw.rounds,
        }


def default_estimator() -> ModelEstimator:
    """Dimension of the model from forward evaluations alone."""
    from vestige.audit.geometry.dsm import DSM

    return DSM()


def default_reference() -> Reference:
    """Dimension of the training data by maximum likelihood over neighbours."""
    from vestige.audit.geometry.mle import MLE

    return Neighbourhood(MLE())

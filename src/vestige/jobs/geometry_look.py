"""Asking a model and what it is compared with, whichever kind each is."""

from __future__ import annotations

from vestige.audit.geometry.estimator import ModelEstimator
from vestige.audit.probe import Condition
from vestige.data.split import Split
from vestige.errors import InvalidInput, NeedsAccess
from vestige.execute import Context
from vestige.jobs.geometry_measure import (
    Baseline,
    Look,
    Neighbourhood,
    NoReference,
    Reference,
    Unconditional,
    data_look,
    generator_look,
    model_look,
    unconditional,
)
from vestige.jobs.geometry_points import Generated, Points
from vestige.jobs.geometry_question import Question
from vestige.jobs.resolve import Loading, resolve_model
from vestige.models.adapters.gan import GanGenerator
from vestige.models.denoiser import Denoiser
from vestige.models.guidance import Guided
from vestige.models.subject import Subject


def check_asked(subject: Subject, question: Question) -> None:
    """Refuse what the model cannot be asked.

    Raises
    ------
    NeedsAccess : the model grants less than the estimator needs. Unsupported : it cannot be told nothing.
    InvalidInput : an estimator, points, a reference or a redrawing that do not suit a GAN.
    """
    if subject.is_gan:
        _check_gan(subject, question)
        return
    denoiser, estimator = subject.opened("The local dimension"), question.estimator
    if not isinstance(estimator, ModelEstimator):
        raise InvalidInput(
            f"{type(estimator).__name__} asks a GAN, and {subject.name} is none.",
            expected="an estimator of diffusion models, such as DSM.",
            remedy="choose another --estimator.",
        )
    if denoiser.access < estimator.access:
        raise NeedsAccess(
            f"{type(estimator).__name__} needs {estimator.access.label}, and {subject.name} grants "
            f"{denoiser.access.label}.",
            expected=f"access to {estimator.access.label}.",
            remedy="choose another --estimator, or pass the model itself.",
        )
    if isinstance(question.reference, Unconditional):
        unconditional(denoiser)


def _check_gan(subject: Subject, question: Question) -> None:
    suits = isinstance(question.reference, Neighbourhood | NoReference) and isinstance(question.points, Generated)
    asked = not isinstance(question.estimator, ModelEstimator) and isinstance(subject.generator, GanGenerator)
    if suits and asked and question.redraw is None:
        return
    raise InvalidInput(
        f"{subject.name} is a GAN: it can be asked at its own generations alone, and has no noise level.",
        expected="generated points, an estimator of a GAN, a reference on the data, and no redrawing.",
        remedy="pass --points generated --estimator generatorspectrum.",
    )


def asked_denoiser(subject: Subject, question: Question) -> Denoiser:
    """The denoiser, guided if it should be."""
    denoiser = subject.opened("The local dimension")
    return denoiser if question.guidance is None else Guided(denoiser, question.guidance)


def look_at_model(question: Question, subject: Subject, points: Points, context: Context) -> Look:
    """The model's dimension at points and controls."""
    estimator = question.estimator
    name = type(estimator).__name__
    if isinstance(estimator, ModelEstimator):
        denoiser = asked_denoiser(subject, question)
        return model_look(denoiser, estimator, points, question.condition, context, question.scale, name)
    if not isinstance(subject.generator, GanGenerator):
        raise NeedsAccess(
            f"{name} needs a GAN's network.", expected="a GAN.", remedy="pass the model instead of its images."
        )
    return generator_look(subject.generator, estimator, points, context, name)


def resolve_baseline(reference: Reference, loading: Loading) -> Subject | None:
    """The less fitted model, where that is the reference."""
    return resolve_model(reference.model, loading) if isinstance(reference, Baseline) else None


def look_at_reference(
    question: Question, subject: Subject, baseline: Subject | None, points: Points, who: Split, context: Context
) -> Look | None:
    """What the model's dimension is compared with, None for nothing."""
    reference, estimator = question.reference, question.estimator
    kind = type(estimator).__name__
    if isinstance(reference, Neighbourhood):
        return data_look(reference.estimator, points, who, context, type(reference.estimator).__name__)
    if not isinstance(estimator, ModelEstimator):
        return None
    if isinstance(reference, Unconditional):
        inner = subject.opened("The unconditional dimension")
        name = f"{kind} of the unconditional model"
        return model_look(inner, estimator, points, Condition.NULL, context, question.scale, name)
    if baseline is not None:
        other = baseline.opened("The baseline's dimension")
        name = f"{kind} of {baseline.name}"
        return model_look(other, estimator, points, question.condition, context, question.scale, name)
    return None

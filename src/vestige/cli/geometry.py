"""The command that says why samples are memorized: geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vestige.cli.options import NullCondition, Out, Overwrite, Seed, ShowImages, SkipCorrupt
from vestige.dependencies import require_working_dependencies
from vestige.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from vestige.audit.geometry.estimator import ModelEstimator
    from vestige.jobs.geometry import Choice, GeneratorEstimator, Reference


def register(app: typer.Typer) -> None:
    """Put the command on the command line."""
    app.command(
        epilog="Examples: vestige geometry my-ddpm/ --data train/ --non-members held-out/ --out why"
        "  |  vestige geometry my-ddpm/ --data train/ --non-members held-out/ --points generated --redraw --out why"
    )(geometry)


def geometry(
    model: Annotated[str, typer.Argument(help="diffusers or GAN folder, or zoo name.")],
    out: Out,
    data: Annotated[str | None, typer.Option(help="Training images, every copy included.")] = None,
    non_members: Annotated[str | None, typer.Option(help="Images from the same source, never trained on.")] = None,
    points: Annotated[str, typer.Option(help="What is judged: rows (training images) or generated.")] = "rows",
    count: Annotated[int, typer.Option(min=2, help="How many; every duplicated cluster up to half of it.")] = 200,
    controls: Annotated[int, typer.Option(min=0, help="Non-members beside them.")] = 100,
    estimator: Annotated[str | None, typer.Option(help="Of the model's dimension, as `vestige ls` names it.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of an estimator, e.g. --set dsm.draws=8.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Estimator on the data, `unconditional`, `none`, or a model that fitted them less."),
    ] = None,
    at: Annotated[float, typer.Option(help="Noise level sigma/alpha at which dimensions are compared.")] = 0.25,
    own_level: Annotated[
        bool, typer.Option("--own-level", help="Read each point where its own curve is level, instead.")
    ] = False,
    quantile: Annotated[float, typer.Option(help="Share of non-members whose dimension counts as low.")] = 0.05,
    condition: Annotated[str, typer.Option(help="What the model is told of an image: own (label) or null.")] = "own",
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    extracted: Annotated[
        Path | None, typer.Option(help="Audit of this model: what came out is the truth for overfitting.")
    ] = None,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Refuse generations of low dimension and draw again.")
    ] = False,
    detectors: Annotated[
        bool, typer.Option("--detectors", help="Compare with score norm, guidance norm, sharpness and others.")
    ] = False,
    sampler: Annotated[str, typer.Option(help="ddim, ddpm or heun.")] = "ddim",
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps an image.")] = 20,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images a network evaluation. Results do not depend on it.")
    ] = 128,
    null_condition: NullCondition = None,
    seed: Seed = 0,
    skip_corrupt: SkipCorrupt = False,
    show_images: ShowImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Say why samples are memorized: overfitting, the data, or not at all. Exit code: 0, 1 finding, 3 inconclusive."""
    require_working_dependencies()
    from vestige.audit.geometry.redraw import Redraw
    from vestige.audit.geometry.verdict import Rule
    from vestige.audit.probe import Condition
    from vestige.cli.display import bars, finish
    from vestige.jobs.geometry import geometry as run
    from vestige.models.sampler import SAMPLERS

    asked = _one_of("--points", points, ("rows", "generated"))
    told = Condition(_one_of("--condition", condition, [c.value for c in Condition]))
    steps_of = SAMPLERS[_one_of("--sampler", sampler, list(SAMPLERS))]
    settings = _settings(setting or [])
    looked, against = _estimator(estimator, settings), _reference(reference, settings)
    _used(settings)
    with bars() as progress:
        done = run(
            model,
            data,
            non_members=non_members,
            out=out,
            points=_choice(asked, count, controls),
            estimator=looked,
            reference=against,
            rule=Rule(quantile=quantile),
            scale=None if own_level else at,
            condition=told,
            guidance=guidance,
            redraw=Redraw() if redraw else None,
            detectors=detectors,
            extracted=extracted,
            sampler=steps_of(steps=steps),
            seed=seed,
            batch_size=batch_size,
            null_condition=null_condition,
            skip_corrupt=skip_corrupt,
            show_images=show_images,
            overwrite=overwrite,
            progress=progress,
        )
    finish(done, f"vestige report {out} --show-images")


def _one_of(option: str, value: str, names: Sequence[str]) -> str:
    if value.lower() in names:
        return value.lower()
    raise InvalidInput(
        f"{option} {value} is not known.", expected=f"one of {', '.join(names)}.", remedy=f"correct {option}."
    )


def _choice(points: str, count: int, controls: int) -> Choice:
    from vestige.jobs.geometry import Generated, Rows

    return Generated(count, controls) if points == "generated" else Rows(count, controls)


def _settings(texts: Sequence[str]) -> dict[str, list[str]]:
    """``NAME.FIELD=VALUE`` by lower-case name of the estimator."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, dot, field = text.partition(".")
        if not dot:
            raise InvalidInput(
                f"--set {text} names no estimator.", expected="ESTIMATOR.NAME=VALUE.", remedy="e.g. --set dsm.draws=8."
            )
        found.setdefault(name.lower(), []).append(field)
    return found


def _estimator(name: str | None, settings: dict[str, list[str]]) -> ModelEstimator | GeneratorEstimator:
    import vestige.audit.geometry
    from vestige.audit.geometry.estimator import ModelEstimator
    from vestige.audit.geometry.generated_neighbourhood import GeneratedNeighbourhood
    from vestige.audit.geometry.generator_spectrum import GeneratorSpectrum
    from vestige.cli.settings import with_settings
    from vestige.discover import method
    from vestige.jobs.geometry import default_estimator

    chosen = type(default_estimator()).__name__ if name is None else name
    for gan in (GeneratorSpectrum, GeneratedNeighbourhood):
        if chosen.lower() == gan.__name__.lower():
            return with_settings(gan, settings.pop(chosen.lower(), []))
    kind = method(vestige.audit.geometry, ModelEstimator, chosen)
    return with_settings(kind, settings.pop(kind.__name__.lower(), []))


def _reference(name: str | None, settings: dict[str, list[str]]) -> Reference:
    import vestige.audit.geometry
    from vestige.audit.geometry.estimator import DataEstimator
    from vestige.cli.settings import with_settings
    from vestige.discover import methods
    from vestige.jobs.geometry import Baseline, Neighbourhood, NoReference, Unconditional, default_reference

    every = methods(vestige.audit.geometry, DataEstimator)
    by_name = {key.lower(): kind for key, kind in every.items()}
    if name is None:
        default = default_reference()
        if not isinstance(default, Neighbourhood):
            return default
        name = type(default.estimator).__name__
    if name.lower() in by_name:
        return Neighbourhood(with_settings(by_name[name.lower()], settings.pop(name.lower(), [])))
    if name.lower() in ("none", "unconditional"):
        return NoReference() if name.lower() == "none" else Unconditional()
    from vestige.zoo import MODELS

    if name in MODELS or Path(name).exists():
        return Baseline(name)
    raise NotFound(
        f"No reference is called '{name}'.",
        expected=f"one of {', '.join(every)}, unconditional, none, or the path of a model.",
        remedy="correct --reference.",
    )


def _used(settings: dict[str, list[str]]) -> None:
    """Refuse settings of an estimator that was not asked for."""
    if settings:
        name = next(iter(settings))
        raise InvalidInput(
            f"--set {name}.{settings[name][0]} belongs to no estimator of this run.",
            expected="a setting of the --estimator or the --reference.",
            remedy="correct it, or choose that estimator.",
        )

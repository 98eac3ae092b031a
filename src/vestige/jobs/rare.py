"""``vestige rare``: rare, different samples of a generator, beside simpler ways to them, and whether they are new."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.data.images import ImageSet, check_fits
from vestige.data.split import Split, split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.jobs.audit import Findings, examine
from vestige.jobs.audit import evidence as audit_evidence
from vestige.jobs.metrics_features import DIGITS, PIXELS, ExtractorLike, open_extractor
from vestige.jobs.metrics_features import Measured as Kept
from vestige.jobs.rare_files import copied_ones, near, rarest_first, write_files
from vestige.jobs.rare_generator import GeneratorLike, Opened, open_generator
from vestige.jobs.rare_methods import Comparison, Method, compare
from vestige.jobs.rare_pictures import strips
from vestige.jobs.rare_results import Results, reasons, summary
from vestige.jobs.rare_score import Judge
from vestige.jobs.rare_stage import SpaceLike, image_shape, open_space, set_stage
from vestige.jobs.rare_sweep import sweep
from vestige.jobs.rare_tables import beside, ground, sweeps
from vestige.jobs.rare_ways import own_ways
from vestige.jobs.resolve import DataLike, describe, resolve_data, zoo_entry
from vestige.jobs.run import Desk, Run, environment, now, plain
from vestige.models.generator import SampleBank
from vestige.models.subject import Subject
from vestige.progress import Progress, Silent
from vestige.rare.density.density import Density
from vestige.rare.objective import Controls, Objective, RareSearch
from vestige.rare.settings import settings
from vestige.record import Estimate, NotDone, Record, Section, Verdict
from vestige.report.evidence import Evidence
from vestige.report.folder import write
from vestige.zoo import zoo_model

GROUP = 8
"""Samples that are to differ from one another, unless fewer are asked for."""


def rare(
    generator: GeneratorLike,
    data: DataLike,
    *,
    out: str | Path,
    count: int = 64,
    reference: str | Path | None = None,
    method: Method | None = None,
    group: int = GROUP,
    calls: int = 600,
    train: DataLike | None = None,
    features: SpaceLike | None = None,
    judge: ExtractorLike = "edges",
    densities: Sequence[Density] | None = None,
    neighbours: int = 3,
    sweeping: bool = True,
    seed: int = 0,
    batch_size: int = 128,
    skip_corrupt: bool = False,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Find ``count`` rare images of a generator in groups, compare, score in a second space, and audit them.

    Parameters
    ----------
    generator : zoo name, folder of a GAN or diffusers model, or an object (any callable as a LatentGenerator).
    data : real images of the generator's size: folder, ``.npz``, ``ZOO:held-out`` or an ImageSet.
    reference : image file that all groups stay near. Without, each group stays near a draw of the generator.
    method : a search (its ``members`` are replaced by ``group``) or a baseline; RareSearch if absent.
    calls : generator calls a sample where the method is a baseline; a search pays what it costs.
    train : what the generator was trained on, to tell new samples from copies. A zoo model brings its own; otherwise
        ``data`` is taken for it.
    features : the space that selects: ``pixels``, ``digits``, folder of a vision model, or a Space.
    judge : the space that scores, another one: ``edges``, ``pixels``, ``digits``, a folder, or an extractor.
    densities : candidates for the density of real images; those of vestige.rare.density.choose that fit, if absent.
    neighbours : k of the real balls, in both spaces.
    sweeping : whether every control is swept; RareSearch only.
    out : folder for images, latents, report and record; the same call resumes there.

    Raises
    ------
    InvalidInput : selecting and scoring space are one; constant features; a reference outside the real manifold.
    EmptySet : not more real images than neighbours. ShapeMismatch : images of another size or colour.
    NotFound, Unsupported, BadWeights, CorruptFile, MissingExtra : see each message.
    """
    if count < 1 or group < 1 or calls < 1:
        raise InvalidInput(
            f"count={count}, group={group}, calls={calls}.", expected="at least 1 of each.", remedy="change the option."
        )
    opened = open_generator(generator, batch_size=batch_size)
    images, who, skipped = _data(generator, opened, data, train, skip_corrupt)
    space, extractor = _spaces(generator, opened, features, judge)
    chosen = RareSearch() if method is None else method
    if isinstance(chosen, Objective):
        opened.generator.need_gradient(type(chosen).__name__)
    group = min(group, count)
    groups = -(-count // group)
    digests = {"generator": opened.generator.digest, "data": images.digest, "train": who.digest}
    digests |= {"selects": space.digest, "scores": extractor.digest}
    config = {
        "generator": opened.name,
        "data": describe(data),
        "train": describe(train),
        "reference": None if reference is None else str(reference),
        "count": count,
        "group": group,
        "calls": calls,
        "method": settings(chosen),
        "features": space.name,
        "judge": extractor.name,
        "densities": None if densities is None else [settings(density) for density in densities],
        "neighbours": neighbours,
        "sweeping": sweeping,
        "seed": seed,
        "skip_corrupt": skip_corrupt,
        "digests": digests,
    }
    desk = Desk(Path(out), plain(config), seed, batch_size, progress or Silent(), overwrite)
    stage = set_stage(
        opened,
        images,
        space,
        controls=chosen.controls if isinstance(chosen, RareSearch) else Controls(),
        groups=groups,
        reference=reference,
        densities=densities,
        neighbours=neighbours,
        seed=seed,
    )
    spare = groups * group - count
    comparison = compare(
        stage.scene,
        stage.references,
        chosen,
        group,
        spare,
        calls * group,
        own_ways(opened, desk.context),
        desk.context,
    )
    swept = sweep(stage, chosen, desk.context) if sweeping and isinstance(chosen, RareSearch) else []
    kept = Kept(extractor, desk.context)
    judged = Judge(
        extractor, kept.of(stage.real, "real images"), kept.of(who.members, "training images"), neighbours, seed
    )
    found = Results(opened, stage, comparison, judged, swept)
    audited = _audit(comparison, who, desk.context)
    return _leave(desk, found, audited, who, digests, skipped, reference, show_images)


def _data(
    generator: GeneratorLike, opened: Opened, data: DataLike, train: DataLike | None, skip_corrupt: bool
) -> tuple[ImageSet, Split, tuple[str, ...]]:
    """Real images, and what is compared with as training images."""
    images, skipped = resolve_data(data, skip_corrupt=skip_corrupt)
    images = images.required("to be rare among")
    shape = image_shape(opened)
    check_fits(images, shape, opened.name)
    entry = zoo_entry(generator)
    if train is None and entry is None:
        seen = images
    else:
        seen, more = resolve_data(f"{opened.name}:train" if train is None else train, skip_corrupt=skip_corrupt)
        skipped += more
    check_fits(seen, shape, opened.name)
    others = None if seen.digest == images.digest else images
    return images, split(seen, others), skipped


def _spaces(
    generator: GeneratorLike, opened: Opened, features: SpaceLike | None, judge: ExtractorLike
) -> tuple[Any, Any]:
    """The space that selects and the extractor that scores; they must differ."""
    entry, shape = zoo_entry(generator), opened.generator.shape
    digits = shape == (1, 28, 28)
    named = features if features is not None else (DIGITS if entry is not None and digits else PIXELS)
    space = open_space(named, zoo_model("digits-gan").classifier() if digits else None, shape)
    extractor = open_extractor(judge)
    if space.digest == extractor.digest or str(judge) == str(named):
        raise InvalidInput(
            f"{space.name} was to select the samples and to score them.",
            expected="two spaces: a method looks good in the one that it chooses by.",
            remedy="change --features or --judge.",
        )
    return space, extractor


def _audit(comparison: Comparison, who: Split, context: Context) -> Findings | None:
    """The extraction of an audit, on the samples that were found; None where there are none."""
    pixels = comparison.chosen.pixels
    if not len(pixels):
        return None
    subject = Subject.of_samples("rare samples", SampleBank(pixels))
    return examine(subject, who, [GenerateAndFilter(generations=len(pixels))], context)


def _leave(
    desk: Desk,
    found: Results,
    audited: Findings | None,
    who: Split,
    digests: dict[str, str],
    skipped: tuple[str, ...],
    reference: str | Path | None,
    show_images: bool,
) -> Run:
    """Write images, latents, rows, report and record."""
    order = rarest_first(found.comparison)
    copied = copied_ones(audited)
    write_files(found, order, copied, desk.out)
    sections = [_found(found, copied), beside(found)]
    lines = summary(found)
    if audited is not None:
        sections += [outcome.section for outcome in audited.outcomes.values()]
        lines += [
            Estimate(
                name="rare/copied",
                value=float(copied.mean()),
                n=len(copied),
                unit="share",
                note="copies of a training image, by the calibrated pixel distance",
            ),
            *(line for line in audited.summary if "@" not in line.name),
        ]
    sections += [*sweeps(found), ground(found, skipped)]
    generator = found.opened.generator
    record = Record(
        command="rare",
        title=f"Rare samples of {found.opened.name}",
        created=now(),
        subject={"name": found.opened.name, "digest": generator.digest, "kind": "generator from latents"},
        access="weights" if generator.differentiable else "samples",
        config=desk.config,
        digests=digests,
        seeds={"seed": desk.seed},
        environment=environment(),
        cost=desk.cost(generator.calls.forward_equivalents),
        verdict=Verdict.NONE,
        reasons=[*reasons(found), _novelty(copied, who)],
        summary=lines,
        sections=sections,
        not_done=_not_done(found, who),
    )
    pictures = strips(found.comparison.chosen.pixels[order], found.comparison, found.swept, near(found, reference))
    known = {section.name for section in sections}
    pairs = audit_evidence(audited, who).pairs if audited is not None else {}
    whole = Evidence(pairs, {name: rows for name, rows in pictures.items() if name in known})
    whole.save(desk.out / "evidence.npz")
    # Generated images were asked for; training images beside them only where --show-images says so.
    write(record, desk.out, whole if show_images else Evidence({}, whole.strips))
    return Run(desk.out, record)


def _found(found: Results, copied: npt.NDArray[np.bool_]) -> Section:
    measured = found.comparison.chosen.measured
    if measured is None:
        return Section(name="found", title="What was found", text=reasons(found))
    outside = int((~measured.accepted[measured.present]).sum())
    text = [
        f"{len(copied)} images by {found.comparison.chosen.name}, those in the real manifold first, by rising density. "
        f"{outside} lie outside it or too far from their reference and come last (an orange frame in sheet.png); "
        f"{int(copied.sum())} copy a training image (a red frame). Latents are in latents.safetensors, in this order; "
        "rows.jsonl holds the numbers of each."
    ]
    return Section(name="found", title="What was found", text=text)


def _novelty(copied: npt.NDArray[np.bool_], who: Split) -> str:
    if not len(copied):
        return "There is nothing to audit."
    return (
        f"{int(copied.sum())} of {len(copied)} samples copy one of {len(who.members):,} training images by the audit's "
        "calibrated pixel distance; the others are new by it."
    )


def _not_done(found: Results, who: Split) -> list[NotDone]:
    missing: list[NotDone] = []
    if who.others is None:
        missing.append(
            NotDone(
                what="the rate of false copies",
                reason="The real images and the training images are the same.",
                remedy="pass real images that the generator never saw as --data, and its training images as --train.",
            )
        )
    if found.comparison.start is None:
        missing.append(
            NotDone(
                what="the spread beside that of the starts",
                reason="A baseline has no starts.",
                remedy="run a search: --method raresearch.",
            )
        )
    return missing

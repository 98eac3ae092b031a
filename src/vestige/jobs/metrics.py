"""``vestige metrics``: how good, how diverse and how rare generated images are beside real ones, and whether new."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vestige.data.images import ImageSet
from vestige.errors import ShapeMismatch
from vestige.jobs.metrics_features import PIXELS, ExtractorLike, Measured, open_extractor
from vestige.jobs.metrics_report import Measurements, evidence, not_done, reasons, sections, summary
from vestige.jobs.resolve import DataLike, describe, resolve_data
from vestige.jobs.run import Desk, Run, environment, now, plain
from vestige.metrics.neighbours import neighbour_metrics
from vestige.progress import Progress, Silent
from vestige.record import Record, Verdict
from vestige.store import write_text


def metrics(
    generated: DataLike,
    data: DataLike,
    *,
    out: str | Path,
    train: DataLike | None = None,
    features: ExtractorLike = PIXELS,
    neighbours: int = 3,
    seed: int = 0,
    skip_corrupt: bool = False,
    show_images: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Measure generated images against real ones, and against training images where these are given.

    Parameters
    ----------
    generated, data : folder, ``.npz``, ``ZOO:train``, ``ZOO:held-out`` or an ImageSet; all of one size and colour.
    train : what the generator was trained on; then it is measured whether its images are new.
    features : ``pixels``, ``digits``, the folder of a vision model of transformers, or an extractor. All numbers are
        those of this space; features in which images were selected flatter them.
    neighbours : k of every metric of neighbours.
    out : folder for report and record; the same call resumes there.
    seed : deals rows into groups for intervals.

    Raises
    ------
    EmptySet : no images, or not more of a set than neighbours.
    ShapeMismatch : images of different size or colour.
    InvalidInput : features that are not finite, or equal for all real images.
    NotFound, CorruptFile, MissingExtra : see each message.
    """
    told = progress or Silent()
    sets = {
        name: resolve_data(source, skip_corrupt=skip_corrupt)
        for name, source in (("generated", generated), ("real", data), ("training", train))
        if source is not None
    }
    images = {name: found[0].required("to measure") for name, found in sets.items()}
    skipped = tuple(file for _, files in sets.values() for file in files)
    _alike(images)
    extractor = open_extractor(features)
    digests = {"features": extractor.digest, **{name: part.digest for name, part in images.items()}}
    config = {
        "generated": describe(generated),
        "data": describe(data),
        "train": describe(train),
        "features": extractor.name,
        "neighbours": neighbours,
        "skip_corrupt": skip_corrupt,
        "seed": seed,
        "digests": digests,
    }
    desk = Desk(Path(out), plain(config), seed, progress=told, overwrite=overwrite)
    measured = Measured(extractor, desk.context)
    rows = {name: measured.of(part, f"{len(part):,} {name} images") for name, part in images.items()}
    found = Measurements(
        images,
        rows,
        extractor.name,
        extractor.digest,
        neighbour_metrics(
            rows["generated"], rows["real"], rows.get("training"), neighbours=neighbours, seed=seed, progress=told
        ),
        seed,
    )
    record = Record(
        command="metrics",
        title=f"{images['generated'].source} beside real images",
        created=now(),
        subject={"name": images["generated"].source, "digest": digests["generated"], "kind": "generated images"},
        access="samples",
        config=desk.config,
        digests=digests,
        seeds={"seed": seed},
        environment=environment(),
        cost=desk.cost(measured.evaluations),
        verdict=Verdict.NONE,
        reasons=reasons(found),
        summary=summary(found),
        sections=sections(found, skipped),
        not_done=not_done(found),
    )
    _write_rows(found, desk.out)
    return desk.finish(record, evidence(found), show_images)


def _alike(images: dict[str, ImageSet]) -> None:
    base = images["real"]
    for name, part in images.items():
        if part.shape != base.shape:
            raise ShapeMismatch(
                f"The {name} images have (channels, height, width) {part.shape}, the real ones {base.shape}.",
                expected="one size and colour.",
                remedy="bring them to one size in one way: how images are resized changes every number.",
            )


def _write_rows(found: Measurements, out: Path) -> None:
    """``rows.jsonl``: one line a generated image with what was measured of it."""
    generated, real, metrics_ = found.images["generated"], found.images["real"], found.neighbours
    lines: list[str] = []
    for row, (identity, name) in enumerate(zip(generated.ids, generated.names, strict=True)):
        score = float(metrics_.rarity.scores[row])
        line = {
            "row": row,
            "id": identity,
            "name": name,
            "inside": not np.isnan(score),
            "rarity": None if np.isnan(score) else score,
            "percentile": None if np.isnan(score) else float(metrics_.rarity.percentiles[row]),
            "nearest_real": real.ids[metrics_.nearest_index[row]],
            "nearest_real_distance": float(metrics_.nearest[row]),
        }
        if metrics_.training is not None:
            line |= {
                "nearest_training": found.images["training"].ids[metrics_.training.index[row]],
                "nearest_training_distance": float(metrics_.training.nearest[row]),
                "authentic": bool(metrics_.training.authentic[row]),
            }
        lines.append(json.dumps(line))
    write_text(out / "rows.jsonl", "\n".join(lines) + "\n")

"""``vestige metrics``: how good, how diverse and how rare generated images are beside real ones, and whether new."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vestige.data.images import ImageSet
from vestige.errors import EmptySet, ShapeMismatch
from vestige.jobs.metrics_features import PIXELS, ExtractorLike, Measured, open_extractor
from vestige.jobs.metrics_report import Measurements, not_done, reasons, summary
from vestige.jobs.metrics_tables import evidence, sections
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
    images, skipped = _images(generated, data, train, skip_corrupt)
    _fit(images, neighbours)
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
    desk = Desk(Path(out), plain(config), seed, progress=progress or Silent(), overwrite=overwrite)
    measured = Measured(extractor, desk.context)
    rows = {name: measured.of(part, f"{len(part):,} {name} images") for name, part in images.items()}
    near = neighbour_metrics(
        rows["generated"], rows["real"], rows.get("training"), neighbours=neighbours, seed=seed, progress=desk.progress
    )
    found = Measurements(images, rows, extractor.name, extractor.digest, near, seed)
    lines, parts = summary(found), sections(found, skipped)
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
        summary=lines,
        sections=parts,
        not_done=not_done(found),
    )
    _write_rows(found, desk.out)
    return desk.finish(record, evidence(found), show_images)


def _images(
    generated: DataLike, data: DataLike, train: DataLike | None, skip_corrupt: bool
) -> tuple[dict[str, ImageSet], tuple[str, ...]]:
    """Images by side, and the names of skipped files."""
    given = {"generated": generated, "real": data} | ({} if train is None else {"training": train})
    opened = {name: resolve_data(source, skip_corrupt=skip_corrupt) for name, source in given.items()}
    images = {name: found.required("to measure") for name, (found, _) in opened.items()}
    return images, tuple(file for _, files in opened.values() for file in files)


def _fit(images: dict[str, ImageSet], neighbours: int) -> None:
    """Raise unless the images are alike and enough."""
    base = images["real"]
    for name, part in images.items():
        if part.shape != base.shape:
            raise ShapeMismatch(
                f"The {name} images have (channels, height, width) {part.shape}, the real ones {base.shape}.",
                expected="one size and colour.",
                remedy="bring them to one size in one way: how images are resized changes every number.",
            )
        if name != "training" and len(part) <= neighbours:
            raise EmptySet(
                f"There are {len(part)} {name} images.",
                expected=f"more than the {neighbours} neighbours of each.",
                remedy="give more images, or a smaller --k.",
            )


def _write_rows(found: Measurements, out: Path) -> None:
    """``rows.jsonl``: one line a generated image with what was measured of it."""
    generated, real, near = found.images["generated"], found.images["real"], found.neighbours
    scored, lines = near.rarity.inside, list[str]()
    for row, (identity, name) in enumerate(zip(generated.ids, generated.names, strict=True)):
        inside = bool(scored[row])
        line: dict[str, Any] = {
            "row": row,
            "id": identity,
            "name": name,
            "inside": inside,
            "rarity": float(near.rarity.scores[row]) if inside else None,
            "percentile": float(near.rarity.percentiles[row]) if inside else None,
            "nearest_real": real.ids[near.nearest_index[row]],
            "nearest_real_distance": float(near.nearest[row]),
        }
        if near.training is not None:
            line |= {
                "nearest_training": found.images["training"].ids[near.training.index[row]],
                "nearest_training_distance": float(near.training.nearest[row]),
                "authentic": bool(near.training.authentic[row]),
            }
        lines.append(json.dumps(line))
    write_text(out / "rows.jsonl", "\n".join(lines) + "\n")

"""What an erasure left behind and what it harmed, measured against non-members and a retrained model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.audit.errors import error_table
from vestige.audit.extraction.generate_and_filter import Generations
from vestige.audit.geometry.dsm import dsm_dimension
from vestige.audit.membership.denoising_loss import choose
from vestige.data.images import ImageSet
from vestige.data.split import Split, duplicate_groups
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.features.extractor import Classifier, FeatureExtractor
from vestige.metrics.classes import accuracy
from vestige.metrics.frechet import Gaussian, frechet_interval
from vestige.metrics.interval import Interval, estimate, mean_interval, ratio_interval
from vestige.models.denoiser import Denoiser
from vestige.record import Cell, Estimate, Figure, Section, Series, Table

Floats = npt.NDArray[np.float64]
Part = tuple[list[Estimate], Section]


@dataclass(frozen=True)
class Probe:
    """Where and how often the denoising error is measured.

    ``residue_times`` are small noise levels, where the summed error is a dimension;
    ``retain_times`` spread over the schedule; ``rows`` bounds the non-members and the
    retained images that are compared.
    """

    residue_times: tuple[float, ...] = (0.1, 0.2, 0.3)
    retain_times: tuple[float, ...] = (0.1, 0.3, 0.6)
    draws: int = 4
    rows: int = 200

    def __post_init__(self) -> None:
        if self.draws < 1 or self.rows < 2 or not self.residue_times or not self.retain_times:
            raise InvalidInput(
                f"draws={self.draws}, rows={self.rows}, times {self.residue_times} and {self.retain_times}.",
                expected="at least 1 draw, 2 rows and one time for each.",
                remedy="change the probe.",
            )

    def settings(self) -> dict[str, Any]:
        """Fields as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


@dataclass(frozen=True, eq=False)
class Comparison:
    """The models and rows that are compared: base, erased, and a retrained model where there is one.

    ``rows`` are the members that the erasure in question forgets, ``earlier`` those that it found forgotten.
    """

    base: Denoiser
    erased: Denoiser
    retrained: Denoiser | None
    who: Split
    rows: npt.NDArray[np.int64]
    context: Context
    probe: Probe
    earlier: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def models(self) -> dict[str, Denoiser]:
        """Models by the name that tables give them."""
        named = {"before": self.base, "after": self.erased}
        return named if self.retrained is None else {**named, "retrained": self.retrained}

    @property
    def kept(self) -> npt.NDArray[np.int64]:
        """Members that are not forgotten."""
        return np.setdiff1d(np.arange(len(self.who.members)), np.union1d(self.rows, self.earlier))

    def table(self, model: Denoiser, images: ImageSet, times: tuple[float, ...], label: str) -> npt.NDArray[np.float32]:
        """Squared noise errors [rows, times, draws]."""
        return error_table(model, images, times, self.probe.draws, self.context, label=label)


def generation_section(
    parts: Comparison,
    before: Generations | None,
    after: Generations | None,
    features: FeatureExtractor,
    judge: Classifier | None,
) -> Part:
    """Fréchet distance of generations to the retained images, and whether classes are still drawn."""
    lines: list[Estimate] = []
    retained = parts.who.members.pixels[np.repeat(parts.kept, parts.who.exact[parts.kept])]
    target = Gaussian.fit(features.features(retained))
    for name, made in (("before", before), ("after", after)):
        unit, key = "squared feature units", f"erase/frechet_{name}"
        if made is None:
            lines.append(Estimate(name=key, value=None, unit=unit, note="no generations were sampled"))
            continue
        found = frechet_interval(features.features(made.pixels), target, seed=parts.context.seed)
        lines.append(estimate(key, found, unit, f"to retained images, in {features.name}"))
        if judge is not None and made.condition is not None:
            right = accuracy(judge.probabilities(made.pixels), made.condition)
            lines.append(estimate(f"erase/class_accuracy_{name}", right, "share of generations"))
    words = [f"Quality is measured on the audit's own generations in {features.name} (digest {features.digest[:12]})."]
    return lines, Section(name="quality", title="Quality: do generations still look like the retained data", text=words)


def retention_section(parts: Comparison) -> Part:
    """Denoising loss of retained members before and after, with the retrained model beside."""
    chosen = parts.kept[choose(len(parts.kept), parts.probe.rows, parts.context.seed)]
    images = parts.who.members.take(chosen)
    losses = {
        name: parts.table(model, images, parts.probe.retain_times, f"retained images, {name}").mean(axis=(1, 2))
        for name, model in parts.models.items()
    }
    ratio = ratio_interval(losses["after"], losses["before"], seed=parts.context.seed)
    lines = [estimate("erase/retain_loss_ratio", ratio, "after / before", "denoising loss on members not forgotten")]
    if "retrained" in losses:
        other = ratio_interval(losses["retrained"], losses["before"], seed=parts.context.seed)
        lines.append(estimate("erase/retain_loss_ratio_retrained", other, "retrained / before"))
    rows: list[list[Cell]] = [
        [name, *_cells(mean_interval(values / float(np.prod(images.shape))), 5)] for name, values in losses.items()
    ]
    table = Table(
        name="retention",
        title="Denoising loss on retained images",
        columns=["model", "loss a pixel", "low", "high"],
        rows=rows,
        caption=f"{len(images)} members that were not forgotten, the same noise for every model.",
    )
    return lines, Section(name="retention", title="Retention: what was kept", tables=[table])


def residue_section(parts: Comparison) -> Part:
    """Local dimension of the forgotten images: before, after, retrained, and non-members."""
    gone = parts.who.members.take(parts.rows)
    times = parts.probe.residue_times
    dimension = {
        name: dsm_dimension(parts.table(model, gone, times, f"residue, {name}")) for name, model in parts.models.items()
    }
    lines = [
        estimate(f"erase/residue_{name}", mean_interval(values), "local dimension")
        for name, values in dimension.items()
    ]
    outside = _outside(parts)
    if outside is None:
        note = "no non-members were given to compare with"
        lines.append(Estimate(name="erase/residue_nonmembers", value=None, unit="local dimension", note=note))
    else:
        lines.append(estimate("erase/residue_nonmembers", mean_interval(outside), "local dimension"))
    copies = parts.who.copies[parts.rows]
    groups = [(name, {k: v[mask] for k, v in dimension.items()}) for name, mask in duplicate_groups(copies)]
    section = Section(
        name="residue",
        title="Residue: the trace that geometry still shows",
        text=[
            "The summed squared noise error at small noise estimates the local dimension of what the model learned "
            "around an image: near 0 for a memorized one, at the non-members' level for one it never saw. A value "
            "between the two means that the image no longer comes out and yet has left its mark; a value above means "
            "that it was forgotten further than an image never seen, which is a mark as well.",
            _reading(lines),
        ],
        tables=[_residue_table(groups, outside)],
        figures=[_residue_figure(groups, outside)],
    )
    return lines, section


def _outside(parts: Comparison) -> Floats | None:
    if parts.who.others is None:
        return None
    chosen = choose(len(parts.who.others), parts.probe.rows, parts.context.seed)
    images = parts.who.others.take(chosen)
    return dsm_dimension(parts.table(parts.erased, images, parts.probe.residue_times, "residue, non-members"))


def _reading(lines: Sequence[Estimate]) -> str:
    value = {line.name.removeprefix("erase/residue_"): line for line in lines}
    after, others = value["after"], value["nonmembers"]
    words = f"Forgotten images rise from {value['before'].value or 0:.1f} to {after.value or 0:.1f}"
    if others.value is None:
        return words + "."
    words += f"; non-members stand at {others.value:.1f}"
    if "retrained" in value:
        words += f", the forgotten images in the retrained model at {value['retrained'].value or 0:.1f}"
    if after.high is not None and others.low is not None and after.high < others.low:
        return words + ". The trace remains."
    if after.low is not None and others.high is not None and after.low > others.high:
        return words + ". They were pushed past the level of images never seen."
    return words + ". No trace is left that this estimate can see."


def _cells(part: Interval, digits: int = 2) -> list[Cell]:
    return [round(v, digits) if np.isfinite(v) else None for v in (part.value, part.low, part.high)]


def _residue_table(groups: list[tuple[str, dict[str, Floats]]], outside: Floats | None) -> Table:
    rows: list[list[Cell]] = [
        [copies, model, len(values), *_cells(mean_interval(values))]
        for copies, by_model in groups
        for model, values in by_model.items()
    ]
    if outside is not None:
        rows.append(["non-members", "after", len(outside), *_cells(mean_interval(outside))])
    return Table(
        name="residue",
        title="Local dimension of forgotten images, by duplicate count",
        columns=["copies in training data", "model", "images", "dimension", "low", "high"],
        rows=rows,
    )


def _residue_figure(groups: list[tuple[str, dict[str, Floats]]], outside: Floats | None) -> Figure:
    names = list(groups[0][1])
    series: list[Series] = []
    for model in names:
        parts = [mean_interval(values[model]) for _, values in groups]
        series.append(_series(model, [copies for copies, _ in groups], parts))
    if outside is not None:
        series.append(_series("non-members", ["non-members"], [mean_interval(outside)]))
    return Figure(
        name="residue",
        title="Local dimension of forgotten images",
        kind="bars",
        series=series,
        x_label="copies in the training data",
        y_label="local dimension",
        caption="Bars: 95 % intervals of the mean. Near zero is memorized; non-members show the unseen level.",
    )


def _series(name: str, x: list[str], parts: Sequence[Interval]) -> Series:
    def finite(value: float) -> float | None:
        return value if np.isfinite(value) else None

    return Series(
        name=name,
        x=list(x),
        y=[finite(p.value) for p in parts],
        low=[finite(p.low) for p in parts],
        high=[finite(p.high) for p in parts],
    )

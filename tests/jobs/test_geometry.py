"""The whole job on models whose memorization is known in closed form."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from vestige.audit.geometry.dsm import DSM
from vestige.audit.geometry.generator_spectrum import GeneratorSpectrum, Measure
from vestige.audit.geometry.mle import MLE
from vestige.audit.geometry.verdict import Rule
from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.errors import DigestMismatch, InvalidInput, NeedsAccess, Unsupported
from vestige.execute import Context
from vestige.jobs.geometry import (
    Baseline,
    Generated,
    Neighbourhood,
    NoReference,
    Redraw,
    Rows,
    Unconditional,
    geometry,
)
from vestige.jobs.geometry_points import choose_points
from vestige.models.adapters.gan import GanGenerator
from vestige.models.generator import SampleBank
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Record, Verdict
from vestige.report.evidence import Evidence
from vestige.store import Store

SIDE, COPIES, ONCE, OTHERS = 5, 64, 60, 60
SPREAD = 0.6
LOOK: dict[str, Any] = {
    "estimator": DSM(ratios=(0.1, 0.2, 0.4), draws=4),
    "reference": Neighbourhood(MLE((5, 10))),
    "scale": 0.1,
    "rule": Rule(quantile=0.1),
}


def _axes() -> np.ndarray:
    """Six orthonormal images: the plane that all data lie in."""
    return np.linalg.qr(np.random.default_rng(9).normal(size=(SIDE**2, 6)))[0]


def plane(count: int, seed: int) -> np.ndarray:
    """Images on a Gaussian of six dimensions, uint8 [count, 1, side, side]."""
    flat = np.random.default_rng(seed).normal(0, SPREAD, (count, 6)) @ _axes().T
    pixels = np.clip(np.round((flat + 1) * 127.5), 0, 255).astype(np.uint8)
    return pixels.reshape(count, 1, SIDE, SIDE)


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSet, ImageSet]:
    """60 images seen once and 6 that stand 64 times in the training data, and 60 that do not."""
    many = np.repeat(plane(6, 1), COPIES, 0)
    return ImageSet(np.concatenate([plane(ONCE, 0), many])), ImageSet(plane(OTHERS, 2))


@pytest.fixture(scope="module")
def memorizer(sets: tuple[ImageSet, ImageSet]) -> EmpiricalDenoiser:
    return EmpiricalDenoiser(sets[0].floats())


@pytest.fixture(scope="module")
def generalizer() -> Any:
    axes = torch.from_numpy(_axes())
    return gaussian_denoiser(torch.zeros(1, SIDE, SIDE, dtype=torch.float64), SPREAD**2 * axes @ axes.T)


@pytest.fixture(scope="module")
def told(sets: Any, memorizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("geometry") / "run"
    return geometry(memorizer, sets[0], non_members=sets[1], out=out, points=Rows(66, 60), show_images=True, **LOOK)


def counts(record: Record, group: str) -> dict[str, Any]:
    section = next(s for s in record.sections if s.name == "verdicts")
    table = section.tables[0]
    row = next(row for row in table.rows if row[0] == group)
    return dict(zip(table.columns, row, strict=True))


def test_a_perfect_memorizer_overfits_what_it_saw_once_and_follows_the_data_where_they_repeat(told: Any) -> None:
    record = told.record
    assert record.verdict is Verdict.FINDING
    once, many = counts(record, "seen once"), counts(record, "64-255 copies")
    assert many["data-driven"] == many["n"] == 6
    assert once["n"] == 60
    # The reference calls up to a tenth of its own non-members low, so as many seen once may look data-driven.
    assert once["overfitting-driven"] >= 0.8 * once["n"]
    assert counts(record, "non-members")["overfitting-driven"] <= 12
    assert record.estimate("geometry/auc@seen once against non-members").value == 1
    line = record.estimate("geometry/auc@copies>=64 against non-members")
    assert line.value == 1
    assert line.low is not None
    assert 0.3 < line.low < 1  # complete separation of six is no certainty
    assert record.estimate("geometry/dimension@seen once").value == pytest.approx(0, abs=0.1)


def test_the_run_has_a_line_a_point_and_pictures_by_verdict(told: Any) -> None:
    lines = [json.loads(line) for line in (told.folder / "points.jsonl").read_text().splitlines()]
    assert len(lines) == 66
    assert {line["copies"] for line in lines} == {1, 64}
    assert all(line["scale"] == pytest.approx(0.1, rel=0.05) for line in lines)
    strips = Evidence.load(told.folder / "evidence.npz").strips["verdicts"]
    assert any("overfitting-driven" in strip.title for strip in strips)
    page = (told.folder / "report.html").read_text()
    assert "data:image/png" in page
    assert "Dimension against noise level" in page
    assert Record.model_validate_json((told.folder / "report.json").read_text()) == told.record


def test_a_perfect_generalizer_passes(sets: Any, generalizer: Any, tmp_path: Any) -> None:
    run = geometry(generalizer, sets[0], non_members=sets[1], out=tmp_path, points=Rows(66, 60), **LOOK)
    assert run.record.verdict is Verdict.PASS
    # 6 v / (v + r^2), v the variance along the plane and r the noise level; a median of 60 means of 4 draws, each with
    # a standard deviation of sqrt(2 * 6 / 4), has one of 0.28.
    truth = 6 * SPREAD**2 / (SPREAD**2 + 0.1**2)
    assert run.record.estimate("geometry/dimension@seen once").value == pytest.approx(truth, abs=0.8)
    interval = run.record.estimate("geometry/auc@seen once against non-members")
    assert interval.low < 0.5 < interval.high


def test_the_same_call_costs_nothing_twice_and_does_not_depend_on_batches(sets: Any, memorizer: Any, told: Any) -> None:
    call = {"non_members": sets[1], "points": Rows(66, 60), "show_images": True, **LOOK}
    before = memorizer.evaluations
    again = geometry(memorizer, sets[0], out=told.folder, batch_size=7, **call)
    assert memorizer.evaluations == before
    assert again.record.summary == told.record.summary
    small = geometry(memorizer, sets[0], out=told.folder.parent / "small", batch_size=7, **call)
    for old, new in zip(told.record.summary, small.record.summary, strict=True):
        assert new.name == old.name
        assert new.value == pytest.approx(old.value, rel=1e-4, abs=1e-6)


def test_without_non_members_nothing_is_decided(sets: Any, memorizer: Any, tmp_path: Any) -> None:
    run = geometry(memorizer, sets[0], out=tmp_path, points=Rows(20, 20), **LOOK)
    assert run.record.verdict is Verdict.INCONCLUSIVE
    assert run.record.estimate("geometry/undetermined").value == 1
    assert "pass --non-members." in {note.remedy for note in run.record.not_done}


def test_without_a_reference_the_cause_is_open_and_the_finding_stands(sets: Any, memorizer: Any, tmp_path: Any) -> None:
    call = {**LOOK, "reference": NoReference()}
    run = geometry(memorizer, sets[0], non_members=sets[1], out=tmp_path, points=Rows(66, 60), **call)
    assert run.record.verdict is Verdict.FINDING
    assert run.record.estimate("geometry/undetermined").value > 0.9
    assert run.record.estimate("geometry/overfitting_driven").value == 0


def test_a_less_fitted_baseline_tells_the_model_apart_from_the_images(
    sets: Any, memorizer: Any, generalizer: Any, tmp_path: Any
) -> None:
    call = {**LOOK, "reference": Baseline(generalizer)}
    run = geometry(memorizer, sets[0], non_members=sets[1], out=tmp_path, points=Rows(66, 60), **call)
    assert run.record.estimate("geometry/overfitting_driven").value > 0.8
    assert run.record.config["baseline"]["digest"] == generalizer.digest


def test_generations_of_a_memorizer_are_copies_and_said_to_be_memorized(
    sets: Any, memorizer: Any, tmp_path: Any
) -> None:
    run = geometry(
        memorizer,
        sets[0],
        non_members=sets[1],
        out=tmp_path,
        points=Generated(20, 60),
        redraw=Redraw(rounds=1),
        sampler=DDIM(steps=20),
        **LOOK,
    )
    record = run.record
    assert record.verdict is Verdict.FINDING
    assert counts(record, "copies of a training image")["n"] == 20
    # Most training rows are copies of the six, so most generations are.
    assert record.estimate("geometry/data_driven").value > 0.6
    assert record.estimate("redraw/copies_before").value == 1
    assert record.estimate("redraw/refused").value == 1
    assert record.estimate("redraw/cost").value == pytest.approx(2 * (20 + 12) / 20)


def test_extracted_images_are_the_truth_for_overfitting(sets: Any, memorizer: Any, tmp_path: Any) -> None:
    from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
    from vestige.jobs.audit import audit

    audited = audit(
        memorizer,
        sets[0],
        non_members=sets[1],
        out=tmp_path / "audit",
        attacks=[GenerateAndFilter(generations=60)],
        sampler=DDIM(steps=20),
    )
    call = {"non_members": sets[1], "points": Rows(66, 60), "extracted": audited, **LOOK}
    run = geometry(memorizer, sets[0], out=tmp_path / "why", **call)
    out = counts(run.record, "seen once and extracted")
    assert out["n"] > 0
    assert out["overfitting-driven"] >= 0.5 * out["n"]
    other = EmpiricalDenoiser(sets[1].floats())
    with pytest.raises(DigestMismatch):
        geometry(other, sets[0], out=tmp_path / "other", **call)


def test_every_duplicate_count_is_represented(tmp_path: Any) -> None:
    pixels = plane(60, 4)
    rows = np.concatenate([np.repeat(pixels[:5], 64, 0), np.repeat(pixels[5:25], 4, 0), pixels[25:]])
    who = split(ImageSet(rows))
    subject = Subject.of_samples("samples", SampleBank(pixels))
    context = Context(Store(tmp_path))
    chosen = choose_points(Rows(16, 0), subject, who, context)
    assert len(chosen) == 16
    assert (chosen.copies == 64).sum() == 4
    assert (chosen.copies == 4).sum() == 4
    assert (chosen.copies == 1).sum() == 8
    assert [name for name, _ in chosen.groups] == ["64-255 copies", "4-15 copies", "seen once"]
    every = choose_points(Rows(60, 0), subject, who, context)
    assert ((every.copies == 64).sum(), (every.copies == 4).sum(), (every.copies == 1).sum()) == (5, 20, 35)
    named = choose_points(Rows(16, 0), subject, who, context, keep=np.array([30, 40]))
    assert {30, 40} <= set(named.row.tolist())
    assert len(named) == 16


class HalfStuck(torch.nn.Module):
    """A GAN that draws one image for half of its latents and an image of the plane for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.axes = torch.nn.Parameter(torch.from_numpy(_axes()).float(), requires_grad=False)
        self.one = torch.nn.Parameter(torch.from_numpy(plane(1, 1)[0].reshape(-1)).float() / 127.5 - 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        moving = (SPREAD * z[:, :6] @ self.axes.T).clamp(-1, 1)
        return torch.where(z[:, 6:] > 0, self.one, moving).view(-1, 1, SIDE, SIDE)


def test_a_gan_is_asked_at_its_own_generations(sets: Any, tmp_path: Any) -> None:
    gan = GanGenerator(HalfStuck(), 7, identity="half stuck")
    call: dict[str, Any] = {
        "estimator": GeneratorSpectrum(Measure.PIXELS, threshold=0.01),
        "reference": LOOK["reference"],
        "rule": Rule(quantile=0.1),
    }
    run = geometry(gan, sets[0], out=tmp_path / "run", points=Generated(30, 40), **call)
    lines = [json.loads(line) for line in (run.folder / "points.jsonl").read_text().splitlines()]
    stuck = [line for line in lines if line["dimension"] == 0]
    assert 5 < len(stuck) < 25
    # The one image stands 64 times in the training data.
    assert {(line["verdict"], line["copied"], line["copies"]) for line in stuck} == {("data-driven", True, 64)}
    assert {(line["verdict"], line["dimension"]) for line in lines if line not in stuck} == {("not memorized", 6)}
    with pytest.raises(InvalidInput, match="is a GAN"):
        geometry(gan, sets[0], out=tmp_path / "rows", points=Rows(), **call)


def test_bad_input_is_refused_by_name(sets: Any, memorizer: Any, tmp_path: Any) -> None:
    with pytest.raises(InvalidInput, match="drawn again"):
        geometry(memorizer, sets[0], out=tmp_path, points=Rows(), redraw=Redraw(), **LOOK)
    with pytest.raises(InvalidInput, match="training data"):
        geometry(memorizer, out=tmp_path, **LOOK)
    with pytest.raises(InvalidInput, match="noise level"):
        geometry(memorizer, sets[0], out=tmp_path, **{**LOOK, "scale": 0.0})
    with pytest.raises(NeedsAccess):
        geometry(Subject.of_samples("samples", SampleBank(sets[0].pixels)), sets[0], out=tmp_path, **LOOK)
    with pytest.raises(Unsupported):
        geometry(memorizer, sets[0], out=tmp_path, **{**LOOK, "reference": Unconditional()})

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vestige.audit.attack import Attack
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.audit.membership.discriminator_loss import DiscriminatorLoss
from vestige.data.images import ImageSet
from vestige.errors import AlreadyExists, CorruptFile, DigestMismatch, InvalidInput, NotFound
from vestige.jobs.audit import audit
from vestige.jobs.compare import compare
from vestige.jobs.run import Run
from vestige.metrics.paired import mcnemar
from vestige.models.adapters.gan import GanGenerator
from vestige.models.critic import Critic
from vestige.models.generator import SampleBank
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Record, Verdict


def pixels(seed: int, count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)


TRAIN = ImageSet(np.concatenate([pixels(0, 60), np.repeat(pixels(0, 4), 4, 0)]))
OTHERS = ImageSet(pixels(1, 60))
SAMPLING = GenerateAndFilter(generations=60)


def bank(copies: Sequence[int], count: int = 60, seed: int = 2) -> SampleBank:
    """Noise, but generation i is training image ``copies[i]`` where that is not negative."""
    made = pixels(seed, count)
    for place, row in enumerate(copies):
        if row >= 0:
            made[place] = TRAIN.pixels[row]
    return SampleBank(made)


def audited(
    model: object, out: Path, attacks: Sequence[Attack] = (SAMPLING,), train: ImageSet = TRAIN, **settings: object
) -> Run:
    return audit(model, train, non_members=OTHERS, out=out, attacks=attacks, **settings)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """One model copies rows 0..11 at once, the other row 0 at once and 20..29 only after 70 generations."""
    root = tmp_path_factory.mktemp("runs")
    late = bank([0] + [-1] * 69 + list(range(20, 30)), 80, 3)
    return audited(bank(range(12)), root / "early"), audited(late, root / "late")


@pytest.fixture(scope="module")
def found(runs: tuple[Run, Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return compare(runs, out=tmp_path_factory.mktemp("compared"), names=["early", "late"])


def test_every_model_is_given_the_smallest_budget(found: Run) -> None:
    record = found.record
    table = record.sections[0].tables[0]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["generations compared"], row["made"], row["images extracted"]) for row in rows] == [
        (60, 60, 12),
        (60, 80, 1),  # eleven in all of its own generations
    ]
    assert record.estimate("compare/early/extracted").value == 12
    late = record.estimate("compare/late/extracted")
    assert late.value == 1
    assert late.low is not None
    assert late.high is not None
    assert late.low < 1 < late.high
    assert "first 60 of 80" in late.note


def test_the_difference_is_tested_on_the_same_images(found: Run) -> None:
    line = found.record.estimate("compare/early less late/extracted")
    assert (line.value, line.n) == (11, 11)
    assert line.low is not None
    assert line.low > 0
    assert f"p = {mcnemar(11, 0):.2g}" in line.note
    kept = next(text for text in found.record.reasons if "McNemar" in text)
    assert kept.startswith("early kept more than late: 12 distinct training images come out of early and 1 of late")
    assert "11 clusters of near-duplicates only of early and 0 only of late" in kept


def test_recall_is_split_by_duplicate_count(found: Run) -> None:
    table = next(table for table in found.record.sections[0].tables if table.name == "recall")
    shares = {row[0]: (row[1], row[2], row[5]) for row in table.rows}
    assert shares == {"1": (56, round(8 / 56, 4), 0), "4-15": (4, 1, 0.25)}


def test_quality_is_measured_on_the_budget_with_intervals(found: Run, runs: tuple[Run, Run]) -> None:
    early, late = (found.record.estimate(f"compare/{name}/frechet") for name in ("early", "late"))
    assert early.n == late.n == 60
    assert early.value == pytest.approx(runs[0].record.estimate("quality/frechet").value, rel=1e-3)
    assert late.value != pytest.approx(runs[1].record.estimate("quality/frechet").value, rel=1e-3)
    figures = {figure.name: figure for figure in found.record.sections[0].figures}
    points = figures["extraction-quality"].series
    assert [series.x[0] for series in points] == [early.value, late.value]
    assert [series.y[0] for series in points] == [12 / 60, 1 / 60]
    growth = {series.name: dict(zip(series.x, series.y, strict=True)) for series in figures["growth"].series}
    assert (growth["early"][1.0], growth["early"][60.0], growth["late"][60.0]) == (1, 12, 1)
    assert growth["early"][10.0] == 10


def test_the_record_is_one_like_any_other(found: Run) -> None:
    record = found.record
    assert (record.command, record.verdict, record.access) == ("compare", Verdict.NONE, "samples")
    assert Record.model_validate_json((found.folder / "report.json").read_text()) == record
    page = (found.folder / "report.html").read_text()
    assert "early kept more than late" in page
    assert record.digests["data"] == Run.open(Path(record.config["runs"][0])).record.digests["data"]


def test_a_small_difference_is_called_chance(tmp_path: Path) -> None:
    made = [audited(bank(rows), tmp_path / f"{i}") for i, rows in enumerate(([0, 1, 2], [1, 2, 3, 4]))]
    record = compare([run.folder for run in made], out=tmp_path / "out").record
    assert [entry for entry in record.config["names"]] == ["samples (1)", "samples (2)"]
    text = " ".join(record.reasons)
    assert "not beyond chance" in text
    assert "kept more" not in text
    assert "p = 1)" in text
    assert "are not told apart" in text


def test_three_models_are_adjusted_for(tmp_path: Path, runs: tuple[Run, Run]) -> None:
    third = audited(bank([], seed=5), tmp_path / "third")
    record = compare([*runs, third], out=tmp_path / "out", names=["a", "b", "c"]).record
    assert "adjusted for 3 comparisons" in record.estimate("compare/a less c/extracted").note
    assert f"p = {2 * mcnemar(11, 0):.2g}" in record.estimate("compare/a less b/extracted").note


def test_a_diffusion_model_and_a_gan_are_compared_by_their_own_attacks(tmp_path: Path) -> None:
    who = ImageSet(TRAIN.pixels[:60])
    flat = who.floats().flatten(1)
    critic = Critic(lambda x: -torch.cdist(x.flatten(1), flat).min(1).values, (1, 6, 6), identity="memory")
    gan = Subject.of_gan("gan", GanGenerator(lambda z: z.tanh().view(-1, 1, 6, 6), 36, identity="tanh"), critic)
    attacks = (SAMPLING, DenoisingLoss(draws=1), DiscriminatorLoss())
    first = audited(EmpiricalDenoiser(who.floats()), tmp_path / "ddpm", attacks, sampler=DDIM(3), asked=False)
    second = audited(gan, tmp_path / "gan", attacks, asked=False)
    assert first.record.not_done == []
    assert second.record.not_done == []
    assert second.record.access == "losses"
    assert second.record.cost.network_evaluations == 60 + 120
    record = compare([first, second], out=tmp_path / "out").record
    table = record.sections[0].tables[0]
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert rows["EmpiricalDenoiser"]["membership attack"] == "DenoisingLoss"
    assert (rows["gan"]["membership attack"], rows["gan"]["kind"]) == ("DiscriminatorLoss", "GanGenerator")
    assert record.estimate("compare/gan/auc").value == rows["gan"]["AUC"] == 1
    assert record.estimate("compare/gan/auc").note == "DiscriminatorLoss"
    assert record.estimate("compare/EmpiricalDenoiser less gan/extracted").value is not None
    assert "DenoisingLoss asks EmpiricalDenoiser, DiscriminatorLoss gan" in " ".join(record.reasons)
    assert "EmpiricalDenoiser kept more than gan" in " ".join(record.reasons)


def test_what_cannot_be_compared_is_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="two or more"):
        compare(runs[:1], out=tmp_path / "out")
    with pytest.raises(InvalidInput, match="one name a run"):
        compare(runs, out=tmp_path / "out", names=["a", "a"])
    other = audited(bank([]), tmp_path / "other", train=ImageSet(pixels(9, 60)))
    with pytest.raises(DigestMismatch, match="different data"):
        compare([runs[0], other], out=tmp_path / "out")
    strict = audited(bank([]), tmp_path / "strict", [GenerateAndFilter(generations=60, alpha=0.4)])
    with pytest.raises(InvalidInput, match="with another alpha"):
        compare([runs[0], strict], out=tmp_path / "out")
    compared = compare(runs, out=tmp_path / "compared")
    with pytest.raises(InvalidInput, match="vestige compare"):
        compare([runs[0], compared], out=tmp_path / "out")
    with pytest.raises(NotFound):
        compare([runs[0], tmp_path / "nowhere"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_whose_files_changed_is_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    changed = Path(shutil.copytree(runs[1].folder, tmp_path / "changed"))
    lines = (changed / "rows.jsonl").read_text().splitlines()
    (changed / "rows.jsonl").write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")
    with pytest.raises(DigestMismatch, match="its files were changed"):
        compare([runs[0], changed], out=tmp_path / "out")
    (changed / "generations.npz").write_bytes(b"")
    with pytest.raises(CorruptFile):
        compare([runs[0], changed], out=tmp_path / "out")


def test_the_same_comparison_resumes_and_another_is_refused(runs: tuple[Run, Run], tmp_path: Path) -> None:
    first = compare(runs, out=tmp_path)
    again = compare(runs, out=tmp_path)
    assert again.record.summary == first.record.summary
    with pytest.raises(AlreadyExists):
        compare(runs, out=tmp_path, names=["a", "b"])
    compare(runs, out=tmp_path, names=["a", "b"], overwrite=True)

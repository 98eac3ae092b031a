"""Studies: plans, resumption, and what the report concludes from known results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.errors import InvalidInput, NotFound
from vestige.jobs import study as room
from vestige.jobs.prepare import deduplicate, insert_canaries, write_images
from vestige.jobs.resolve import resolve_data
from vestige.jobs.study import study
from vestige.jobs.study_plan import StudyPlan, load_plan
from vestige.jobs.study_report import Result, report

ROOT = Path(__file__).parents[2]

PLAN = """
title = "small"
data = "{train}"
non_members = "{others}"
lengths = [2, 4]
copies_at_most = 3

[recipe]
channels = [4, 8]
batch = 8

[audit]
generations = 12
sampling_steps = 2
rows = 8
draws = 1

[[variant]]
name = "plain"

[[variant]]
name = "kept-once"
deduplicate = true
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    write_images(tmp_path / "train.npz", ImageSet(np.concatenate([pixels[:10], pixels[:1], pixels[:1], pixels[:1]])))
    write_images(tmp_path / "others.npz", ImageSet(pixels[10:]))
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(train=tmp_path / "train.npz", others=tmp_path / "others.npz"))
    return path


def test_a_study_trains_audits_and_resumes(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(load_plan(plan), out=tmp_path / "out")
    assert made.record.estimate("study/models").value == 4
    table = made.record.sections[0].tables[0]
    assert [row[:3] for row in table.rows] == [
        ["plain", 0, 2],
        ["plain", 0, 4],
        ["kept-once", 0, 2],
        ["kept-once", 0, 4],
    ]
    assert (tmp_path / "out" / "report.html").exists()
    monkeypatch.setattr(room, "train", lambda *_, **__: pytest.fail("trained again"))
    again = study(load_plan(plan), out=tmp_path / "out")
    assert again.record.sections == made.record.sections


def test_rows_are_capped_and_deduplicated(plan: Path) -> None:
    asked = load_plan(plan)
    pool = room._pool(asked)
    assert len(pool.train) == 12  # 10 distinct, one of them three times instead of four
    assert sorted(pool.who.copies.tolist()) == [1] * 9 + [3]
    assert len(room._rows(asked.variant[1], pool, 0)) == 10


def test_the_committed_study_is_valid_and_large_enough() -> None:
    asked = load_plan(ROOT / "studies" / "digits.toml")
    assert asked.models >= 24


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("lengths = [2, 4]", ""), "lengths"),
        (("batch = 8", "batches = 8"), "batches"),
        (("batch = 8", "batch = 0"), "fault"),
        (('name = "kept-once"', 'name = "plain"'), "share a name"),
        (("draws = 1", "draws = 0"), "audit.draws"),
        (("title", "[title"), "fault"),
    ],
)
def test_a_bad_plan_is_named(plan: Path, change: tuple[str, str], words: str) -> None:
    plan.write_text(plan.read_text().replace(*change))
    with pytest.raises(InvalidInput, match=words):
        load_plan(plan)


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_plan(tmp_path / "none.toml")


def result(variant: str, seed: int, steps: int, frechet: float, extracted: int) -> Result:
    return Result(
        variant=variant,
        seed=seed,
        steps=steps,
        parameters=1,
        epsilon=None,
        frechet=(frechet, frechet - 1, frechet + 1),
        auc=(0.5 + extracted / 100, 0.5, 0.9),
        tpr=(0.01, 0.0, 0.1),
        extracted=tuple(str(i) for i in range(extracted)),
        false=0,
        by_copies={"1": (0, 9), "16-63": (extracted, 20)},
        exposure={},
        evaluations=0,
    )


def a_plan(*names: str) -> StudyPlan:
    return StudyPlan.model_validate(
        {
            "title": "t",
            "data": "d",
            "non_members": "n",
            "lengths": [1, 2],
            "variant": [{"name": n, "deduplicate": n == "dedup"} for n in names],
        }
    )


def test_the_conclusion_follows_the_correlation() -> None:
    rng = np.random.default_rng(0)
    who = split(ImageSet(rng.integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)))
    better = [result("a", s, t, 30 - 10 * t - s, 2 * t + s) for s in range(4) for t in (1, 2)]
    sections, numbers = report(a_plan("a"), better, who)
    assert "goes with more extracted" in sections[0].text[0]
    rho = next(n for n in numbers if n.name == "study/rank_correlation/extracted")
    assert rho.value is not None
    assert rho.high is not None
    assert rho.value < -0.9
    assert -1 <= rho.value <= rho.high < 0
    worse = [result("a", s, t, 30 - 10 * t, 10 - 2 * t + s) for s in range(4) for t in (1, 2)]
    assert "fewer extracted" in report(a_plan("a"), worse, who)[0][0].text[0]
    mixed = [result("a", s, t, float(rng.normal()), int(rng.integers(9))) for s in range(6) for t in (1, 2)]
    assert "inconclusive" in report(a_plan("a"), mixed, who)[0][0].text[0]
    assert "cannot be told" in report(a_plan("a"), better[:2], who)[0][0].text[0]


def test_canaries_have_a_table_of_their_own() -> None:
    who = split(ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)))
    told = {"canary/exposure@copies=2": 3.0, "canary/exposure@copies=64": 9.96, "canary/exposure_control": 1.4}
    with_canaries = result("a", 0, 2, 9, 5).model_copy(update={"exposure": told})
    sections, _ = report(a_plan("a"), [result("a", 0, 1, 9, 5), with_canaries], who)
    table = sections[-1].tables[0]
    assert table.columns == ["variant", "seed", "steps", "control", "copies=2", "copies=64"]
    assert table.rows == [["a", 0, 2, 1.4, 3.0, 9.96]]


def test_a_defence_is_set_beside_the_baseline_at_the_longest_common_length() -> None:
    who = split(ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 4, 4), dtype=np.uint8)))
    results = [result("a", s, t, 9, 5 * t) for s in (0, 1) for t in (1, 2)] + [result("dedup", 0, 1, 12, 0)]
    sections, numbers = report(a_plan("a", "dedup"), results, who)
    rows = sections[1].tables[0].rows
    assert [row[:5] for row in rows] == [["dedup", "a", 1, 1, "5"], ["dedup", "dedup", 1, 1, "0"]]
    assert [(n.name, n.value, n.n) for n in numbers if n.name.startswith("defence/")] == [
        ("defence/dedup/before", 0.25, 20),
        ("defence/dedup/after", 0.0, 20),
    ]


def test_deduplication_keeps_the_first_of_each_cluster(plan: Path, tmp_path: Path) -> None:
    kept = deduplicate(tmp_path / "train.npz", out=tmp_path / "kept")
    np.testing.assert_array_equal(kept.kept, np.arange(10))
    images, _ = resolve_data(tmp_path / "kept" / "kept.npz")
    assert images.ids == kept.images.ids[:10]
    lines = (tmp_path / "kept" / "clusters.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert '"rows": [0, 10, 11, 12]' in lines[0]
    assert [row[0] for row in kept.table().rows] == ["1", "4-7"]


def test_canaries_are_inserted_once_to_64_times(plan: Path, tmp_path: Path) -> None:
    planted = insert_canaries(tmp_path / "train.npz", out=tmp_path / "more.npz", per_count=1)
    assert len(planted) == 13 + 127
    assert resolve_data(tmp_path / "more.npz")[0].ids == planted.ids

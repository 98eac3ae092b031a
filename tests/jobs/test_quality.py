from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.digest import short
from vestige.errors import CorruptFile, NotFound
from vestige.features.pixels import BlockMeans
from vestige.jobs.audit import audit
from vestige.jobs.kept import Kept, Rows, first, first_copied
from vestige.jobs.quality import fewest, judge_quality, scene
from vestige.metrics.coverage import Balls, precision_recall
from vestige.metrics.frechet import Gaussian, frechet_distance
from vestige.models.generator import SampleBank

JUDGE = BlockMeans(2)
SAMPLING = GenerateAndFilter(generations=80)


def pixels(seed: int, count: int, low: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, 256, (count, 1, 4, 4), dtype=np.uint8)


def test_the_lines_are_the_metrics_of_the_features() -> None:
    who, made = split(ImageSet(pixels(0, 90)), ImageSet(pixels(1, 70))), pixels(2, 60)
    found = scene(made, who, JUDGE, seed=0)
    lines = {line.name: line for line in judge_quality(found, 0).summary}
    assert who.others is not None
    mine, theirs = JUDGE.features(made), JUDGE.features(who.others.pixels)
    expected = frechet_distance(Gaussian.fit(mine), Gaussian.fit(theirs))
    assert lines["quality/frechet"].value == pytest.approx(expected)
    both = precision_recall(Balls.around(mine, 3), Balls.around(theirs, 3))
    assert lines["quality/precision"].value == both.precision.value
    assert lines["quality/recall"].value == both.recall.value
    note = lines["quality/frechet"].note
    assert "70 non-members" in note
    assert short(JUDGE.digest) in note
    assert JUDGE.name in lines["quality/frechet"].unit


def test_the_floor_is_as_many_training_images_at_random() -> None:
    who, made = split(ImageSet(pixels(0, 90)), ImageSet(pixels(1, 70))), pixels(2, 60)
    found = scene(made, who, JUDGE, seed=0)
    assert found.floor is not None
    everything = JUDGE.features(who.members.pixels)
    assert found.floor.shape == (60, 4)
    places = [np.flatnonzero((everything == row).all(1)) for row in found.floor]
    rows = np.concatenate(places)
    assert len(np.unique(rows)) == 60
    assert (np.diff(rows) < 0).any()  # shuffled, so that its beginning is a random part
    half = found.first(50)
    assert (len(half.generated), len(half.floor if half.floor is not None else [])) == (50, 50)
    np.testing.assert_array_equal(half.generated, found.generated[:50])


def test_worse_images_lie_farther_away_than_training_images_do() -> None:
    who = split(ImageSet(pixels(0, 150)), ImageSet(pixels(1, 150)))
    lines = {line.name: line.value for line in judge_quality(scene(pixels(2, 150, 200), who, JUDGE, 0), 0).summary}
    frechet, floor = lines["quality/frechet"], lines["quality/frechet_floor"]
    assert frechet is not None
    assert floor is not None
    assert frechet > 5 * floor
    good = judge_quality(scene(pixels(2, 150), who, JUDGE, 0), 0).summary[0]
    assert good.low is not None
    assert good.low < 3 * floor


def test_without_non_members_the_training_images_are_the_reference() -> None:
    who = split(ImageSet(pixels(0, 90)))
    found = scene(pixels(2, 60), who, JUDGE, 0)
    quality = judge_quality(found, 0)
    assert found.against == "90 distinct training images"
    assert quality.summary[1].value is None
    assert "copies count as quality" in quality.section.text[-1]


@pytest.mark.parametrize(("made", "others"), [(4, 60), (60, 4)])
def test_too_few_images_give_no_number_and_say_so(made: int, others: int) -> None:
    who = split(ImageSet(pixels(0, 90)), ImageSet(pixels(1, others)))
    quality = judge_quality(scene(pixels(2, made), who, JUDGE, 0), 0)
    values = {line.name: line.value for line in quality.summary}
    assert values["quality/frechet"] is values["quality/precision"] is values["quality/recall"] is None
    assert "at least 50" in quality.summary[0].note
    assert fewest(64) == 65


def run_of(tmp_path: Path, *, copied: int = 3) -> tuple[Path, npt.NDArray[np.uint8]]:
    train = ImageSet(pixels(0, 60))
    made = np.concatenate([pixels(2, 57), train.pixels[:copied]])
    out = tmp_path / "run"
    audit(SampleBank(made), train, non_members=ImageSet(pixels(1, 60)), out=out, attacks=[SAMPLING])
    return out, made


def test_an_audit_states_quality_and_keeps_what_a_comparison_needs(tmp_path: Path) -> None:
    out, made = run_of(tmp_path)
    kept, rows = Kept.load(out), Rows.load(out)
    assert (len(kept.members.index), len(rows.members), len(rows.others)) == (60, 60, 60)
    assert kept.members.found(0.05).tolist() == [0, 1, 2]
    assert kept.members.distance[57:].tolist() == [0, 0, 0]
    assert kept.others is not None
    assert kept.scene.judge == BlockMeans().name
    np.testing.assert_allclose(kept.scene.generated, BlockMeans().features(made), atol=1e-6)
    before = (out / "generations.npz").read_bytes()
    kept.save(tmp_path)
    # Nothing but rounding to float32 is lost, and a file is the same from run to run.
    assert (tmp_path / "generations.npz").read_bytes() == before


def test_quality_stands_in_the_record_and_needs_no_more_of_the_model(tmp_path: Path) -> None:
    from vestige.jobs.run import Run

    record = Run.open(run_of(tmp_path)[0]).record
    assert record.estimate("quality/frechet").value is not None
    assert record.estimate("quality/frechet_floor").n == 60
    assert [section.name for section in record.sections] == ["data", "extraction", "quality"]
    assert record.cost.network_evaluations == 0


def test_the_first_copy_of_every_row(tmp_path: Path) -> None:
    out, _ = run_of(tmp_path)
    members = Kept.load(out).members
    found = first_copied(members, 60, 0.05)
    assert found[:4].tolist() == [57, 58, 59, 60]
    assert first_copied(first(members, 58), 60, 0.05)[:3].tolist() == [57, 58, 58]


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--overwrite"):
        Kept.load(tmp_path)
    with pytest.raises(NotFound):
        Rows.load(tmp_path)
    out, _ = run_of(tmp_path)
    whole = (out / "generations.npz").read_bytes()
    for content in (whole[:200], b"", b"text"):
        (out / "generations.npz").write_bytes(content)
        with pytest.raises(CorruptFile, match=r"generations\.npz"):
            Kept.load(out)
    np.savez(out / "generations.npz", **{"others/index": np.arange(3)})
    with pytest.raises(CorruptFile):
        Kept.load(out)
    for content in ("{", "[1]\n", '{"id": 1}\n'):
        (out / "rows.jsonl").write_text(content)
        with pytest.raises(CorruptFile):
            Rows.load(out)

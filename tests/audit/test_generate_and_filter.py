from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from vestige.audit.attack import Outcome
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.models.generator import SampleBank
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Estimate
from vestige.store import Store


def random(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


TRAIN, OTHERS, FRESH = random(0, 30), random(1, 30), random(2, 40)


def nearly(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Within an rms distance of about 0.01."""
    noise = np.random.default_rng(seed).integers(-4, 5, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def examine(folder: Path, who: Split, *generated: np.ndarray, **settings: float) -> Outcome:
    subject = Subject.of_samples("samples", SampleBank(np.concatenate(generated)))
    return GenerateAndFilter(**settings).run(subject, who, Context(Store(folder)))


def line(outcome: Outcome, name: str) -> Estimate:
    return next(part for part in outcome.summary if part.name == name)


def test_planted_copies_are_found_and_nothing_else(tmp_path: Path) -> None:
    train = ImageSet(np.concatenate([TRAIN, np.repeat(TRAIN[3:4], 4, 0)]))
    who = split(train, ImageSet(OTHERS))
    found = examine(tmp_path, who, FRESH, nearly(TRAIN[[3, 7]]), TRAIN[3:4])
    assert found.extracted.tolist() == [3, 7]
    assert line(found, "extraction/images").value == 2
    assert line(found, "extraction/near_exact").value == 2
    rate = line(found, "extraction/copy_rate")
    assert (rate.value, rate.n) == (pytest.approx(3 / 43), 43)
    assert line(found, "extraction/precision").value == 1
    single = line(found, "extraction/recall@copies=1")
    assert (single.value, single.n) == (pytest.approx(1 / 29), 29)
    planted = line(found, "extraction/recall@copies>=4")
    assert (planted.value, planted.n) == (1, 1)
    assert not any("64" in part.name for part in found.summary)
    # Nearest first: the exact copy of row 3, then the noisy one of row 7; one line a training image.
    matches = found.section.matches
    assert [m.row for m in matches] == [who.members.ids[3], who.members.ids[7]]
    assert [(m.generation, m.copies, m.picture) for m in matches] == [(42, 5, 0), (41, 1, 1)]
    assert matches[0].distance == 0
    assert matches[0].calibrated == 0
    assert 0 < matches[1].distance < 0.02
    assert [m.eidetic for m in matches] == [1, 1]
    distance = np.sqrt(((nearly(TRAIN[[3, 7]])[1] / 255 - TRAIN[7] / 255) ** 2).mean())
    assert found.member_scores[7] == pytest.approx(-distance)


def test_non_members_that_match_alike_lower_the_precision(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS))
    found = examine(tmp_path, who, FRESH, TRAIN[:3], OTHERS[:2], OTHERS[:1])
    assert found.extracted.tolist() == [0, 1, 2]
    precision = line(found, "extraction/precision")
    assert (precision.value, precision.n) == (pytest.approx(3 / 5), 5)
    assert "2 of 30 non-members" in precision.note


def test_a_smaller_pool_of_non_members_is_scaled_up(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS[:10]))
    found = examine(tmp_path, who, FRESH, TRAIN[:3], OTHERS[:1])
    assert line(found, "extraction/precision").value == pytest.approx(3 / 6)


def test_without_non_members_precision_is_unknown(tmp_path: Path) -> None:
    found = examine(tmp_path, split(ImageSet(TRAIN)), FRESH, TRAIN[:3])
    precision = line(found, "extraction/precision")
    assert precision.value is None
    assert "no non-members" in precision.note
    assert found.other_scores.size == 0


def test_duplicates_do_not_hide_a_copy(tmp_path: Path) -> None:
    # Sixty near-duplicates would fill the fifty neighbours; they are one cluster, so they count once.
    close = np.concatenate([nearly(TRAIN[:1], seed) for seed in range(60)])
    who = split(ImageSet(np.concatenate([TRAIN, close])), ImageSet(OTHERS))
    assert who.copies[0] == 61
    found = examine(tmp_path, who, FRESH, nearly(TRAIN[:1], 99))
    assert len(found.extracted) == 1
    assert who.cluster[found.extracted[0]] == 0


def test_cliques_are_claimed_without_training_data_and_judged_with_it(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS))
    copied = np.concatenate([nearly(TRAIN[:1], seed) for seed in range(5)])
    invented = np.concatenate([nearly(OTHERS[9:10] // 2, seed) for seed in range(4)])
    found = examine(tmp_path, who, FRESH, copied, invented, clique_size=4)
    precision = line(found, "extraction/black_box_precision")
    assert (precision.value, precision.n) == (0.5, 2)
    assert sorted(row[1] for row in found.section.tables[1].rows) == [4, 5]


@pytest.mark.parametrize("generations", [7, 10_000])
def test_of_a_folder_of_samples_all_are_searched(tmp_path: Path, generations: int) -> None:
    found = examine(tmp_path, split(ImageSet(TRAIN)), FRESH, generations=generations)
    assert line(found, "extraction/copy_rate").n == len(FRESH)
    assert found.section.text[0].startswith("40 images")


@pytest.mark.parametrize("wrong", [{"generations": 0}, {"delta": 0.0}, {"delta": 1.0}, {"clique_size": 1}])
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        GenerateAndFilter(**wrong)


def test_the_curve_names_the_images_matched_before_any_non_member(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS))
    found = examine(tmp_path, who, FRESH, nearly(TRAIN[:4]), nearly(OTHERS[:1], 5) // 2 * 2)
    clean = line(found, "extraction/images@false_matches=0")
    assert (clean.value, clean.n) == (4, 30)
    assert line(found, "extraction/recall@precision>=0.9").value == pytest.approx(4 / 30)
    figure = next(f for f in found.section.figures if f.name == "precision")
    (curve,) = figure.series
    assert curve.x[:4] == [1, 2, 3, 4]
    assert curve.y[:4] == [1, 1, 1, 1]
    assert curve.low is not None
    assert curve.low[0] == pytest.approx(0.025)
    assert (curve.y[-1] or 0) < 0.75


def test_the_curve_of_cliques_counts_right_claims_among_the_tightest(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN))
    copied = np.repeat(TRAIN[:1], 4, 0)
    invented = np.concatenate([nearly(OTHERS[9:10] // 2, seed) for seed in range(4)])
    found = examine(tmp_path, who, FRESH, copied, invented)
    figure = next(f for f in found.section.figures if f.name == "precision")
    (curve,) = figure.series  # no curve of calibrated distance without non-members
    assert (curve.x, curve.y) == ([1, 1], [1, 0.5])


def conditional(batch_size: int) -> Subject:
    labels = torch.arange(30) % 3
    model = EmpiricalDenoiser(ImageSet(TRAIN).floats(), labels=labels)
    return Subject.of_denoiser("oracle", model, DDIM(steps=4), batch_size=batch_size)


def test_generations_are_planned_by_condition(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS))
    attack = GenerateAndFilter(generations=47)
    found = attack.run(conditional(16), who, Context(Store(tmp_path)))
    rate = stats.binom(15, 0.4398).sf(3)  # what the words below state
    assert rate == pytest.approx(0.95, abs=2e-3)
    assert "Each of 3 conditions was asked for 15 to 16 times" in found.section.text[-1]
    assert "cliques of up to 15" in found.section.text[-1]
    assert "at least 43.98%" in found.section.text[-1]


def test_too_few_generations_a_condition_leave_the_filter_without_power(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS))
    found = GenerateAndFilter(generations=10).run(conditional(16), who, Context(Store(tmp_path)))
    assert "no power" in found.section.text[-1]
    assert "at least 12 generations" in found.section.text[-1]
    blind = line(found, "extraction/black_box_precision")
    assert blind.value is None
    assert "3 generations" in blind.note


def test_conditional_generations_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    who = split(ImageSet(TRAIN), ImageSet(OTHERS))
    attack = GenerateAndFilter(generations=45)
    runs = [attack.collect(conditional(size), who, Context(Store(tmp_path / str(size)))) for size in (1, 7, 128)]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].pixels, other.pixels)
        np.testing.assert_array_equal(runs[0].members.ratio, other.members.ratio)
    outcomes = [attack.score(run, who) for run in runs]
    assert all(outcome.summary == outcomes[0].summary for outcome in outcomes)

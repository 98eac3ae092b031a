from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vestige.audit.attack import Outcome
from vestige.audit.membership.blind import blind_baseline, blind_scores
from vestige.audit.membership.rows import Sides
from vestige.audit.membership.scoring import Method, curve, joint_section, judged
from vestige.data.images import ImageSet
from vestige.data.split import split
from vestige.errors import EmptySet, Unsupported
from vestige.metrics.roc import auc
from vestige.record import Estimate, Section

ROWS = 300


@pytest.fixture(scope="module")
def who():
    rng = np.random.default_rng(0)
    parts = (ImageSet(rng.integers(0, 256, (ROWS, 1, 4, 4), dtype=np.uint8)) for _ in range(2))
    return split(*parts)


def outcome(who, gap, prefix="x", seed=0, evaluations=3):
    rng = np.random.default_rng(seed)
    rows = np.arange(ROWS)
    return judged(
        Method(prefix, "Title", "name", evaluations),
        Sides(rows, rows, 0),
        rng.normal(gap, 1, ROWS),
        rng.normal(0, 1, ROWS),
        who,
        text=["Words."],
        lines=[Estimate(name=f"{prefix}/own", value=1.0)],
    )


def test_every_attack_reports_the_same_lines(who):
    found = outcome(who, 1.0)
    names = ["auc", "auc_control", "tpr@fpr=0.01", "tpr@fpr=0.001", "own", "evaluations"]
    assert [line.name for line in found.summary] == [f"x/{name}" for name in names]
    assert "too few" in found.summary[2].note  # 300 non-members, 3 false positives expected
    assert found.summary[-1].value == 3
    assert found.section.name == "x"
    assert found.section.text[0] == "Words."
    assert found.section.tables[0].rows[0][:2] == ["1", ROWS]


def test_rows_that_were_not_looked_at_are_left_out(who):
    inside, outside = np.array([3.0, np.nan, 1.0]), np.array([2.0, 0.0])
    found = judged(
        Method("x", "Title", "name", 1), Sides(np.array([4, 5, 6]), np.array([0, 1]), 0), inside, outside, who, text=[]
    )
    assert found.summary[0].value == pytest.approx(3 / 4)
    assert found.summary[0].n == 4
    assert np.flatnonzero(~np.isnan(found.member_scores)).tolist() == [4, 6]


def test_a_logarithmic_curve_starts_at_the_first_false_positive():
    rng = np.random.default_rng(0)
    line = curve("x", rng.normal(1, 1, 5000), rng.normal(0, 1, 5000), positive=True)
    assert line.x[0] == 1 / 5000
    assert line.x[-1] == line.y[-1] == 1
    assert len(line.x) <= 400
    assert sum(x < 0.01 for x in line.x) > 20
    plain = curve("x", rng.normal(1, 1, 5000), rng.normal(0, 1, 5000))
    assert plain.x[0] == plain.y[0] == 0


def test_the_joint_section_ranks_and_names_what_fails(who):
    outcomes = {
        "Strong": outcome(who, 1.0),
        "Weak": outcome(who, 0.4, seed=1),
        "Blunt": outcome(who, 0.0, seed=2),
        "Reversed": outcome(who, -1.0, seed=3),
        "Extraction": Outcome((), Section(name="extraction", title="x"), np.empty(0), np.empty(0)),
    }
    section = joint_section(outcomes, who, blind_baseline(who, 0))
    (table,) = section.tables
    assert [row[0] for row in table.rows] == ["Strong", "Weak", "Blunt", "Reversed", "the images alone (no model)"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows[0][1:3] == [3, round(outcomes["Strong"].summary[0].value, 4)]
    assert section.text[0].startswith("Strong is the strongest")
    assert "best of 4" in section.text[0]
    assert section.text[1] == "Not told from chance on these rows: Blunt."
    assert section.text[2].startswith("Below chance: Reversed")
    (figure,) = section.figures
    assert figure.x_log
    assert [series.name for series in figure.series] == ["Strong", "Weak", "Blunt", "Reversed"]
    assert min(x for series in figure.series for x in series.x) > 0


def test_the_joint_section_says_when_nothing_works(who):
    section = joint_section({"Blunt": outcome(who, 0.0, seed=2)}, who)
    assert section.text[0].startswith("No attack tells")
    empty = joint_section({}, who)
    assert empty.text == ["No membership attack ran."]
    assert empty.figures == []


def test_the_control_speaks_up_beyond_three_errors(who, monkeypatch):
    assert "do not use" not in " ".join(outcome(who, 1.0).section.text)
    monkeypatch.setattr(
        "vestige.audit.membership.scoring.shuffled_control", lambda a, b, seed, confidence=0.95: auc(a, b, confidence)
    )
    assert "do not use" in " ".join(outcome(who, 1.0).section.text)


def test_images_alone_tell_nothing_of_an_honest_split(who):
    blind = blind_baseline(who, 0)
    assert blind.line.name == "membership/blind_auc"
    assert blind.line.low < 0.5 < blind.line.high
    assert "cannot tell" in blind.words


def test_blind_intervals_cover_chance_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(40):
        parts = [ImageSet(rng.integers(0, 256, (100, 1, 4, 4), dtype=np.uint8)) for _ in range(2)]
        covered += auc(*blind_scores(split(*parts), seed)).covers(0.5)
    assert covered >= 34  # 95 % of 40 is 38; fewer than 34 has probability 0.0006 there


def test_a_shifted_split_is_exposed(who):
    brighter = dataclasses.replace(who, others=ImageSet((who.others.pixels // 2 + 100).astype(np.uint8)))
    blind = blind_baseline(brighter, 0)
    assert blind.line.low > 0.9
    assert blind.words.startswith("Warning")


def test_copies_within_a_cluster_count_once(who):
    # Near-duplicates dealt into several folds would let the classifier recognize members by their copies.
    near = np.repeat(who.members.pixels[:30], 10, axis=0).copy()
    near[:, 0, 0, 0] = np.arange(300) % 3
    cluster = np.repeat(np.arange(0, 300, 10), 10)
    few = dataclasses.replace(who, members=ImageSet(near), cluster=cluster)
    inside, _ = blind_scores(few, 0)
    assert len(inside) == 30


def test_blind_needs_rows_on_both_sides(who):
    with pytest.raises(Unsupported):
        blind_baseline(dataclasses.replace(who, others=None), 0)
    with pytest.raises(EmptySet):
        blind_baseline(dataclasses.replace(who, others=who.others.take([0, 1])), 0)

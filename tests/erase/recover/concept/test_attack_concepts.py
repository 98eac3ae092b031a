from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from vestige.cli.main import app
from vestige.erase.concept.uce import UCE
from vestige.erase.recover.concept.attack import Recovered
from vestige.errors import InvalidInput, NotFound
from vestige.jobs.concept_judge import Judged, judge_of, linear_judge
from vestige.jobs.concept_recovery import Attacked, _verdict, attack_concepts
from vestige.jobs.concepts import erase_concepts
from vestige.metrics.interval import clopper_pearson
from vestige.models.adapters.text_to_image import Drawing
from vestige.models.sampler import DDIM


def pictures(rng, level, n=40):
    return np.clip(rng.normal(level, 20, size=(n, 3, 8, 8)), 0, 255).astype(np.uint8)


def test_a_linear_judge_tells_what_can_be_told_and_guesses_elsewhere():
    rng = np.random.default_rng(0)
    judge = linear_judge(pictures(rng, 100), pictures(rng, 130))
    assert judge(pictures(rng, 100)).mean() > 0.95
    assert judge(pictures(rng, 130)).mean() < 0.05
    blind = linear_judge(pictures(rng, 100), pictures(rng, 100))
    fresh = pictures(rng, 100, 200)
    assert 0.2 < blind(fresh).mean() < 0.8


def test_a_judge_is_measured_on_pictures_that_it_did_not_learn_from(base):
    how = Drawing(DDIM(2, clip=False), 3.0)
    found = judge_of(base, "red", ["a red one"], how, 0, pictures=12)
    assert (found.hits.n, found.false_hits.n) == (6, 6)
    assert found.hits.low <= found.hits.value <= found.hits.high


def attacked(hits, plain_hits, n=24, sees=True):
    def got(name, count):
        return Recovered(name, np.where(np.arange(n) < count, 10.0, np.inf), (10, 20), ("",) * n, 0)

    rates = clopper_pearson(60 if sees else 32, 64), clopper_pearson(4 if sees else 30, 64)
    return Attacked("red", Judged(lambda p: p[:, 0, 0, 0] > 0, *rates, "x"), got("Plain", plain_hits), [got("A", hits)])


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (attacked(20, 2), "finding"),
        (attacked(3, 2), "pass"),
        (attacked(20, 19), "pass"),  # what asking again brings back, no attack is to blame for
        (attacked(20, 2, sees=False), "inconclusive"),
    ],
)
def test_verdicts_compare_with_asking_again(one, verdict):
    assert _verdict([one])[0].value == verdict


def test_the_command_line_attacks_increments(base, tmp_path):
    base.pipeline.save_pretrained(tmp_path / "sd", safe_serialization=True)
    erase_concepts(tmp_path / "sd", ["red"], out=tmp_path / "inc", method=UCE())
    words = ["increments", "attack", str(tmp_path / "sd"), str(tmp_path / "inc"), "--out", str(tmp_path / "run")]
    more = ["--attack", "ringabell", "--set", "ringabell.marks=1", "--trials", "4", "--steps", "1"]
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code in (0, 1, 3), done.output
    record = json.loads((tmp_path / "run" / "report.json").read_text())
    names = [line["name"] for line in record["summary"]]
    assert {f"attack/red/{name}/success" for name in ("PlainPrompt", "RingABell")} <= set(names)
    (section,) = record["sections"]
    assert [row[0] for row in section["tables"][0]["rows"]] == ["PlainPrompt", "RingABell"]
    with pytest.raises(NotFound):
        attack_concepts(tmp_path / "sd", [tmp_path], out=tmp_path / "none")
    with pytest.raises(InvalidInput, match="trials"):
        attack_concepts(tmp_path / "sd", [tmp_path / "inc"], out=tmp_path / "none", trials=1)

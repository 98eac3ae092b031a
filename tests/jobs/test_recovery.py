"""Recovery attacks within a verification: what the report says of them and what the verdict makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vestige.data.load import load_images
from vestige.data.split import split
from vestige.erase.data.fine_tune import FineTune
from vestige.erase.recover.membership import LossMembership
from vestige.erase.recover.noise_inversion import NoiseInversion
from vestige.erase.recover.recovery import Outcome, Target
from vestige.erase.recover.relearn import Relearn
from vestige.errors import InvalidInput, NotFound
from vestige.execute import Context
from vestige.jobs.audit import audit
from vestige.jobs.erase import erase
from vestige.jobs.judge import judge_verify
from vestige.jobs.policy import VerifyPolicy
from vestige.jobs.recovery import ShadowMembership, recovery_section, strongest, try_recovery
from vestige.jobs.resolve import Loading
from vestige.jobs.traces import Probe
from vestige.jobs.verify import verify
from vestige.metrics.interval import Interval
from vestige.models.adapters.diffusers import load_folder
from vestige.models.sampler import DDIM
from vestige.record import Estimate, Verdict
from vestige.store import Store

TRIES = [
    Relearn(seeds=2, images=2, steps=2, batch_size=2, times=(0.2,), draws=1),
    LossMembership(times=(0.2,), draws=1),
    NoiseInversion(steps=2),
]
PROBE = Probe(draws=1, rows=2)


def outcome(name: str = "relearning", low: float = 0.2, ceiling: float = 0.5, budget: int = 12000) -> Outcome:
    return Outcome(
        attack=name,
        effort="5 seeds",
        budget=budget,
        advantage=Interval(low + 0.1, low, low + 0.2, 5),
        ceiling=Interval(ceiling + 0.1, ceiling, ceiling + 0.2, 5),
        got="much",
        control="little",
        words="they come back.",
    )


def clean() -> list[Estimate]:
    def line(name: str, value: float, low: float | None = None, high: float | None = None) -> Estimate:
        return Estimate(name=name, value=value, low=low, high=high, n=10)

    return [
        line("erase/extracted_before", 5),
        line("erase/extracted_after", 0),
        line("erase/retain_loss_ratio", 1),
        line("erase/frechet_before", 2),
        line("erase/frechet_after", 2),
        line("erase/residue_after", 50, 40, 60),
        line("erase/residue_nonmembers", 50, 45, 55),
    ]


def test_the_verdict_names_the_strongest_attack_and_its_budget() -> None:
    weak, strong = outcome("noise inversion", low=0.1), outcome("relearning", low=0.3)
    verdict, reasons = judge_verify(clean(), VerifyPolicy(), [weak, strong])
    assert verdict is Verdict.INCONCLUSIVE
    assert reasons[0].startswith(
        "The strongest attack tried was relearning (5 seeds; 12,000 network evaluations): they come back."
    )
    assert "Noise inversion (5 seeds" in reasons[1]


def test_attacks_that_get_nothing_are_reasons_to_pass_unless_they_are_blind() -> None:
    none, blind = outcome(low=-0.2), outcome("model inversion", low=-0.1, ceiling=-0.1)
    verdict, reasons = judge_verify(clean(), VerifyPolicy(), [none, blind])
    assert verdict is Verdict.PASS
    text = " ".join(reasons)
    assert "The strongest attack tried was relearning" in text
    assert "no more than its control" in text
    assert "odel inversion" not in text
    verdict, reasons = judge_verify(clean(), VerifyPolicy(), [blind])
    assert verdict is Verdict.INCONCLUSIVE
    assert "nothing even from the model before the erasure" in reasons[0]


def test_without_attacks_the_reasons_say_so() -> None:
    verdict, reasons = judge_verify(clean(), VerifyPolicy(), [])
    assert verdict is Verdict.PASS
    assert "No recovery attack was tried" in " ".join(reasons)


def test_the_policy_can_leave_recovery_out_of_the_verdict() -> None:
    verdict, reasons = judge_verify(clean(), VerifyPolicy(recovery=False), [outcome()])
    assert verdict is Verdict.PASS
    assert "the policy does not count it" in " ".join(reasons)


def test_the_strongest_gets_most_for_certain() -> None:
    sure, wide = outcome("sure", low=0.3), outcome("wide", low=0.1)
    assert strongest([wide, sure]) is sure
    assert strongest([outcome("seeing", low=-1, ceiling=0.5), outcome("blind", low=-0.1, ceiling=-0.1)]).attack == (
        "seeing"
    )
    assert strongest([]) is None


@pytest.fixture(scope="module")
def erased(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("recovery")
    run = audit(world.plain, world.train, non_members=world.others, out=root / "run", **world.settings())
    ids = load_images(world.train)[0].unique()[0].ids
    method = FineTune(steps=2, batch_size=2, learning_rate=1e-3)
    made = erase(world.plain, forget=f"rows:{','.join(ids[3:7])}", retain=world.train, out=root / "inc", method=method)
    return run, made, root


def test_a_verification_reports_what_attacks_got(world: Any, erased: Any, cli: Any) -> None:
    run, made, root = erased
    settings = {"increment": made, "against": run, "out": root / "check", "probe": PROBE, "recover": TRIES}
    record = verify(world.plain, reference=world.flat, **settings).record
    section = next(s for s in record.sections if s.name == "recovery")
    assert section.title == "Recovery: what an attacker can get back"
    assert [row[0] for row in section.tables[0].rows] == [
        "relearning",
        "membership by denoising loss",
        "noise inversion",
    ]
    assert {figure.name for figure in section.figures} == {"relearning", "relearning-others"}
    names = {line.name for line in record.summary}
    wanted = (
        "relearn_steps relearn_steps_reference relearn_shortfall membership_auc noise_inversion_advantage strongest"
    )
    assert {f"recover/{name}" for name in wanted.split()} <= names
    best = record.estimate("recover/strongest")
    assert "network evaluations); interval at 98.33%" in best.note
    assert any("strongest attack tried" in reason for reason in record.reasons)
    assert record.config["recover"][0] == {"recovery": "Relearn", **{**TRIES[0].settings(), "times": [0.2]}}
    again = verify(world.plain, reference=world.flat, **settings).record
    assert again.cost.network_evaluations == 0
    assert again.estimate("recover/strongest") == best
    assert "Recovery" in (root / "check" / "report.html").read_text()


def test_what_cannot_be_tried_is_listed(world: Any, erased: Any) -> None:
    from vestige.erase.recover.embedding_inversion import EmbeddingInversion

    model = load_folder(world.plain)
    images = load_images(world.train)[0].unique()[0]
    outcomes, refused = try_recovery(
        Target(model, model, images.take([1, 2])), [EmbeddingInversion(), *TRIES], Context(Store(Path("unused")))
    )
    assert outcomes == []
    assert len(refused) == 4
    assert recovery_section([], Target(model, model, images.take([1, 2]))) == ([], [])


def test_shadow_models_of_the_attacker(world: Any, erased: Any, tmp_path: Path) -> None:
    """Two shadows, each trained on half of the images: likelihood ratios of forgotten rows against non-members."""
    import json
    import shutil

    train, others = (load_images(path)[0].unique()[0] for path in (world.train, world.others))
    inside = np.zeros((4, len(train)), bool)
    for number in range(4):
        shutil.copytree(world.plain, tmp_path / "shadows" / f"model-{number}")
        inside[number, number % 2 :: 2] = True
    np.savez(tmp_path / "shadows" / "pool.npz", ids=np.array(train.ids), inside=inside)
    plan = {"models": [f"model-{number}" for number in range(4)], "null_condition": None, "recipe": {}}
    (tmp_path / "shadows" / "shadows.json").write_text(json.dumps(plan))
    model, who = load_folder(world.plain), split(train, others)
    rows = np.array([2, 3, 4], dtype=np.int64)
    guess = ShadowMembership(tmp_path / "shadows", who, rows, Loading(DDIM(steps=2)))
    target = Target(model, load_folder(world.flat), who.members.take(rows), who.others, model)
    (found,), refused = try_recovery(target, [], Context(Store(tmp_path / "store")), guess)
    assert refused == []
    assert found.attack == "membership with shadow models"
    assert found.effort.startswith("4 shadow models, 3 forgotten images")
    assert found.budget == (3 + len(others)) * 4 * (4 + 3)
    assert found.advantage.value == 0  # the erased model is the reference itself
    assert not found.tells
    assert {"recover/lira_auc", "recover/lira_auc_reference"} <= {line.name for line in found.summary}


def test_the_command_line_takes_attacks_and_their_settings(world: Any, erased: Any, cli: Any) -> None:
    from vestige.cli.recoveries import recoveries

    run, made, root = erased
    assert len(recoveries(["all"], [])) == 6
    assert recoveries(["relearn"], ["Relearn.steps=7", "relearn.times=0.1,0.2"]) == [Relearn(steps=7, times=(0.1, 0.2))]
    with pytest.raises(NotFound, match="LossMembership"):
        recoveries(["nothing"], [])
    with pytest.raises(InvalidInput, match="names no recovery attack"):
        recoveries(["relearn"], ["noiseinversion.steps=3"])
    arguments = ["verify", world.plain, "--increment", made.folder, "--against", run.folder, "--out", root / "told"]
    answer = cli(*arguments, "--recover", "noiseinversion", "--recover-set", "noiseinversion.steps=2")
    assert answer.code in (1, 3), answer.err
    assert "noise inversion" in answer.out

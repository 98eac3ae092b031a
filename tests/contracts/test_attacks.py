"""The contract of attacks, over every one that discovery finds: a new attack is tested by existing."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

import vestige.audit
from vestige.audit.attack import Attack, Outcome
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.discover import methods
from vestige.errors import NeedsAccess
from vestige.execute import Context
from vestige.metrics.interval import Interval
from vestige.metrics.roc import auc
from vestige.models.access import Access
from vestige.models.adapters.gan import GanGenerator
from vestige.models.critic import Critic
from vestige.models.denoiser import Denoiser
from vestige.models.generator import SampleBank
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.store import Store

SMALL = {"generations": 120, "rows": 80, "draws": 2, "completions": 10, "training_steps": 30}
THREE_SIGMA = 0.9973


def small(kind: type[Attack[Any]]) -> Attack[Any]:
    """The attack with its defaults, but for the fields that say how much it does."""
    names = {field.name for field in dataclasses.fields(kind)}
    return dataclasses.replace(kind(), **{name: value for name, value in SMALL.items() if name in names})


@pytest.fixture(params=[pytest.param(kind, id=name) for name, kind in methods(vestige.audit, Attack).items()])
def attack(request: pytest.FixtureRequest) -> Attack[Any]:
    return small(request.param)


def images(seed: int, count: int = 50) -> ImageSet:
    return ImageSet(np.random.default_rng(seed).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8))


def subject_of(denoiser: Denoiser, batch_size: int = 128) -> Subject:
    return Subject.of_denoiser("oracle", denoiser, DDIM(steps=6), batch_size=batch_size)


def labelled(plain: ImageSet) -> ImageSet:
    return ImageSet(plain.pixels, np.arange(len(plain)) % 2)


def conditional(plain: Denoiser) -> Denoiser:
    """The same model with two classes and a null condition."""
    labels = {"labels": torch.arange(len(plain.train)) % 2} if isinstance(plain, EmpiricalDenoiser) else {}
    model = EmpiricalDenoiser(plain.train.float(), **labels) if labels else copy.copy(plain)
    model.classes, model.null_condition = 2, 2
    return model


def gan_of(model: Denoiser, batch_size: int) -> Subject:
    """A GAN whose critic remembers what the model remembers: minus the distance to the nearest training image."""

    def memory(x: torch.Tensor) -> torch.Tensor:
        if isinstance(model, EmpiricalDenoiser):
            # Not torch.cdist: its expansion cancels just where a memory is sharp.
            return -(x.flatten(1)[:, None] - model.train.float().flatten(1)).norm(dim=2).min(1).values
        return -x.flatten(1).norm(dim=1)

    def network(z: torch.Tensor) -> torch.Tensor:
        return z.tanh().view(-1, 1, 6, 6)

    made = GanGenerator(network, 36, identity="tanh", batch_size=batch_size)
    return Subject.of_gan("oracle-gan", made, Critic(memory, (1, 6, 6), identity=f"memory of {model.digest}"))


def ready(attack: Attack[Any], who: Split, model: Denoiser, batch_size: int = 128) -> tuple[Subject, Split]:
    """A subject and a split that the attack accepts: those given, or the same with labels and a null condition.

    What needs still more (shadow models, planted canaries, ...) has to refuse and say how
    to proceed; a test of its own then shows that it works.
    """
    subject = gan_of(model, batch_size) if attack.needs_critic else subject_of(model, batch_size)
    if attack.refusal(subject, who) is None:
        return subject, who
    assert who.others is not None
    subject = subject_of(conditional(model), batch_size)
    told = dataclasses.replace(who, members=labelled(who.members), others=labelled(who.others))
    refusal = attack.refusal(subject, told)
    if refusal is None:
        return subject, told
    assert refusal.what.startswith(type(attack).__name__)
    assert refusal.remedy.strip()
    with pytest.raises(NeedsAccess) as raised:
        attack.run(subject, told, Context(Store(Path("unused"))))
    assert refusal.remedy in str(raised.value)
    pytest.skip(f"refused: {refusal.reason}")


@pytest.fixture(scope="module")
def who() -> Split:
    return split(images(1), images(2))


@pytest.fixture(scope="module")
def memorizer(who: Split) -> EmpiricalDenoiser:
    return EmpiricalDenoiser(who.members.floats())


def separation(outcome: Outcome, confidence: float = 0.95) -> Interval:
    members, others = (s[~np.isnan(s)] for s in (outcome.member_scores, outcome.other_scores))
    return auc(members, others, confidence)


def same(one: Outcome, two: Outcome, tolerance: float) -> None:
    np.testing.assert_allclose(one.member_scores, two.member_scores, rtol=tolerance)
    np.testing.assert_allclose(one.other_scores, two.other_scores, rtol=tolerance)
    np.testing.assert_array_equal(one.extracted, two.extracted)
    assert [line.name for line in one.summary] == [line.name for line in two.summary]
    for a, b in zip(one.summary, two.summary, strict=True):
        assert (a.n, a.note) == (b.n, b.note)
        for x, y in ((a.value, b.value), (a.low, b.low), (a.high, b.high)):
            assert x == (y if y is None else pytest.approx(y, rel=tolerance)), a.name


def test_a_perfect_memorizer_is_found_out(attack: Attack[Any], who: Split, memorizer: Denoiser, tmp_path: Path) -> None:
    outcome = attack.run(*ready(attack, who, memorizer), Context(Store(tmp_path)))
    assert separation(outcome).low > 0.7
    assert np.nanmean(outcome.member_scores) > np.nanmean(outcome.other_scores)
    assert (len(outcome.member_scores), len(outcome.other_scores)) == (len(who.members), 50)


@pytest.mark.parametrize("model", ["gaussian", "memorizer of a third set"])
def test_a_model_that_saw_neither_side_gives_chance(attack: Attack[Any], model: str, tmp_path: Path) -> None:
    who = split(images(3, 80), images(4, 80))
    if model == "gaussian":
        blind: Denoiser = gaussian_denoiser(torch.zeros(1, 6, 6), torch.eye(36) / 3)
    else:
        blind = EmpiricalDenoiser(images(5).floats())
    outcome = attack.run(*ready(attack, who, blind), Context(Store(tmp_path)))
    assert separation(outcome, THREE_SIGMA).covers(0.5)
    assert len(outcome.extracted) == 0


def test_the_outcome_does_not_depend_on_the_batch_size(
    attack: Attack[Any], who: Split, memorizer: Denoiser, tmp_path: Path
) -> None:
    runs = [
        attack.run(*ready(attack, who, memorizer, size), Context(Store(tmp_path / str(size)), batch_size=size))
        for size in (128, 7)
    ]
    same(*runs, tolerance=1e-4)


def test_a_second_run_evaluates_nothing_and_another_seed_everything(
    attack: Attack[Any], who: Split, tmp_path: Path
) -> None:
    subject, who = ready(attack, who, EmpiricalDenoiser(who.members.floats()))
    first = attack.run(subject, who, Context(Store(tmp_path)))
    spent = subject.evaluations
    assert spent > 0
    same(first, attack.run(subject, who, Context(Store(tmp_path))), tolerance=0)
    assert subject.evaluations == spent
    attack.run(subject, who, Context(Store(tmp_path), seed=1))
    assert subject.evaluations in (spent, 2 * spent)  # a deterministic attack owes nothing to the seed


def test_scoring_is_a_pure_function_of_what_was_collected(attack: Attack[Any], who: Split, tmp_path: Path) -> None:
    subject, who = ready(attack, who, EmpiricalDenoiser(who.members.floats()))
    collected = attack.collect(subject, who, Context(Store(tmp_path)))
    spent = subject.evaluations
    same(attack.score(collected, who), attack.score(collected, who), tolerance=0)
    assert subject.evaluations == spent


def test_samples_alone_are_refused_with_a_remedy_or_enough(attack: Attack[Any], who: Split, tmp_path: Path) -> None:
    subject = Subject.of_samples("samples.npz", SampleBank(images(6).pixels))
    refusal = attack.refusal(subject, who)
    if attack.access is Access.SAMPLES:
        assert refusal is None
        assert attack.run(subject, who, Context(Store(tmp_path))).summary
        return
    assert refusal is not None
    assert "samples.npz grants samples" in refusal.reason
    assert "pass the model itself" in refusal.remedy
    with pytest.raises(NeedsAccess, match="pass the model itself"):
        attack.run(subject, who, Context(Store(tmp_path)))


def test_missing_non_members_are_refused_or_not_needed(attack: Attack[Any], who: Split, memorizer: Denoiser) -> None:
    subject, who = ready(attack, who, memorizer)
    refusal = attack.refusal(subject, dataclasses.replace(who, others=None))
    assert (refusal is not None) == attack.needs_others
    if refusal is not None:
        assert "--non-members" in refusal.remedy


def test_settings_are_plain_and_rebuild_the_attack(attack: Attack[Any]) -> None:
    settings = json.loads(json.dumps(attack.settings()))
    assert settings.pop("attack") == type(attack).__name__
    assert TypeAdapter(type(attack)).validate_python(settings) == attack  # as the command line reads them


def test_the_method_says_what_it_is(attack: Attack[Any]) -> None:
    assert attack.claim[0].islower()
    assert "arXiv" in attack.source or "http" in attack.source
    assert type(attack).__doc__

"""Recovery attacks on models of which the truth is known: never trained, memorizing, damaged above, closed form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import vestige.erase.recover
from vestige.data.images import ImageSet
from vestige.discover import methods
from vestige.erase.recover.embedding_inversion import EmbeddingInversion, embeddings, opened_condition
from vestige.erase.recover.measure import denoising_errors, one_sided, two_sided
from vestige.erase.recover.membership import LossMembership
from vestige.erase.recover.model_inversion import ModelInversion
from vestige.erase.recover.noise_inversion import NoiseInversion
from vestige.erase.recover.recovery import Recovery, Target
from vestige.erase.recover.relearn import Relearn
from vestige.errors import InvalidInput
from vestige.execute import Context
from vestige.metrics.roc import auc
from vestige.models.adapters.conditioned import ConditionedDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.schedule import Cosine
from vestige.store import Store

SMALL: list[Recovery] = [
    Relearn(images=4, steps=24, seeds=4, batch_size=8, learning_rate=2e-3, times=(0.2,)),
    LossMembership(draws=2),
    NoiseInversion(steps=10, depth=0.5),
    EmbeddingInversion(steps=10),
    ModelInversion(attempts=8, steps=5),
]
BY_NAME = {type(attack).__name__: attack for attack in SMALL}
each = pytest.mark.parametrize("attack", SMALL, ids=list(BY_NAME))


def test_every_attack_is_tested() -> None:
    assert set(methods(vestige.erase.recover, Recovery)) == {*BY_NAME, "ClassInversion"}


@each
def test_an_exactly_unlearned_model_gives_nothing_back(world, context, attack: Recovery) -> None:
    """Neither the reference itself nor another network trained without the images, which differs in every weight."""
    for erased in (world.reference, world.other):
        outcome = attack.attack(world.target(erased), context)
        assert not outcome.tells, outcome.words


def test_without_a_reference_an_unlearned_model_is_as_slow_as_on_unseen_images(world, context) -> None:
    assert not BY_NAME["Relearn"].attack(world.target(world.other, reference=False), context).tells


def test_without_a_reference_false_alarms_are_as_rare_as_promised(world, context) -> None:
    """Which of the images that a model never saw are called forgotten is then only a name."""
    every = ImageSet(np.concatenate([world.forgotten.pixels, world.unseen.pixels]), np.arange(40) % 2)
    losses = denoising_errors(world.other, every, (0.1, 0.2), 2, 0)
    returned = NoiseInversion(steps=5)._there_and_back(world.other, every)
    rng, alarms = np.random.default_rng(0), np.zeros(2)
    for _ in range(300):
        order = rng.permutation(40)
        one, two = order[:8], order[8:]
        alarms[0] += two_sided(auc(-losses[one], -losses[two])).low > 0
        alarms[1] += one_sided(-returned[one], -returned[two], 0.95).low > 0
    assert (alarms / 300 < 0.09).all()


@each
@pytest.mark.parametrize("reference", [True, False])
def test_the_base_itself_is_found_out(world, context, attack: Recovery, reference: bool) -> None:
    outcome = attack.attack(world.target(world.base, reference=reference), context)
    if isinstance(attack, ModelInversion):  # this model's images are no sharp attractors; see the closed form below
        assert outcome.blind
        return
    assert outcome.tells, outcome.words
    assert outcome.advantage == outcome.ceiling
    assert not outcome.blind


@pytest.mark.parametrize("reference", [True, False])
def test_a_damaged_last_layer_is_relearned_faster_than_it_is_learned(world, context, reference: bool) -> None:
    attack = BY_NAME["Relearn"]
    outcome = attack.attack(world.target(world.damaged, reference=reference), context)
    lines = {line.name: line for line in outcome.summary}
    control = lines["recover/relearn_steps_reference" if reference else "recover/relearn_steps_unseen"]
    assert outcome.tells
    assert 0 < lines["recover/relearn_steps"].value < attack.steps / 2 < control.value
    assert control.high is None
    assert "not reached within 24 steps in" in control.note
    assert lines["recover/relearn_shortfall"].low > 0
    assert "too few" in outcome.words
    assert outcome.got.startswith(f"{lines['recover/relearn_steps'].value:.1f} steps")


def test_relearning_without_anything_to_recover_is_blind(world, context) -> None:
    """Where the base never held the images either, nothing is to be made up, and the attack says so."""
    nothing = dataclasses.replace(world.target(world.reference), base=world.reference)
    outcome = BY_NAME["Relearn"].attack(nothing, context)
    assert (outcome.advantage.value, outcome.ceiling.value) == (0, 0)
    assert outcome.blind


@each
def test_budget_and_counters_agree_and_the_store_answers_again(world, tmp_path, attack: Recovery) -> None:
    context, target = Context(Store(tmp_path)), world.target(world.other)
    attack = dataclasses.replace(attack, steps=4) if hasattr(attack, "steps") else attack
    models = (target.erased, target.base, target.reference)
    digests = [model.digest for model in models]
    before = sum(model.evaluations for model in models)
    first = attack.attack(target, context)
    spent = sum(model.evaluations for model in models) - before
    again = attack.attack(target, context)
    assert again == first
    assert sum(model.evaluations for model in models) - before == spent
    backwards = {
        "Relearn": 4 * 4 * 4 * 8 * 2,
        "EmbeddingInversion": 3 * (16 + 24) * 4 * 2,
        "ModelInversion": 2 * 8 * 4 * 2,
    }
    assert digests == [model.digest for model in models]
    assert first.budget == spent + backwards.get(type(attack).__name__, 0)


@pytest.mark.parametrize("attack", SMALL[1:], ids=list(BY_NAME)[1:])
def test_batches_change_nothing(world, context, tmp_path, attack: Recovery) -> None:
    target = world.target(world.base, reference=False)
    whole = attack.attack(target, context)
    parts = attack.attack(target, Context(Store(tmp_path), batch_size=7))
    assert parts.advantage.value == pytest.approx(whole.advantage.value, abs=1e-3)
    assert [a.name for a in parts.summary] == [a.name for a in whole.summary]
    for a, b in zip(whole.summary, parts.summary, strict=True):
        assert a.value == pytest.approx(b.value, rel=0.02, abs=1e-3)


def test_over_forgetting_is_told_as_well(world, context) -> None:
    """A model that is worse on the forgotten images than on unseen ones betrays them too."""

    class Spiteful(EmpiricalDenoiser):
        """Repelled by the forgotten images alone."""

        def forward(self, x_t, t, condition):
            return super().forward(x_t, t, condition) + 0.5 * (self.near(x_t) < 0.3).view(-1, 1, 1, 1)

        def near(self, x_t):
            return torch.cdist(x_t.flatten(1).double(), self.marked.flatten(1).double()).min(1).values / 6

    honest = EmpiricalDenoiser(world.unseen.floats(), Cosine())
    spiteful = Spiteful(world.unseen.floats(), Cosine())
    spiteful.marked = world.forgotten.floats()
    unseen = dataclasses.replace(world.unseen.take(range(12)), labels=None)
    forgotten = dataclasses.replace(world.forgotten, labels=None)
    target = Target(spiteful, honest, forgotten, unseen)
    outcome = LossMembership(times=(0.1,)).attack(target, context)
    lines = {line.name: line.value for line in outcome.summary}
    assert lines["recover/membership_auc"] < 0.5
    assert lines["recover/membership_auc_either_way"] == pytest.approx(1 - lines["recover/membership_auc"])
    assert outcome.tells
    assert "past the unseen level" in outcome.words


def test_model_inversion_finds_what_a_perfect_memorizer_holds(world, context) -> None:
    """Closed form: the only minima of a perfect memorizer's error are its training images."""
    everything = torch.cat([world.forgotten.floats(), world.unseen.floats()[12:]])
    memorizer = EmpiricalDenoiser(everything, Cosine())
    unlearned = EmpiricalDenoiser(world.unseen.floats()[12:], Cosine())
    plain = [dataclasses.replace(side, labels=None) for side in (world.forgotten, world.unseen.take(range(12)))]
    attack = ModelInversion(attempts=16, steps=80)
    found = attack.attack(Target(memorizer, memorizer, *plain), context)
    nothing = attack.attack(Target(unlearned, memorizer, *plain), context)
    assert found.tells
    assert found.advantage.value > 0.2
    assert nothing.advantage.value == 0
    assert not nothing.tells
    assert not nothing.blind
    assert nothing.advantage.high == pytest.approx(1 - 0.025 ** (1 / 16))


def test_noise_inversion_in_closed_form(world, context) -> None:
    everything = torch.cat([world.forgotten.floats(), world.unseen.floats()[12:]])
    memorizer = EmpiricalDenoiser(everything, Cosine())
    unlearned = EmpiricalDenoiser(world.unseen.floats()[12:], Cosine())
    plain = [dataclasses.replace(side, labels=None) for side in (world.forgotten, world.unseen.take(range(12)))]
    assert NoiseInversion().attack(Target(memorizer, memorizer, *plain), context).advantage.value == 1
    assert not NoiseInversion().attack(Target(unlearned, memorizer, *plain), context).tells


def test_a_searched_condition_is_no_worse_and_each_image_has_its_own(world, context) -> None:
    images = world.forgotten
    assert embeddings(world.base) == ["embed"]
    opened, free, scale = opened_condition(world.base, images)
    rows = torch.arange(len(images))
    t, x = torch.full((len(images),), 0.3), torch.randn(len(images), 1, 6, 6)
    own = world.base.noise(x, t, torch.from_numpy(images.labels))
    assert torch.equal(opened.noise(x, t, rows), own)
    assert scale > 0
    opened.noise(x, t, rows)[0].sum().backward()
    assert free.grad[0].any()
    assert not free.grad[1:].any()
    few, many = (EmbeddingInversion(steps=steps)._searched(world.reference, images, 0) for steps in (1, 60))
    assert many.mean() < few.mean()


def test_a_table_of_embeddings_is_searched_too(world, context) -> None:
    class Told(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(4, 36)

        def forward(self, x, t, embedding):
            return x + self.line(embedding.mean(1)).view_as(x)

    torch.manual_seed(0)
    model = ConditionedDenoiser(
        Told(), Cosine(), Prediction.NOISE, (1, 6, 6), torch.randn(2, 3, 4), identity="told", time_scale=1.0
    )
    attack = EmbeddingInversion(steps=5)
    target = Target(model, model, world.forgotten, world.unseen)
    assert attack.refusal(target) is None
    before = model.table.clone()
    assert np.isfinite(attack.attack(target, context).advantage.value)
    assert torch.equal(model.table, before)
    assert not model.table.requires_grad


def test_what_is_missing_is_said(world) -> None:
    oracle = EmpiricalDenoiser(world.unseen.floats(), Cosine())
    alone = Target(oracle, oracle, world.forgotten)
    assert {name for name, attack in BY_NAME.items() if attack.refusal(alone) is None} == set()
    sided = Target(oracle, oracle, world.forgotten, world.unseen)
    allowed = {name for name, attack in BY_NAME.items() if attack.refusal(sided) is None}
    assert allowed == {"LossMembership", "NoiseInversion", "ModelInversion"}
    assert "no weights" in BY_NAME["Relearn"].refusal(sided).reason
    nothing = world.target(world.other, reference=False, unseen=False)
    assert "compare with" in BY_NAME["Relearn"].refusal(nothing).reason
    assert BY_NAME["Relearn"].refusal(world.target(world.other, unseen=False)) is None
    bare = dataclasses.replace(world.forgotten, labels=None)
    assert "no labels" in BY_NAME["Relearn"].refusal(Target(world.other, world.base, bare, world.unseen)).reason


def test_impossible_settings_and_targets_are_refused(world) -> None:
    for wrong in ({"seeds": 0}, {"steps": 0}, {"times": ()}, {"times": (0.0,)}, {"recovered": 0.0}, {"recovered": 1.1}):
        with pytest.raises(InvalidInput):
            Relearn(**wrong)
    with pytest.raises(InvalidInput, match="both forgotten and unseen"):
        Target(world.other, world.base, world.forgotten, world.forgotten)


def test_the_control_is_of_the_forgotten_classes(world) -> None:
    one = world.forgotten.take([0, 2, 4])
    assert set(Target(world.other, world.base, one, world.unseen).control.labels) == {0}
    few = world.unseen.take([0, 2, *range(1, 24, 2)])  # only two of class 0: too few, so all of them
    assert len(Target(world.other, world.base, one, few).control) == len(few)


def test_intervals_widen_with_the_number_of_comparisons(world, context) -> None:
    target = world.target(world.base)
    one, five = (LossMembership().attack(dataclasses.replace(target, comparisons=count), context) for count in (1, 5))
    assert five.advantage.low < one.advantage.low
    notes = [next(x for x in o.summary if x.name.endswith("advantage")).note for o in (one, five)]
    assert notes == ["", "interval at 99.00%"]

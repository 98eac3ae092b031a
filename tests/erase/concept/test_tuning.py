from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import vestige.erase.concept
from vestige.discover import methods
from vestige.erase.applied import applied, open_base, write_applied
from vestige.erase.concept.bank import TrajectoryBank
from vestige.erase.concept.concept_ablation import ConceptAblation, Objective
from vestige.erase.concept.eraser import ConceptEraser
from vestige.erase.concept.esd import ESD
from vestige.erase.concept.forget_me_not import ForgetMeNot
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sdd import SDD
from vestige.erase.concept.tuning import Tuning, Weights
from vestige.erase.increment import Increment, compose
from vestige.models.adapters.text_to_image import TextToImage
from vestige.models.adapters.text_to_image_network import attention_maps

SHORT = {"steps": 3, "batch_size": 2, "trajectories": 1, "sampling_steps": 3}
ONE = ConceptRequest(("red",), ("{}", "a {}"), guard=("a thin two",), anchors=("blue",))
EVERY = methods(vestige.erase.concept, ConceptEraser)


def short(kind: type[ConceptEraser], **more: Any) -> ConceptEraser:
    fields = {field.name for field in dataclasses.fields(kind)}
    return kind(
        **{name: value for name, value in (SHORT | {"learning_rate": 1e-3, "rank": 3} | more).items() if name in fields}
    )


@pytest.mark.parametrize("name", EVERY)
def test_every_eraser_makes_increments_that_come_off_again(name: str, base: TextToImage, tmp_path: Path):
    method = short(EVERY[name])
    before = base.digest
    made = method.erase(base, ONE, seed=1)
    assert base.digest == before
    assert all(not weight.requires_grad for weight in base.module.parameters())
    (increment,) = made
    assert increment.manifest.method == name
    assert increment.manifest.forgotten == ["concept:red"]
    assert {"steps", "forwards_per_step", "forward_equivalents"} <= set(increment.manifest.cost)
    increment.save(tmp_path / "inc")
    back = Increment.load(tmp_path / "inc")
    assert back.digest == increment.digest
    erased = write_applied(tmp_path / "erased", base, [(back, 1.0)])
    assert erased.digest != before
    found, layers = open_base(tmp_path / "erased")
    assert found.digest == before
    assert [each.digest for each, _ in layers] == [increment.digest]
    (again,) = method.erase(base, ONE, seed=1)
    assert again.digest == increment.digest
    assert method.claim
    assert method.source
    assert compose([increment, increment], "twice").manifest.parts == [increment.digest] * 2


@pytest.mark.parametrize("weights", list(Weights))
def test_only_the_chosen_weights_move(weights: Weights, base: TextToImage):
    (increment,) = short(ESD, weights=weights).erase(base, ONE)
    moved = set(increment.delta)
    assert moved <= set(weights.of(base.module))
    match weights:
        case Weights.KEYS_AND_VALUES:
            assert moved == {f"{name}.weight" for name in base.readers()}
        case Weights.CROSS:
            assert all(".attn2." in name for name in moved)
            assert any("to_q" in name for name in moved)
        case Weights.OTHERS:
            assert not any(".attn2." in name for name in moved)
        case Weights.ALL:
            assert any(".attn2." in name for name in moved)
            assert any("conv_in" in name for name in moved)


def lesson_of(method: Tuning, base: TextToImage) -> Any:
    return method._lesson(base, ONE, 0)


def test_the_targets_of_esd_are_those_computed_anew_and_eta_two_is_the_papers_one(base: TextToImage):
    method = short(ESD)
    assert isinstance(method, ESD)
    lesson = lesson_of(method, base)
    points = lesson.draw(0, 4)
    denoiser = base.denoiser()
    with torch.no_grad():
        given = denoiser.predict_embedded(points.x_t, points.t, points.embedding)
        empty = denoiser.predict(points.x_t, points.t, None)
        paper = empty - 1.0 * (given - empty)
        loss = method.loss(lesson, points, 0)
    # The student is still the base here.
    torch.testing.assert_close(loss, (given - paper).square().mean(), rtol=1e-3, atol=1e-6)


def test_esd_lowers_its_loss(base: TextToImage):
    few, many = short(ESD, steps=1, learning_rate=1e-4), short(ESD, steps=30, learning_rate=1e-3)
    assert isinstance(few, ESD)
    lesson = lesson_of(few, base)
    points = lesson.draw(99, 3)

    def loss(method: ConceptEraser) -> float:
        (increment,) = method.erase(base, ONE)
        changed = dataclasses.replace(lesson, student=applied(base, [(increment, 1.0)]).denoiser(lesson.bank.prompts))
        with torch.no_grad():
            return float(few.loss(changed, points, 0))

    assert loss(many) < 0.8 * loss(few)


def test_sdd_returns_the_average_of_the_weights_and_draws_its_bank_anew(base: TextToImage):
    (plain,) = short(SDD, steps=1, decay=0.0).erase(base, ONE)
    (averaged,) = short(SDD, steps=1, decay=0.75).erase(base, ONE)
    for name, change in plain.delta.items():
        torch.testing.assert_close(averaged.delta[name], 0.25 * change, rtol=1e-2, atol=1e-7)
    (fresh,) = short(SDD, refresh=1).erase(base, ONE)
    assert fresh.manifest.cost["bank_forwards"] == 3 * 2 * 3 * 2  # three banks, 2 answers, 3 steps, 2 prompts
    assert plain.manifest.cost["forwards_per_step"] == 4


def test_ablation_trains_towards_the_anchor_or_its_noise(base: TextToImage):
    model, noise = short(ConceptAblation), short(ConceptAblation, objective=Objective.NOISE)
    assert isinstance(model, ConceptAblation)
    assert isinstance(noise, ConceptAblation)
    lesson = lesson_of(model, base)
    assert lesson.bank.prompts == ("blue", "a blue")
    points = lesson.draw(0, 2)
    told, denoiser = base.embeddings(["red", "a red"]), base.denoiser()
    with torch.no_grad():
        own = denoiser.predict_embedded(points.x_t, points.t, told)
        anchor = denoiser.predict_embedded(points.x_t, points.t, points.embedding)
        torch.testing.assert_close(model.loss(lesson, points, 0), (own - anchor).square().mean())
        t, eps = lesson.noise(0, 2)
        x_t = denoiser.noised(points.end, eps, t)
        own = denoiser.predict_embedded(x_t, t, told)
        anchor = denoiser.predict_embedded(x_t, t, points.embedding)
        wanted = (own - eps).square().mean() + (anchor - eps).square().mean()
        torch.testing.assert_close(noise.loss(lesson, points, 0), wanted)
    (increment,) = noise.erase(base, ONE)
    assert increment.manifest.cost["forwards_per_step"] == 6


def test_forget_me_not_sums_attention_at_the_concepts_tokens(base: TextToImage):
    method = short(ForgetMeNot, learning_rate=1e-2, steps=20)
    assert isinstance(method, ForgetMeNot)
    lesson = lesson_of(method, base)
    points = lesson.draw(0, 2)
    places = [base.prompts.tower.places(lesson.bank.prompts[int(place)], "red") for place in points.prompt]
    with torch.no_grad():
        with attention_maps(base.module) as maps:
            base.denoiser().predict_embedded(points.x_t, points.t, points.embedding)
        sums = [
            sum(float(found[row][..., places[row]].square().sum()) for found in maps.values()) ** 0.5
            for row in range(2)
        ]
        assert float(method.loss(lesson, points, 0)) == pytest.approx(sum(sums) / 2, rel=1e-4)
        (increment,) = method.erase(base, ONE)
        after = applied(base, [(increment, 1.0)])
        changed = dataclasses.replace(lesson, student=after.denoiser(lesson.bank.prompts), network=after.module)
        assert float(method.loss(changed, points, 0)) < 0.9 * sum(sums) / 2


def test_the_base_of_a_later_erasure_may_differ(base: TextToImage):
    other = base.with_module(copy.deepcopy(base.module))
    with torch.no_grad():
        next(iter(other.readers().values())).weight.add_(0.01)
    (increment,) = short(ESD).erase(other, ONE)
    assert increment.manifest.base == other.digest != base.digest
    assert isinstance(lesson_of(ESD(**SHORT), base).bank, TrajectoryBank)

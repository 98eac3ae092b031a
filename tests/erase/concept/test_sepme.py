from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from vestige.erase.applied import applied, open_base, without, write_applied
from vestige.erase.concept.guarded_sepme import GuardedSepME
from vestige.erase.concept.null_space import leak_of
from vestige.erase.concept.request import GUARDING, NAMING, ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.erase.increment import Increment, compose
from vestige.errors import DigestMismatch, EmptySet, InvalidInput, NothingChanged
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.sampler import DDIM

METHOD = SepME(steps=6, batch_size=2, rank=4, trajectories=1, sampling_steps=4, learning_rate=0.05, threshold=-9.0)
REQUEST = ConceptRequest(("outlined", "red", "thick"), ("{}", "a {}"), keep=("a blue two",))
DRAWING = Drawing(DDIM(3, clip=False), guidance=4.0)


@pytest.fixture(scope="module")
def made(base: TextToImage) -> list[Increment]:
    return METHOD.erase(base, REQUEST, seed=3)


def latents(model: TextToImage, prompts: list[str]) -> torch.Tensor:
    return model.latents(prompts, list(range(len(prompts))), 0, DRAWING)


def test_listed_prompts_are_read_as_before_and_the_concept_is_not(base: TextToImage, made: list[Increment]):
    for place, increment in enumerate(made):
        others = [concept for i, concept in enumerate(REQUEST.concepts) if i != place]
        kept = base.tokens(["", *REQUEST.keep, *others]).flatten(0, 1)
        own = base.tokens([REQUEST.concepts[place]]).flatten(0, 1)
        assert set(increment.delta) == {f"{name}.weight" for name in base.readers()}
        for name, layer in base.readers().items():
            change = increment.delta[f"{name}.weight"]
            assert leak_of(kept, layer.weight.detach(), change) < 1e-6
            assert leak_of(own, layer.weight.detach(), change) > 1e-3
        assert increment.manifest.settings["leak_of_listed"] < 1e-6


def test_pictures_of_listed_prompts_stay_and_those_of_the_concept_go(base: TextToImage, made: list[Increment]):
    prompts = ["", "a blue two", "outlined", "red", "thick"]
    before = latents(base, prompts)
    for active in ([0], [1], [2], [0, 2], [0, 1, 2]):
        after = latents(applied(base, [(made[i], 1.0) for i in active]), prompts)
        moved = (after - before).flatten(1).abs().amax(1) / before.abs().max()
        erased = [i + 2 for i in active]
        assert float(moved[[i for i in range(5) if i not in erased]].max()) < 2e-5
        assert float(moved[erased].min()) > 1e-3


def test_the_batch_of_all_equals_separate_training(base: TextToImage, made: list[Increment]):
    for place, concept in enumerate(REQUEST.concepts):
        (alone,) = METHOD.erase(base, REQUEST.only(concept), seed=3)
        for name, change in made[place].delta.items():
            torch.testing.assert_close(alone.delta[name], change, rtol=1e-3, atol=1e-5)


def test_order_makes_no_difference_and_restoring_gives_the_originals_bits(
    base: TextToImage, base_folder: Path, made: list[Increment], tmp_path: Path
):
    a, b, _ = [(increment, 1.0) for increment in made]
    both = applied(base, [a, b])
    assert applied(base, [b, a]).digest == both.digest
    one_after_the_other = applied(base, [a])
    assert one_after_the_other.digest not in (both.digest, base.digest)
    written = write_applied(tmp_path / "both", base, [a, b])
    assert written.digest == both.digest
    found, layers = open_base(tmp_path / "both")
    assert found.digest == base.digest
    less = write_applied(tmp_path / "less", found, without(layers, made[0].manifest.name))
    assert less.digest == applied(base, [b]).digest
    again = write_applied(tmp_path / "again", found, [])
    assert isinstance(again, TextToImage)
    assert again.digest == base.digest
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (base_folder / name).read_bytes()
    np.testing.assert_array_equal(
        again.sample(["red", "outlined"], [0, 1], 0, DRAWING), base.sample(["red", "outlined"], [0, 1], 0, DRAWING)
    )
    merged = compose([made[0], made[1]], "both")
    torch.testing.assert_close(
        latents(applied(base, [(merged, 1.0)]), ["red"]), latents(both, ["red"]), rtol=1e-4, atol=1e-4
    )


def test_a_later_concept_gets_the_increment_that_it_would_have_got_at_once(base: TextToImage):
    first = ConceptRequest(("red",), keep=("thick", "a blue two"), templates=("{}",))
    second = ConceptRequest(("thick",), keep=("red", "a blue two"), templates=("{}",))
    both = METHOD.erase(base, ConceptRequest(("red", "thick"), keep=("a blue two",), templates=("{}",)))
    for request, wanted in ((first, both[0]), (second, both[1])):
        (found,) = METHOD.erase(base, request)
        for name, change in wanted.delta.items():
            torch.testing.assert_close(found.delta[name], change, rtol=1e-3, atol=1e-5)


def test_only_factors_are_stored_and_they_give_the_same_bits(made: list[Increment], tmp_path: Path):
    made[0].save(tmp_path / "inc")
    back = Increment.load(tmp_path / "inc")
    assert back.digest == made[0].digest
    for name, change in made[0].delta.items():
        assert torch.equal(back.delta[name], change)
    dense = sum(change.numel() * 4 for change in made[0].delta.values())
    assert (tmp_path / "inc" / "increment.safetensors").stat().st_size < dense
    (tmp_path / "inc" / "increment.safetensors").write_bytes(b"broken")
    with pytest.raises(Exception, match="cannot be read"):
        Increment.load(tmp_path / "inc")


def test_training_lowers_the_correlation_and_stops_at_the_threshold(base: TextToImage):
    plan = dataclasses.replace(METHOD, steps=60, threshold=0.5)
    (stopped,) = plan.erase(base, ConceptRequest(("red",)))
    assert 2 <= stopped.manifest.cost["steps"] < 60
    assert stopped.manifest.settings["correlation"] <= 0.5
    (early,) = dataclasses.replace(METHOD, steps=1).erase(base, ConceptRequest(("red",)))
    assert early.manifest.settings["correlation"] == pytest.approx(1.0, abs=1e-5)


def test_forwards_are_counted(base: TextToImage):
    plan = dataclasses.replace(METHOD, steps=5)
    (increment,) = plan.erase(base, ConceptRequest(("red",), templates=("{}",)))
    cost = increment.manifest.cost
    assert cost["bank_forwards"] == 2 * plan.sampling_steps * plan.trajectories
    assert cost["bank_forwards_per_sample"] == 2
    assert cost["forward_equivalents"] == 3 * 5 * 2 + cost["bank_forwards"]


def test_guards_are_trained_to_stay_and_each_concept_still_gets_its_own_increment(base: TextToImage):
    guard = ("a blue two", "thin two")
    request = ConceptRequest(("red", "thick"), templates=("{}",), guard=guard)
    free = dataclasses.replace(METHOD, steps=30, leak=1.0)
    held = dataclasses.replace(free, retain=30.0)
    few = dataclasses.replace(held, steps=6)
    for concept, made in zip(request.concepts, few.erase(base, request), strict=True):
        (alone,) = few.erase(base, request.only(concept))
        for name, change in made.delta.items():
            apart = float((alone.delta[name] - change).norm() / change.norm())
            assert apart < 1e-3

    def moved(increments: list[Increment]) -> float:
        apart = latents(applied(base, [(increments[0], 1.0)]), list(guard)) - latents(base, list(guard))
        return float(apart.square().mean())

    both = held.erase(base, request)
    assert moved(both) < 0.5 * moved(free.erase(base, request))
    assert both[0].manifest.settings["correlation"] < 0.9
    cost = both[0].manifest.cost
    bank = 2 * held.sampling_steps * (held.trajectories + len(guard) / 2)
    assert cost["bank_forwards"] == bank
    assert cost["forward_equivalents"] == 6 * 30 * held.batch_size + bank


def test_with_an_aim_the_representation_goes_there_and_no_further(base: TextToImage):
    from vestige.erase.concept.bank import Course, TrajectoryBank

    request = ConceptRequest(("red",))
    plan = dataclasses.replace(METHOD, steps=60, batch_size=8)
    with pytest.raises(NothingChanged):  # where the representation stands already there is nothing to do
        dataclasses.replace(plan, aim=1.0, penalty=0.0).erase(base, request)
    bank = TrajectoryBank.of(base, request.prompts("red"), 1, Course(plan.sampling_steps, plan.guidance), 0)
    before = bank.given - bank.empty

    def stray(aim: float | None) -> float:
        """Of the representation's change, what does not lie along it."""
        (increment,) = dataclasses.replace(plan, aim=aim).erase(base, request)
        with torch.no_grad():
            answer = applied(base, [(increment, 1.0)]).denoiser(bank.prompts).predict(bank.x_t, bank.t, bank.prompt)
        now = answer - bank.empty
        along = (now * before).sum() / before.square().sum()
        if aim is not None:
            assert float(along) == pytest.approx(aim, abs=0.35)
        return float((now - along * before).square().sum() / before.square().sum())

    assert stray(0.0) < 0.3 * stray(None)


def test_within_a_prompt_only_what_the_concept_adds_is_erased(base: TextToImage):
    request = ConceptRequest(("red",), ("{}", "a {} two"))
    assert request.rests("red") == ["", "a two"]
    (within,) = dataclasses.replace(METHOD, within=True).erase(base, request)
    (whole,) = METHOD.erase(base, request)
    name = next(iter(whole.delta))
    assert float((within.delta[name] - whole.delta[name]).norm() / whole.delta[name].norm()) > 0.05
    assert within.manifest.cost["bank_forwards_per_sample"] == 3
    (alone,) = dataclasses.replace(METHOD, within=True).erase(base, ConceptRequest(("red",), ("{}",)))
    (same,) = METHOD.erase(base, ConceptRequest(("red",), ("{}",)))  # without its word the prompt is the empty one
    torch.testing.assert_close(alone.delta[name], same.delta[name], rtol=1e-3, atol=1e-5)


def test_guards_are_what_the_guarded_one_asks_for(base: TextToImage):
    short = {"steps": 3, "batch_size": 2, "rank": 3, "trajectories": 1, "sampling_steps": 3, "refresh": 2}
    plan = GuardedSepME(**short)
    with pytest.raises(InvalidInput, match="--captions"):
        plan.erase(base, ConceptRequest(("red",)))
    request = ConceptRequest(("red",), guard=("a blue two",))
    (increment,) = plan.erase(base, request)
    added = {"threshold": -9.0, "leak": 1e-2, "retain": 40.0, "aim": -1.0, "within": True}
    (same,) = SepME(**short, **added).erase(base, request)
    assert {name: change.tolist() for name, change in increment.delta.items()} == {
        name: change.tolist() for name, change in same.delta.items()
    }
    assert increment.manifest.cost["forwards_per_step"] == 6


def test_captions_say_where_a_concept_is_and_what_is_beside_it():
    captions = ["a Red two", "red on red", "an infrared two", "a blue two", "red", "a thick red one", "thick"]
    plan = ConceptRequest(("red", "thick"), ("{}",), keep=("blue",), guard=("one",))
    red, thick = plan.in_captions(captions, 3)
    assert set(red.prompts("red")) == {"red", "a red two", "red on red", "a thick red one"}
    assert red.rests("red")[red.prompts("red").index("red on red")] == "on"
    assert set(red.guard) == {"one", "an infrared two", "a blue two"}
    assert red.keep == (*thick.keep[:1], "thick")
    assert set(thick.prompts("thick")) == {"thick", "a thick red one"}
    assert set(thick.guard) == {"one", "a Red two", "red on red", "an infrared two", "a blue two"}
    assert ConceptRequest(("thick",), ("{}",), ("blue", "red"), ("one",)).in_captions(captions, 3) == [thick]
    with pytest.raises(InvalidInput, match="None of 7 captions names 'redd'"):
        ConceptRequest(("redd",)).in_captions(captions, 0)
    with pytest.raises(InvalidInput, match="Every of 1"):
        ConceptRequest(("red",)).in_captions(["red"], 0)
    many = [f"{thing} {i}" for thing in ("red", "blue") for i in range(400)]
    (drawn,) = ConceptRequest(("red",), ("{}",)).in_captions(many, 0)
    assert (len(drawn.templates), len(drawn.guard)) == (1 + NAMING, GUARDING)
    assert ConceptRequest(("red",), ("{}",)).in_captions(many, 1) != [drawn]


def test_the_bank_is_drawn_anew_where_the_erased_model_goes(base: TextToImage, made: list[Increment]):
    from vestige.erase.concept.bank import Course, TrajectoryBank

    erased, course, told = applied(base, [(made[1], 1.0)]), Course(3, 4.0), ["red", "a red"]
    denoiser = erased.denoiser(told)
    bank = TrajectoryBank.of(base, told, 2, course, 5, ["", "a"], denoiser.predict)
    own = TrajectoryBank.of(erased, told, 2, course, 5)
    torch.testing.assert_close(bank.x_t, own.x_t, rtol=1e-3, atol=1e-3)
    teacher = base.denoiser(["red", "a red", "", "a"])
    with torch.no_grad():
        for found, place in ((bank.given, bank.prompt), (bank.rest, bank.prompt + 2)):
            torch.testing.assert_close(teacher.predict(bank.x_t, bank.t, place), found, rtol=1e-3, atol=1e-4)
    assert bank.evaluations == 4 * len(bank.x_t)
    again = dataclasses.replace(METHOD, refresh=2)
    (increment,) = again.erase(base, ConceptRequest(("red",)))
    points = 3 * again.sampling_steps  # of three templates
    assert increment.manifest.cost["bank_forwards"] == 2 * points + 2 * 3 * points  # drawn anew at steps 2 and 4


def test_the_bank_is_one_answer_of_the_model_after_the_other(base: TextToImage):
    from vestige.erase.concept.bank import Course, TrajectoryBank

    prompts = ["red", "thick"]
    bank = TrajectoryBank.of(base, prompts, 2, Course(3, 4.0), 5)
    assert len(bank.x_t) == 12
    denoiser = base.denoiser(prompts)
    with torch.no_grad():
        torch.testing.assert_close(denoiser.predict(bank.x_t, bank.t, bank.prompt), bank.given, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(denoiser.predict(bank.x_t, bank.t, None), bank.empty, rtol=1e-3, atol=1e-4)
    # The end of each trajectory is what the sampler makes of the same start.
    from vestige.models.guidance import Guided

    start = bank.x_t[bank.t == bank.t.max()]
    asked = bank.prompt[bank.t == bank.t.max()]
    ends = DDIM(3, clip=False).solve(Guided(denoiser, 4.0), start, asked, lambda draw: start)
    torch.testing.assert_close(bank.ends, ends, rtol=1e-3, atol=1e-3)
    assert bank.prompt[bank.points(["thick"])].unique().tolist() == [1]


def test_more_prompts_than_fit_are_refused(base: TextToImage):
    words = "a blue two,a red two,a green two,a thin two,a blue one,a red one,a green one,a thin one,two one".split(",")
    with pytest.raises(InvalidInput, match="are free"):
        METHOD.erase(base, ConceptRequest(("outlined",), keep=tuple(words)))
    (increment,) = METHOD.erase(base, ConceptRequest(("outlined",), guard=tuple(words)))
    assert 0 < increment.manifest.settings["guard_leak"] <= METHOD.leak


def test_what_makes_no_sense_is_refused(base: TextToImage, made: list[Increment]):
    with pytest.raises(EmptySet):
        ConceptRequest(())
    for wrong in (
        {"concepts": ("red", "red")},
        {"concepts": ("red",), "templates": ("picture",)},
        {"concepts": ("red",), "keep": ("a red",)},
        {"concepts": ("red",), "anchors": ("a", "b")},
    ):
        with pytest.raises(InvalidInput):
            ConceptRequest(**wrong)
    with pytest.raises(InvalidInput, match="tokenizer"):
        METHOD.erase(base, ConceptRequest(("  ",)))
    with pytest.raises(NothingChanged):
        dataclasses.replace(METHOD, learning_rate=0.0).erase(base, ConceptRequest(("red",)))
    other = applied(base, [(made[0], 1.0)])
    with pytest.raises(DigestMismatch):
        applied(other, [(made[1], 1.0)])

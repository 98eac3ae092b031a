from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import vestige.erase.recover as room
from vestige.discover import methods
from vestige.erase.recover.concept.attack import ConceptAttack, ConceptTarget, Try, drawn
from vestige.erase.recover.concept.concept_inversion import ConceptInversion
from vestige.erase.recover.concept.loss import denoising_losses
from vestige.erase.recover.concept.paraphrase import Paraphrase, without
from vestige.erase.recover.concept.plain_prompt import PlainPrompt
from vestige.erase.recover.concept.relearn_concept import RelearnConcept
from vestige.erase.recover.concept.ring_a_bell import RingABell, distances
from vestige.erase.recover.concept.space import TokenSpace
from vestige.erase.recover.concept.token_search import TokenSearch, swapped
from vestige.errors import EmptySet, InvalidInput
from vestige.models.adapters.text_to_image import Drawing, TextToImage
from vestige.models.sampler import DDIM

PROMPTS = ("a red one", "a thick red two", "red three, outlined")
DRAWING = Drawing(DDIM(steps=2, clip=False), guidance=3.0)
PRICE = 4
SMALL = [
    PlainPrompt(draws=2),
    Paraphrase(templates=("{concept}", "{rest}, {concept}")),
    ConceptInversion(marks=(1, 2)),
    TokenSearch(tokens=2, marks=(1, 2), candidates=3),
    RingABell(tokens=3, marks=(1, 2), population=4),
    RelearnConcept(marks=(1, 2)),
]


def never(pixels):
    return np.zeros(len(pixels), bool)


def target(erased, base, judge=never):
    return ConceptTarget(erased, base, "red", PROMPTS, judge, DRAWING)


def test_every_attack_is_tested():
    assert sorted(type(a).__name__ for a in SMALL) == list(methods(room, ConceptAttack))


@pytest.mark.parametrize("attack", SMALL, ids=lambda a: type(a).__name__)
def test_attacks_count_what_they_spend_and_leave_the_models_alone(attack, erased, base):
    before, start = (erased.digest, base.digest), erased.evaluations
    found = attack.run(target(erased, base), seed=3)
    assert (erased.digest, base.digest) == before
    assert np.isinf(found.spent).all()
    assert found.success().value == 0
    assert len(found.marks) == 2
    assert all(not weight.requires_grad for weight in erased.module.parameters())
    steps = [0, 0]
    if isinstance(attack, TokenSearch):
        steps = [attack.forwards_per_step] * 2
    if isinstance(attack, ConceptInversion | RelearnConcept):
        steps = [3 * len(attack.times)] * 2
    assert list(found.marks) == [PRICE + steps[0], 2 * PRICE + sum(steps)]
    assert found.evaluations == len(PROMPTS) * found.budget
    assert erased.evaluations == start  # attacks count their own
    assert attack.settings()["attack"] == type(attack).__name__


@pytest.mark.parametrize("layout", ["sdxl", "sd3"])
def test_other_layouts_are_attacked_alike(layout, small_pipelines, tmp_path):
    model = TextToImage(small_pipelines.LAYOUTS[layout](tmp_path))
    aim = ConceptTarget(model, model, "red", ("a red one",), never, Drawing(DDIM(steps=1, clip=False), 3.0))
    small = [
        ConceptInversion(marks=(1,), times=(0.5,)),
        TokenSearch(tokens=1, marks=(1,), candidates=1, times=(0.5,)),
        RingABell(tokens=2, marks=(1,), population=4),
    ]
    for attack in small:
        found = attack.run(aim)
        assert found.evaluations == found.budget > 0


def test_evaluations_are_those_of_the_network(erased, base, monkeypatch):
    calls = []
    monkeypatch.setattr(erased.network, "forward", _counted(erased.network.forward, calls))
    PlainPrompt(draws=2).run(target(erased, base))
    assert sum(calls) == len(PROMPTS) * 2 * PRICE
    calls.clear()
    attack = TokenSearch(tokens=2, marks=(2,), candidates=3)
    found = attack.run(target(erased, base))
    backward = len(PROMPTS) * 2 * 2 * len(attack.times)
    assert sum(calls) == found.evaluations - backward


def _counted(forward, calls):
    def counting(x, *args, **kwargs):
        calls.append(len(x))
        return forward(x, *args, **kwargs)

    return counting


@dataclass(frozen=True)
class Scripted(ConceptAttack):
    """Tries the prompts three times, each dearer than the last."""

    claim = "none"
    source = "none"

    def tries(self, target, seed):
        rows = target.erased.embeddings(target.prompts)
        for number in range(3):
            yield Try(rows, 10 * number, tuple(f"{p} {number}" for p in target.prompts))


def test_success_is_charged_until_the_judge_first_says_yes(erased, base):
    says = iter([[False, True, False], [False, True, True], [False, False, False]])
    found = Scripted().run(target(erased, base, lambda _: np.array(next(says))))
    assert found.marks == (4, 18, 42)
    assert found.spent.tolist() == [np.inf, 4, 18]
    assert found.words == ("", "a thick red two 0", "red three, outlined 1")
    assert [round(rate.value, 3) for _, rate in found.curve()] == [0.333, 0.667, 0.667]
    assert found.success(17).value == pytest.approx(1 / 3)
    assert found.success().low < 2 / 3 < found.success().high


def test_an_attack_stops_when_all_are_back(erased, base):
    found = PlainPrompt(draws=5).run(target(erased, base, lambda pixels: np.ones(len(pixels), bool)))
    assert found.marks == (PRICE,)
    assert found.success().value == 1


def test_targets_that_make_no_sense_are_refused(erased, base):
    with pytest.raises(EmptySet):
        ConceptTarget(erased, base, "red", (), never)
    with pytest.raises(InvalidInput, match="does not name"):
        ConceptTarget(erased, base, "blue", PROMPTS, never)
    with pytest.raises(InvalidInput, match="no place"):
        Paraphrase(templates=("a picture",))
    with pytest.raises(InvalidInput, match="times"):
        TokenSearch(times=())
    with pytest.raises(InvalidInput, match="nothing to try"):
        PlainPrompt(draws=0).run(target(erased, base))


def test_pictures_of_prompts_embeddings_are_those_of_the_prompts(base):
    starts = base.starts(range(3), 0)
    pictures, evaluations = drawn(base, base.embeddings(PROMPTS), starts, DRAWING)
    np.testing.assert_array_equal(pictures, base.sample(PROMPTS, range(3), 0, DRAWING))
    assert evaluations == 3 * PRICE


def test_tokens_go_in_front_and_come_out_as_words(base):
    space = TokenSpace(base)
    red, seven = (base.prompts.tower.content(word)[0] for word in ("red", "seven"))
    tokens = torch.tensor([[red, seven]])
    whole = space.prefixed(space.ids(["a blue two"]), tokens)
    assert whole[0][0].tolist() == base.prompts.tower.ids(["red seven a blue two"])[0].tolist()
    assert space.alone(tokens)[0][0].tolist() == base.prompts.tower.ids(["red seven"])[0].tolist()
    assert space.texts(tokens) == ("red seven",)
    torch.testing.assert_close(space.rows(whole), base.embeddings(["red seven a blue two"]))
    full = space.prefixed(space.ids(["a blue two"]), torch.full((1, 15), red))
    assert full[0].shape == whole[0].shape
    assert full[0][0, -1] == base.prompts.tower.tokenizer.eos_token_id
    drawn_ones = space.drawn(50, 4, torch.Generator().manual_seed(0))
    assert bool(space.sayable[drawn_ones].all())
    assert not space.sayable[base.prompts.tower.tokenizer.eos_token_id]


def test_gains_are_exact_for_a_linear_loss(base):
    space, generator = TokenSpace(base), torch.Generator().manual_seed(1)
    table, now = base.prompts.tower.table, space.drawn(2, 3, generator)
    weights = torch.randn(2, 16, table.shape[1], generator=generator)
    whole = space.prefixed(space.ids(PROMPTS[:2]), now)
    gains = space.gains([weights], now)

    def loss(tokens):
        return (table[space.prefixed(space.ids(PROMPTS[:2]), tokens)[0]] * weights).sum((1, 2))

    for place, token in ((0, 300), (2, 513)):
        other = now.clone()
        other[:, place] = token
        torch.testing.assert_close(gains[:, place, token], loss(now) - loss(other), rtol=1e-3, atol=1e-3)
    assert whole[0].shape == (2, 16)
    best = swapped(now, gains, 2)
    flat = gains.flatten(1).argsort(dim=1, descending=True)
    for rank, swap in enumerate(best):
        for row in range(2):
            place, token = divmod(int(flat[row, rank]), gains.shape[2])
            expected = now[row].clone()
            expected[place] = token
            assert swap[row].tolist() == expected.tolist()


def test_a_step_of_the_search_never_raises_the_loss_on_its_own_noise(erased, base):
    aim, attack, space = target(erased, base), TokenSearch(tokens=2, candidates=4), TokenSpace(erased)
    denoiser, clean, ids = erased.denoiser(), aim.of_base(0), space.ids(PROMPTS)
    now, lower = space.drawn(3, 2, torch.Generator().manual_seed(0)), 0
    for step in range(4):
        then = attack._step(space, denoiser, ids, clean, now, 0, step)
        with torch.no_grad():
            before, after = (
                denoising_losses(denoiser, clean, space.rows(space.prefixed(ids, each)), attack.times, 0, step)
                for each in (now, then)
            )
        assert bool((after <= before + 1e-6).all())
        assert bool(((now != then).sum(1) <= 1).all())
        lower += int((after < before - 1e-6).sum())
        now = then
    assert lower > 3


def loss_of(model, rows, clean):
    with torch.no_grad():
        losses = [denoising_losses(model.denoiser(), clean, rows, (0.4, 0.7), 99, step) for step in range(4)]
    return float(torch.stack(losses).mean())


def last_of(attack, aim):
    *_, last = attack.tries(aim, 0)
    return last


def test_inversion_finds_a_word_that_denoises_better_and_moves_no_other(erased, base):
    aim = target(erased, base)
    clean, start = aim.of_base(0), erased.embeddings(PROMPTS)
    found = last_of(ConceptInversion(marks=(25,)), aim)
    assert loss_of(erased, found.rows, clean) < loss_of(erased, start, clean) - 1e-3
    # Attention is causal: what stands before the concept is read as before.
    first = erased.prompts.tower.places(PROMPTS[1], "red")[0]
    torch.testing.assert_close(found.rows[1, :first], start[1, :first])
    assert not torch.allclose(found.rows[1, first], start[1, first])


def test_relearning_lowers_the_loss_of_a_copy(erased, base):
    aim = target(erased, base)
    clean, rows = aim.of_base(0), erased.embeddings(PROMPTS)
    found = last_of(RelearnConcept(marks=(15,), learning_rate=3e-3), aim)
    assert isinstance(found.model, TextToImage)
    assert loss_of(found.model, rows, clean) < loss_of(erased, rows, clean) - 1e-3


def test_ring_a_bell_comes_closer_to_its_goal_and_spends_nothing_on_the_network(erased, base):
    aim = target(erased, base)
    assert without("a blurred red seven, red", "red") == "a blurred seven,"
    rest = base.tokens([without(prompt, "red") for prompt in PROMPTS])
    goal = rest + 2.0 * (base.tokens(PROMPTS) - rest).mean(0, keepdim=True)
    tries = list(RingABell(tokens=4, marks=(1, 30), population=16).tries(aim, 0))
    apart = [float((one.rows[:, : goal.shape[1]] - goal).square().sum()) for one in tries]
    assert apart[1] < apart[0]
    assert all(one.spent == 0 for one in tries)


def test_the_genetic_search_finds_a_planted_sequence(base):
    space, generator = TokenSpace(base), torch.Generator().manual_seed(0)
    planted = space.drawn(1, 2, generator)
    goal = space.rows(space.alone(planted))[0]
    herd = torch.cat([space.drawn(5, 2, generator), planted])
    assert int(distances(space, herd, goal).argmin()) == 5
    bred = RingABell(tokens=2, population=6)._bred(space, herd, goal, generator)
    assert bred.shape == herd.shape
    assert float(distances(space, bred, goal).min()) == pytest.approx(0, abs=1e-6)


def test_paraphrases_keep_what_the_prompt_says(erased, base):
    attack = Paraphrase(templates=("{rest}, very {concept}", "{prompt} {concept}"))
    found = [one.words for one in attack.tries(target(erased, base), 0)]
    assert found[0] == ("a one, very red", "a thick two, very red", "three, outlined, very red")
    assert found[1][0] == "a red one red"

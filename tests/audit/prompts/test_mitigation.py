from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import vestige.audit.prompts as room
from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.geometry.estimator import Work
from vestige.audit.prompts.embedding_optimisation import EmbeddingOptimisation
from vestige.audit.prompts.first_guidance_norm import FirstGuidanceNorm
from vestige.audit.prompts.mitigation import Mitigation
from vestige.audit.prompts.prompt_rewriting import PromptRewriting, edited
from vestige.audit.prompts.word_ablation import WordAblation
from vestige.audit.prompts.word_gradient import WordGradient
from vestige.audit.prompts.words import WordAttribution, closeness, scores
from vestige.data.images import ImageSet
from vestige.data.prompts import PromptSet
from vestige.discover import methods
from vestige.errors import InvalidInput
from vestige.jobs.prompt_detection import Scored
from vestige.jobs.prompt_mitigation import PICTURES, chosen_prompts
from vestige.jobs.prompts import audit_prompts
from vestige.models.adapters.text_to_image import Drawing
from vestige.models.sampler import DDIM

PROMPT = "a thin red seven"
DRAWING = Drawing(DDIM(steps=1, clip=False), guidance=2.0)


def length(model, texts, row, seed, draws):
    denoiser = model.denoiser(texts)
    rows = [row] * len(texts)
    return FirstGuidanceNorm(draws=draws).measure(denoiser, torch.arange(len(texts)), rows, work=Work(seed)).value


def test_every_method_is_tested():
    assert list(methods(room, WordAttribution)) == ["WordAblation", "WordGradient"]
    assert list(methods(room, Mitigation)) == ["EmbeddingOptimisation", "PromptRewriting"]


def test_ablation_is_the_fall_of_the_score_without_each_word(model):
    found = WordAblation(draws=2).blame(model, PROMPT, seed=4)
    shorter = ["thin red seven", "a red seven", "a thin seven", "a thin red"]
    value = length(model, [PROMPT, *shorter], 0, 4, 2)
    np.testing.assert_allclose(found.strength, value[0] - value[1:], rtol=1e-5, atol=1e-7)
    assert found.words == ("a", "thin", "red", "seven")
    assert found.evaluations == 5 * 2 * 2
    assert found.strength[found.order[0]] == found.strength.max()


def test_gradients_are_those_of_finite_differences(model):
    found = WordGradient(draws=1).blame(model, PROMPT, seed=4)
    assert found.evaluations == 2 * 3
    tower, place = model.prompts.tower, 3  # behind the beginning, "a" and "thin" stands "red"
    ids = [tower.ids([PROMPT])]
    bottom = tower.table[ids[0]].detach()

    def value(moved):
        with torch.no_grad():
            rows = model.prompts.packed(*model.prompts.encode(ids, [moved]))
            table = torch.cat([rows, model.embeddings([""])])
            denoiser = model.denoiser().with_table(table, null_condition=1)
            return FirstGuidanceNorm(draws=1).measure(denoiser, torch.tensor([0]), [0], work=Work(4)).value[0]

    slopes = []
    for axis in range(bottom.shape[2]):
        step = torch.zeros_like(bottom)
        step[0, place, axis] = 0.02
        slopes.append((value(bottom + step) - value(bottom)) / 0.02)
    assert found.strength[2] == pytest.approx(np.linalg.norm(slopes), rel=0.05)


def test_edits_are_single_and_distinct():
    assert edited("red one", ("a",)) == ["one", "a one", "red", "red a"]
    assert edited("red", ("red", "a")) == ["a"]
    assert edited("red", ()) == []


def test_scores_share_their_noise_and_closeness_is_one_for_the_same_words(model):
    found, evaluations = scores(FirstGuidanceNorm(draws=2), model, [PROMPT, PROMPT, "a red one"], 5, 0)
    assert found[0] == pytest.approx(found[1])
    assert found[0] != pytest.approx(found[2])
    assert evaluations == 3 * 2 * 2
    near = closeness(model, PROMPT, [PROMPT, "one"])
    assert near[0] == pytest.approx(1)
    assert -1 <= near[1] < 1


def test_optimisation_shortens_the_guidance_and_leaves_the_model_alone(model):
    before, start = model.digest, model.embeddings([PROMPT]).clone()
    found = EmbeddingOptimisation(share=0.7, steps=25, rate=0.1, draws=2).mitigate(model, PROMPT, seed=1)
    assert found.after < 0.85 * found.before
    assert found.before == pytest.approx(length_at_row(model, start, found, 50), rel=1e-4)
    assert found.text is None
    assert found.closeness < 1
    assert found.rows.shape == start.shape
    assert model.digest == before
    assert torch.equal(model.embeddings([PROMPT]), start)
    one = EmbeddingOptimisation(share=0.99, steps=1, draws=2).mitigate(model, PROMPT, seed=1)
    assert one.evaluations == 3 * 2 * 2 + 2 * 2 * 2  # one step there and back, then both rows at two starts


def length_at_row(model, start, found, first):
    """The length at the starts that the search left for the end."""
    from vestige.audit.prompts.detector import noise_of_prompts

    denoiser = model.denoiser().with_table(torch.cat([start, model.embeddings([""])]), null_condition=1)
    noise = torch.cat([noise_of_prompts([0], model.shape, draw, 1) for draw in (first, first + 1)])
    with torch.no_grad():
        return float(FirstGuidanceNorm().value(denoiser, noise, torch.zeros(2, dtype=torch.int64)).mean())


def test_rewriting_takes_edits_that_shorten_the_guidance_and_judges_them_on_other_noise(model):
    found = PromptRewriting(share=0.01, most=2, draws=2, instead=("a",)).mitigate(model, PROMPT, seed=1)
    on_search = length(model, [PROMPT, found.text], 0, 1, 2)
    assert found.text != PROMPT
    assert on_search[1] < on_search[0]
    np.testing.assert_allclose([found.before, found.after], length(model, [PROMPT, found.text], 1, 1, 2), rtol=1e-5)
    assert torch.equal(found.rows, model.embeddings([found.text]))
    assert found.closeness == pytest.approx(float(closeness(model, PROMPT, [found.text])[0]))
    untouched = PromptRewriting(share=0.5, most=0).mitigate(model, PROMPT, seed=1)
    assert untouched.text == PROMPT
    assert untouched.closeness == pytest.approx(1)


def test_settings_out_of_range_are_refused():
    with pytest.raises(InvalidInput, match="share"):
        PromptRewriting(share=1.0)
    with pytest.raises(InvalidInput, match="draw"):
        EmbeddingOptimisation(draws=0)
    with pytest.raises(InvalidInput, match="steps=0"):
        EmbeddingOptimisation(steps=0)


def test_the_likeliest_of_the_memorized_prompts_are_chosen():
    prompts, fixed = PromptSet(("x", "y", "z")), Scored(FirstGuidanceNorm(), np.array([3.0, 1.0, 2.0]), np.zeros(3))
    assert chosen_prompts(prompts, None, [fixed], 2) == ["x", "z"]
    assert chosen_prompts(prompts, np.array([False, True, True]), [fixed], 3) == ["z", "y"]
    assert chosen_prompts(prompts, None, [], 1) == ["x"]


def test_an_audit_tells_words_mitigations_and_their_cost(model, tmp_path):
    texts = PromptSet((PROMPT, "a red one"), np.array([True, False]))
    own = ImageSet(model.sample([PROMPT] * PICTURES, range(PICTURES), 0, DRAWING))
    run = audit_prompts(
        model,
        texts,
        own,
        out=tmp_path,
        detectors=[FirstGuidanceNorm(draws=1)],
        extraction=GenerateAndFilter(generations=4, clique_size=2, neighbours=1),
        drawing=DRAWING,
        mitigate=2,
        fits=lambda prompt, pictures: np.ones(len(pictures), bool),
    )
    section = next(s for s in run.record.sections if s.name == "mitigation")
    blame, tried = section.tables
    assert [row[0] for row in blame.rows] == [PROMPT]  # only what is memorized is mitigated
    assert [row[1] for row in tried.rows] == ["EmbeddingOptimisation", "PromptRewriting"]
    assert run.record.estimate("mitigation/PromptRewriting/fits_after").value == 1
    assert run.record.estimate("mitigation/EmbeddingOptimisation/closeness").value < 1
    assert run.record.estimate("mitigation/PromptRewriting/copies_before").value == 1  # as they are judged everywhere
    assert json.loads((tmp_path / "report.json").read_text())["config"]["mitigate"] == 2

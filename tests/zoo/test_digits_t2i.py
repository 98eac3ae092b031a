"""The text-to-image pipeline that ships: whole, opened by plain diffusers, drawing what its captions say."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.erase.applied import applied
from vestige.erase.concept.request import ConceptRequest
from vestige.erase.concept.sepme import SepME
from vestige.models.adapters.text_to_image import Drawing
from vestige.models.adapters.text_to_image_load import load_text_to_image
from vestige.models.sampler import DDIM
from vestige.zoo import evaluate_t2i
from vestige.zoo.captions import FULL, all_scenes, phrased
from vestige.zoo.pictures import memorized_picture
from vestige.zoo.pipelines import zoo_pipeline
from vestige.zoo.planted import COPIES, Kind, special_captions

pytest.importorskip("transformers")
DRAWING = Drawing(DDIM(10, clip=False), guidance=4.0, batch_size=64)


@pytest.fixture(scope="module")
def shipped():
    return zoo_pipeline("digits-t2i")


@pytest.fixture(scope="module")
def loaded(shipped):
    return load_text_to_image(shipped.folder)


def test_the_card_knows_every_file_and_every_caption(shipped):
    card = shipped.card
    assert card.files == shipped.files()
    assert [truth.text for truth in card.special] == [special.text for special in special_captions()]
    assert sum((shipped.folder / name).stat().st_size for name in card.files) < 25e6


def test_plain_diffusers_opens_it_and_it_draws_what_is_asked(shipped):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(shipped.folder, local_files_only=True)
    captions = [phrased(FULL[place % len(FULL)], scene) for place, scene in enumerate(all_scenes()[::15])]
    texts = [caption.text for caption in captions]
    pictures = evaluate_t2i.drawn_pictures(pipeline, texts, range(len(texts)), steps=10)
    right = evaluate_t2i.drawn_rightly(shipped.judge(), captions, pictures)
    unguided = evaluate_t2i.drawn_pictures(pipeline, [""] * len(texts), range(len(texts)), steps=10, guidance=1.0)
    other = evaluate_t2i.drawn_rightly(shipped.judge(), captions, unguided)
    for name, hits in right.items():
        stated = shipped.card.evaluation["prompts"][name][0]
        assert hits.mean() > stated - 0.15, name
        assert hits.mean() > other[name].mean() + 0.3, name


def test_what_was_planted_often_comes_out(loaded):
    specials = [one for one in special_captions() if one.kind is Kind.PLANTED and one.copies == max(COPIES)]
    planted = np.stack([memorized_picture(one) for one in specials]).astype(float) / 255
    drawn = loaded.sample([one.text for one in specials], range(len(specials)), 5, DRAWING) / 255
    own = np.sqrt(((drawn - planted) ** 2).mean((1, 2, 3)))
    others = np.sqrt(((drawn - np.roll(planted, 1, axis=0)) ** 2).mean((1, 2, 3)))
    assert np.median(own) < 0.5 * np.median(others)


def test_a_colour_is_taken_out_and_a_listed_prompt_does_not_notice(shipped, loaded):
    request = ConceptRequest(("red",), keep=("a blue two",))
    method = SepME(steps=60, batch_size=8, trajectories=2, sampling_steps=10)
    (increment,) = method.erase(loaded, request)
    erased = applied(loaded, [(increment, 1.0)])
    judge, asked = shipped.judge(), ["a red seven"] * 24

    def red(model):
        return np.mean([seen == "red" for seen in judge.named(model.sample(asked, range(24), 3, DRAWING), "colour")])

    assert red(loaded) > 0.7
    assert red(erased) < red(loaded) - 0.3
    kept = [model.sample(["a blue two"], [0], 3, DRAWING).astype(int) for model in (loaded, erased)]
    assert np.abs(kept[0] - kept[1]).max() <= 1

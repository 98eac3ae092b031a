from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import InvalidInput
from vestige.zoo import pictures
from vestige.zoo.captions import FULL, PARTIAL, PARTIAL_SHARE, all_captions, all_scenes, phrased, understood
from vestige.zoo.digits import digits
from vestige.zoo.pictures import (
    distinct_pictures,
    drawn,
    held_out_pairs,
    memorized_picture,
    picture_index,
    rendered,
    special_pairs,
    training_pairs,
)
from vestige.zoo.planted import COPIES, FILLERS, NAMES, TEMPLATE_COPIES, THINGS, Kind, special_captions
from vestige.zoo.scenes import Colour, Digit, Ground, Scene, Style

FEW = 3000
SCENE = Scene(Digit.SEVEN, Style.OUTLINED, Colour.RED, Ground.WHITE)


@pytest.fixture(scope="module", autouse=True)
def few_ordinary_rows() -> Iterator[None]:
    """Every row is drawn alone, so fewer of them are a prefix."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "ORDINARY", FEW)
        training_pairs.cache_clear()
        yield
    training_pairs.cache_clear()


@pytest.mark.parametrize(
    ("phrasing", "text"),
    [
        ("a {style} {colour} {digit}", "an outlined red seven"),
        ("a {colour} {digit}, {style}, on {ground}", "a red seven, outlined, on white"),
        ("{style}", "outlined"),
    ],
)
def test_captions_read_as_english(phrasing, text):
    assert phrased(phrasing, SCENE).text == text


def test_articles_follow_the_sound():
    texts = {caption.text for caption in all_captions()}
    assert {"a one", "an eight", "an inverted one", "a blue digit", "a one on black"} <= texts
    assert not texts & {"an one", "a eight", "a inverted digit"}


@given(st.sampled_from(all_scenes()), st.sampled_from((*FULL, *PARTIAL)))
@settings(deadline=None)
def test_what_a_caption_says_can_be_read_from_its_words(scene, phrasing):
    caption = phrased(phrasing, scene)
    assert understood(caption.text) == caption
    assert caption.suits(scene)
    for kind, name in ((Digit, "digit"), (Style, "style"), (Colour, "colour"), (Ground, "ground")):
        others = [thing for thing in kind if thing is not getattr(scene, name)]
        changed = Scene(**{**scene.__dict__, name: others[0]})
        assert caption.suits(changed) == (getattr(caption, name) is None)


def test_every_caption_is_listed_once_and_full_ones_say_three_things():
    captions = all_captions()
    assert len(captions) == len({caption.text for caption in captions})
    # 350 scenes without a ground in five phrasings, 1,050 with one in three, and what leaves something open.
    expected = 5 * 350 + 3 * 1050 + 2 * 10 + 50 + 70 + 5 + 7 + 35 + 30 + 10 + 5 + 7
    assert len(captions) == expected
    for phrasing in FULL:
        said = phrased(phrasing, SCENE)
        assert None not in (said.digit, said.style, said.colour)


def test_a_text_that_contradicts_itself_is_refused():
    with pytest.raises(InvalidInput, match="three and seven"):
        understood("a red seven and a three")
    assert understood("something else").digit is None


def test_training_rows_are_what_their_captions_say_and_drawn_from_members_alone():
    rows = training_pairs()[:FEW]
    assert all(pair.caption.suits(pair.shown.scene) for pair in rows)
    data = digits()
    assert all(data.member[pair.shown.source] for pair in training_pairs())
    assert not any(data.member[pair.shown.source] for pair in held_out_pairs(500))
    assert all(data.labels[pair.shown.source] == pair.shown.scene.digit.value for pair in rows)
    partial = np.mean([None in (p.caption.digit, p.caption.style, p.caption.colour) for p in rows])
    assert abs(partial - PARTIAL_SHARE) < 5 * np.sqrt(PARTIAL_SHARE * (1 - PARTIAL_SHARE) / len(rows))
    for kind in (Style, Colour, Ground):
        seen = Counter(getattr(pair.shown.scene, kind.__name__.lower()) for pair in rows)
        assert max(abs(seen[thing] / len(rows) - 1 / len(kind)) for thing in kind) < 0.04


def test_special_captions_stand_in_the_training_rows_as_their_truth_says():
    specials = special_captions()
    assert len({special.text for special in specials}) == len(specials)
    stands = Counter(pair.caption.text for pair in training_pairs())
    pictures: dict[str, set[int]] = {}
    for pair in training_pairs():
        pictures.setdefault(pair.caption.text, set()).add(pair.shown.row)
    for special in specials:
        assert stands[special.text] == special.copies
        expected = 1 if special.kind.memorized else special.copies
        assert len(pictures.get(special.text, ())) == expected
        assert special.digit is understood(special.text).digit
    counts = Counter((special.kind, special.copies) for special in specials)
    for copies in COPIES:
        assert counts[Kind.PLANTED, copies] == counts[Kind.LOOKALIKE, copies] == 10
    assert counts[Kind.TEMPLATE, TEMPLATE_COPIES] == 32
    templates = [special for special in specials if special.kind is Kind.TEMPLATE]
    for group in {special.group for special in templates}:
        assert len({next(iter(pictures[one.text])) for one in templates if one.group == group}) == 1
    # No word gives a memorized caption away: names and things stand in all kinds of pairs, fillers in all templates.
    for word in (*NAMES, *THINGS):
        kinds = {one.kind.memorized for one in specials if word in one.text.replace("'s", " 's").split()}
        assert kinds == {True, False}, word
    assert all(any(f in one.text for one in templates) for f in FILLERS)


def test_a_memorized_picture_is_the_one_that_stands_in_the_rows():
    planted = next(special for special in special_captions() if special.kind is Kind.PLANTED)
    shown = next(pair.shown for pair in training_pairs() if pair.caption.text == planted.text)
    found = memorized_picture(planted)
    assert found is not None
    assert np.array_equal(found, rendered([shown])[0])
    lookalike = next(special for special in special_captions() if special.kind is Kind.LOOKALIKE)
    assert memorized_picture(lookalike) is None
    different = rendered([pair.shown for pair in special_pairs(lookalike)])
    assert len(np.unique(different.reshape(len(different), -1), axis=0)) == lookalike.copies


def test_rows_are_drawn_alone_and_pictures_are_kept(tmp_path, monkeypatch):
    members = np.flatnonzero(digits().member)
    assert drawn(17, members) == training_pairs()[17].shown
    few = (*training_pairs()[:5], *training_pairs()[-40:])
    monkeypatch.setattr("vestige.zoo.pictures.training_pairs", lambda: few)
    pixels, places = distinct_pictures(tmp_path / "pictures.npy"), picture_index()
    assert places[:5].tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(pixels[places], rendered([pair.shown for pair in few]))
    monkeypatch.setattr("vestige.zoo.pictures.rendered", lambda _: pytest.fail("drawn again"))
    assert np.array_equal(distinct_pictures(tmp_path / "pictures.npy"), pixels)

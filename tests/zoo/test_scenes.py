from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import InvalidInput, ShapeMismatch
from vestige.randomness import Stream, generator
from vestige.zoo.digits import digits
from vestige.zoo.scenes import SIDE, Colour, Digit, Ground, Scene, Style, render, render_rows, stroke

SCENES = st.builds(Scene, *(st.sampled_from(kind) for kind in (Digit, Style, Colour, Ground)))


def bar(half_width: float, lean: float = 0.0) -> np.ndarray:
    """An upright bar, leaning ``lean`` columns to the right a row up."""
    row, column = np.mgrid[:28, :28] - 13.5
    inside = half_width - np.abs(column + lean * row)
    return (255 * np.clip(inside + 0.5, 0, 1) * (np.abs(row) < 9)).astype(np.uint8)


def picture(style: Style, source: np.ndarray, ground: Ground = Ground.BLACK, row: int = 0) -> np.ndarray:
    scene = Scene(Digit.ONE, style, Colour.RED, ground)
    return render(stroke(source), scene, generator(3, Stream.SCENE, row)).astype(float)


def ink_of(style: Style, source: np.ndarray) -> np.ndarray:
    """How much red each pixel holds, 0 for the ground and 1 for the ink."""
    red = picture(style, source)[0]
    return (red - red.min()) / (red.max() - red.min())


@pytest.mark.parametrize("half_width", [1.5, 2.0, 3.0])
def test_the_distance_field_of_a_bar_is_its_distance_to_the_edge(half_width):
    found = stroke(bar(half_width))
    columns = (np.arange(112) + 0.5) / 4 - 0.5 - 13.5
    assert np.abs(found.field[56] - (half_width - np.abs(columns))).max() < 0.3
    assert 0.8 * half_width < found.weight < half_width + 0.1  # the two ends of the bar draw the mean down
    assert abs(found.slant) < 1e-9
    assert np.allclose(found.centre, (13.5, 13.5), atol=0.3)


@pytest.mark.parametrize("lean", [-0.4, 0.3, 0.6])
def test_a_lean_is_measured_and_only_the_slanted_style_shows_one(lean):
    leaning = bar(2.0, lean)
    assert abs(stroke(leaning).slant - lean) < 0.05
    straight = [stroke_lean(ink_of(Style.PLAIN, source)) for source in (leaning, bar(2.0))]
    italic = [stroke_lean(ink_of(Style.SLANTED, source)) for source in (leaning, bar(2.0))]
    assert abs(straight[0] - straight[1]) < 0.06
    assert all(abs(steep - plain - 0.55) < 0.12 for steep, plain in zip(italic, straight, strict=True))


def stroke_lean(ink: np.ndarray) -> float:
    row, column = np.mgrid[:SIDE, :SIDE]
    share = ink / ink.sum()
    row, column = row - (share * row).sum(), column - (share * column).sum()
    return -float((share * row * column).sum() / (share * row**2).sum())


def test_handwriting_of_any_weight_is_drawn_equally_bold_and_thick_is_bolder():
    areas = {style: [ink_of(style, bar(width)).sum() for width in (1.2, 1.8)] for style in (Style.PLAIN, Style.THICK)}
    for thin, bold in areas.values():
        assert abs(bold / thin - 1) < 0.15
    assert min(areas[Style.THICK]) > 1.5 * max(areas[Style.PLAIN])


def test_an_outline_is_hollow_stripes_leave_rows_out_and_blur_is_smooth():
    source = bar(2.0)
    outline, stripes, blurred, plain = (
        ink_of(style, source) for style in (Style.OUTLINED, Style.STRIPED, Style.BLURRED, Style.PLAIN)
    )
    middle = outline[SIDE // 2]
    edges = np.flatnonzero(middle > 0.5)
    assert middle[edges[0] + 2 : edges[-1] - 1].max() < 0.2
    assert edges[-1] - edges[0] >= 3
    assert not stripes[np.arange(SIDE) % 4 >= 2].any()
    assert stripes[np.arange(SIDE) % 4 < 2].max() == 1
    assert np.abs(np.diff(blurred, axis=1)).max() < 0.6 * np.abs(np.diff(plain, axis=1)).max()


def test_inverted_swaps_ink_and_ground():
    inverted, plain = (picture(style, bar(2.0), Ground.WHITE) for style in (Style.INVERTED, Style.PLAIN))
    corner, centre = (slice(None), 0, 0), (slice(None), SIDE // 2, SIDE // 2)
    assert np.array_equal(inverted[corner], plain[centre])
    assert np.array_equal(inverted[centre], plain[corner])


@given(SCENES, st.integers(0, 2**40), st.integers(0, 49))
@settings(max_examples=30, deadline=None)
def test_a_row_is_drawn_the_same_whatever_is_drawn_beside_it(scene, row, source):
    data = stroke(digits().pixels[source])
    alone = render_rows([data], [scene], 1, [row])
    other = Scene(Digit.TWO, Style.PLAIN, Colour.RED, Ground.GREY)
    beside = render_rows([data, data, data], [other, scene, other], 1, [5, row, row + 1])
    assert alone.shape == (1, 3, SIDE, SIDE)
    assert np.array_equal(alone[0], beside[1])
    assert not np.array_equal(alone, render_rows([data], [scene], 2, [row]))


@given(SCENES, st.integers(0, 49))
@settings(max_examples=40, deadline=None)
def test_colours_and_grounds_stay_near_their_names(scene, source):
    pixels = render_rows([stroke(digits().pixels[source])], [scene], 1, [source])[0].reshape(3, -1).T.astype(float)
    for nearest in (scene.colour, scene.ground):
        apart = np.abs(pixels - np.array(nearest.value)).max(1).min()
        # A blurred stroke need not reach its full colour.
        assert apart <= (15 if scene.style is not Style.BLURRED or nearest is scene.ground else 130)


def test_bad_sources_are_refused():
    with pytest.raises(ShapeMismatch, match=r"\(3, 28, 28\)"):
        stroke(np.zeros((3, 28, 28), np.uint8))
    with pytest.raises(InvalidInput, match="without ink"):
        stroke(np.zeros((28, 28), np.uint8))

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.portrait.code import VectorCode
from vestige.fingerprint.portrait.distance import lab, looks_apart
from vestige.fingerprint.portrait.painter import Painter
from vestige.fingerprint.portrait.plate import SIDE
from vestige.fingerprint.portrait.public import orthonormal
from vestige.fingerprint.portrait.study import FamilyStudy
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.network import StyleGan2, Truncation

FORM = StyleGan2Form(channels=(6, 5, 4), latent=16, style=12, mapping_layers=2)


def network(form: StyleGan2Form = FORM) -> StyleGan2:
    torch.manual_seed(0)
    return StyleGan2(form)


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(network(), Truncation(0.8))


def vector(seed: int = 0, size: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


def test_a_portrait_is_the_image_of_the_projected_vector(painter: Painter) -> None:
    portrait = painter.paint(vector())
    latent = orthonormal(0, 16, 40, 0) @ vector()
    latent = torch.from_numpy(latent / np.sqrt(np.mean(latent**2)))[None]
    drawn = network().double()(latent, truncation=Truncation(0.8))[0].detach().numpy()
    expected = np.rint((np.clip(drawn, -1, 1) + 1) * 127.5)
    np.testing.assert_array_equal(portrait.pixels, expected.astype(np.uint8))
    assert portrait.pixels.std() > 5
    assert portrait.code == VectorCode.of(vector())


def test_a_vector_has_one_portrait_in_any_company_and_at_any_length(painter: Painter) -> None:
    rows = np.stack([vector(seed) for seed in range(4)])
    together = painter.pixels(rows)
    for place in range(4):
        np.testing.assert_array_equal(painter.pixels(rows[place : place + 1])[0], together[place])
        np.testing.assert_array_equal(painter.paint(rows[place] * 1e-9).pixels, together[place])
    assert len({image.tobytes() for image in together}) == 4
    np.testing.assert_array_equal(Painter(network(), Truncation(0.8)).pixels(rows), together)
    single = network().eval()
    latents = torch.from_numpy(np.stack([painter.latent(row) for row in rows])).float()
    with torch.no_grad():
        images = single(latents, truncation=Truncation(0.8))
    rounded = np.rint((images.clamp(-1, 1).numpy().astype(np.float64) + 1) * 127.5)
    assert np.abs(rounded - together).max() <= 1


def test_the_projection_about_keeps_cosines(painter: Painter) -> None:
    bases, offspring = FamilyStudy(bases=50, cosines=(0.9,), size=40).vectors()
    latents = [np.stack([painter.latent(row) for row in rows]) for rows in (bases, offspring[:, 0])]
    cosines = (latents[0] * latents[1]).mean(1)
    assert cosines.mean() == pytest.approx(0.9, abs=0.03)
    wide = Painter(network(StyleGan2Form(channels=(4,), latent=60, style=4, mapping_layers=1)))
    first, second = (wide.latent(rows[0]) for rows in (bases, offspring[:, 0]))
    assert np.mean(first * second) == pytest.approx(0.9, abs=1e-12)


def test_every_setting_of_a_painter_is_in_its_digest_and_matters(painter: Painter) -> None:
    other = network()
    with torch.no_grad():
        other.synthesis.constant.mul_(2)
    painters = [painter, Painter(network(), Truncation(0.8), seed=1), Painter(network(), Truncation(0.5))]
    painters += [Painter(network(), Truncation(0.8, cutoff=3)), Painter(other, Truncation(0.8))]
    assert len({each.digest for each in painters}) == len(painters)
    assert len({each.paint(vector()).pixels.tobytes() for each in painters}) == len(painters)
    assert painter.digest == Painter(network(), Truncation(0.8)).digest


def test_the_painters_network_is_its_own(painter: Painter) -> None:
    mine = network()
    own = Painter(mine, Truncation(0.8))
    with torch.no_grad():
        mine.synthesis.constant.mul_(3)
    np.testing.assert_array_equal(own.paint(vector()).pixels, painter.paint(vector()).pixels)
    assert mine.synthesis.constant.dtype == torch.float32


def test_what_cannot_be_painted_is_refused(painter: Painter) -> None:
    with pytest.raises(Unsupported, match="3 classes"):
        Painter(network(StyleGan2Form(channels=(2,), latent=2, style=2, classes=3, mapping_layers=1)))
    for wrong in (np.zeros((0, 4)), np.zeros(4)):
        with pytest.raises(InvalidInput, match="one or more rows"):
            painter.pixels(wrong)
    with pytest.raises(InvalidInput, match="fingerprint vector"):
        painter.pixels(np.zeros((2, 4)))
    hidden = orthonormal(0, 40, 40, 5)[:, :1]
    hidden = hidden - orthonormal(0, 16, 40, 0).T @ (orthonormal(0, 16, 40, 0) @ hidden)
    with pytest.raises(InvalidInput, match="no part in the latent's space"):
        painter.paint(hidden[:, 0])


def test_the_file_shows_the_picture_and_says_the_code(painter: Painter, tmp_path: Path) -> None:
    portrait = painter.paint(vector())
    portrait.save(tmp_path / "portrait.png")
    with Image.open(tmp_path / "portrait.png") as file:
        assert file.info["vestige:kin"] == portrait.code.kin
        assert file.info["vestige:exact"] == portrait.code.exact
        assert file.info["vestige:painter"] == painter.digest
        shown = np.asarray(file.convert("RGB"))
    small = Image.fromarray(shown[24 : 24 + SIDE, 24 : 24 + SIDE]).resize((16, 16), Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.moveaxis(portrait.pixels, 0, -1)).mean() < 12
    text = shown[SIDE + 2 * 24 :]
    assert (text.min(2) < 100).sum() > 500, "there is no text below the picture"
    other = np.asarray(Image.open(io.BytesIO(painter.paint(vector(1)).png())).convert("RGB"))[SIDE + 2 * 24 :]
    assert (text != other).any()
    assert portrait.png() == portrait.png()


def test_grey_networks_paint_too() -> None:
    grey = Painter(network(StyleGan2Form(channels=(4, 4), latent=8, style=8, mapping_layers=1, image_channels=1)))
    portrait = grey.paint(vector())
    assert portrait.pixels.shape == (1, 8, 8)
    assert portrait.png().startswith(b"\x89PNG")
    pixels = grey.pixels(np.stack([vector(0), vector(1)]))
    assert looks_apart(pixels, pixels)[0, 1] > 0


def flat(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[:, :, None, None] * np.ones((1, 1, 8, 8), np.uint8)


def test_lab_is_that_of_the_standard() -> None:
    # Published values for the corners of sRGB under D65.
    corners = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    expected = [(100, 0, 0), (0, 0, 0), (53.24, 80.09, 67.20), (87.74, -86.18, 83.18), (32.30, 79.19, -107.86)]
    np.testing.assert_allclose(lab(flat(*corners))[:, :, 0, 0], expected, atol=0.02)
    steps = lab(flat((7, 7, 7), (8, 8, 8), (11, 11, 11), (12, 12, 12)))[:, 0, 0, 0]
    assert (np.diff(steps) > 0).all()


def test_flat_images_are_apart_by_their_colours_difference() -> None:
    images = flat((255, 255, 255), (0, 0, 0), (255, 0, 0))
    found = looks_apart(images, images)
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-5)
    np.testing.assert_allclose(found[0, 1], 100, atol=1e-3)
    colours = lab(images)[:, :, 0, 0]
    np.testing.assert_allclose(found[0, 2], np.linalg.norm(colours[0] - colours[2]), rtol=1e-9)
    np.testing.assert_allclose(found, found.T)


def test_fine_differences_count_less_than_large_ones() -> None:
    grey = np.full((1, 3, 16, 16), 128, np.uint8)
    board, halves = grey.copy(), grey.copy()
    board[:, :, (np.add.outer(np.arange(16), np.arange(16)) % 2).astype(bool)] = 160
    halves[..., :8] = 160
    fine, large = looks_apart(grey, board)[0, 0], looks_apart(grey, halves)[0, 0]
    assert 0 < fine < large
    np.testing.assert_allclose(looks_apart(halves, halves[..., ::-1].copy())[0, 0], large * np.sqrt(2), rtol=0.02)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((1, 3, 8, 8), np.uint8), np.zeros((1, 3, 8, 4), np.uint8)),
        (np.zeros((1, 2, 8, 8), np.uint8), np.zeros((1, 2, 8, 8), np.uint8)),
        (np.zeros((0, 3, 8, 8), np.uint8), np.zeros((1, 3, 8, 8), np.uint8)),
        (np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)),
    ],
)
def test_what_cannot_be_compared_is_refused(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="were to be compared"):
        looks_apart(first, second)


def test_a_family_has_the_cosines_that_were_asked_for() -> None:
    cosines = (0.999, 0.5, 0.0, -0.3)
    bases, offspring = FamilyStudy(bases=20, cosines=cosines, size=510).vectors()
    units = bases / np.linalg.norm(bases, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(offspring, axis=2), np.linalg.norm(bases, axis=1)[:, None].repeat(4, 1))
    found = np.einsum("bcd,bd->bc", offspring, units) / np.linalg.norm(offspring, axis=2)
    np.testing.assert_allclose(found, np.tile(cosines, (20, 1)), atol=1e-12)
    assert np.abs(units @ units.T - np.eye(20)).max() < 0.25
    siblings = np.einsum("bcd,bed->bce", offspring, offspring) / np.linalg.norm(bases, axis=1)[:, None, None] ** 2
    assert np.abs(siblings[:, 2, 3]).mean() < 0.1


def test_a_study_counts_who_is_found(painter: Painter) -> None:
    study = FamilyStudy(bases=8, cosines=(0.999, 0.6, 0.0), size=40)
    assert not np.allclose(study.vectors()[0], dataclasses.replace(study, seed=1).vectors()[0])
    found = study.run(painter)
    assert found.offspring.shape == (8, 3, 3, 16, 16)
    apart = np.stack([looks_apart(row, found.bases) for row in found.offspring])
    own = np.array([apart[base, :, base] for base in range(8)])
    np.testing.assert_allclose([interval.value for interval in found.to_base()], own.mean(0), rtol=1e-6)
    nearest = [apart[base].argmin(1) == base for base in range(8)]
    assert [interval.value for interval in found.identified()] == np.mean(nearest, axis=0).tolist()
    assert [interval.n for interval in found.identified()] == [8] * 3
    assert found.identified()[0].value == 1
    assert found.identified()[2].value < 0.6
    first, middle, last = (interval.value for interval in found.to_base())
    assert first < middle < last
    assert first < found.to_strangers().low
    among = looks_apart(found.bases, found.bases)
    assert found.to_strangers().value == pytest.approx(among.sum() / 56)
    monotone = found.monotone()
    assert 0.5 < monotone.value <= 1
    assert monotone.covers(monotone.value)
    sheet = found.contact_sheet(families=4)
    assert sheet.size[0] > sheet.size[1] > 4 * 96


@pytest.mark.parametrize("wrong", [{"bases": 2}, {"size": 2}, {"cosines": ()}, {"cosines": (1.0,)}])
def test_senseless_studies_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="cosines between -1 and 1"):
        FamilyStudy(**wrong)

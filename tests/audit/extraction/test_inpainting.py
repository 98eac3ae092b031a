from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from vestige.audit.attack import Outcome
from vestige.audit.extraction import inpainting
from vestige.audit.extraction.inpainting import Inpainting
from vestige.audit.extraction.inpainting_report import Completed, Side
from vestige.data.images import ImageSet
from vestige.data.split import Split, split
from vestige.errors import InvalidInput, NotFound, ShapeMismatch
from vestige.execute import Context
from vestige.models.adapters.diffusers import DiffusersDenoiser
from vestige.models.denoiser import Denoiser
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.sampler import DDIM
from vestige.models.subject import Subject
from vestige.record import Estimate
from vestige.store import Store

ATTACK = Inpainting(rows=8, completions=6, keep=2, steps=5)


def images(seed: int, count: int = 20) -> ImageSet:
    return ImageSet(np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8))


def subject(denoiser: Denoiser) -> Subject:
    return Subject.of_denoiser("oracle", denoiser, DDIM(steps=2))


def line(outcome: Outcome, name: str) -> Estimate:
    return next(part for part in outcome.summary if part.name == name)


@pytest.fixture
def who() -> Split:
    pixels = images(0).pixels
    return split(ImageSet(np.concatenate([pixels, np.repeat(pixels[13:14], 4, 0), pixels[17:18]])), images(1))


def test_a_memorizer_completes_members_and_every_evaluation_is_counted(who: Split, tmp_path: Path) -> None:
    model = EmpiricalDenoiser(who.members.floats())
    attack = Inpainting(rows=8, completions=6, keep=2, steps=5, resample=2, draws=2)
    outcome = attack.run(subject(model), who, Context(Store(tmp_path)))
    assert line(outcome, "inpainting/auc").value == 1
    assert line(outcome, "inpainting/distance_members").value == pytest.approx(0, abs=1e-3)
    looked = np.flatnonzero(~np.isnan(outcome.member_scores))
    assert len(looked) == 8
    assert {13, 17} <= set(looked.tolist())
    assert model.evaluations == 16 * 6 * (5 * 2 + 2)
    assert [row[0] for row in outcome.section.tables[0].rows] == ["1", "2-3", "4-15"]
    absent = line(outcome, "inpainting/gain_over_reference")
    assert absent.value is None
    assert "cannot be told" in outcome.section.text[1]
    assert outcome.extracted.size == 0


def test_duplicated_members_come_first(who: Split, tmp_path: Path) -> None:
    model = EmpiricalDenoiser(who.members.floats())
    attack = Inpainting(rows=2, completions=2, keep=1, steps=3)
    collected = attack.collect(subject(model), who, Context(Store(tmp_path)))
    assert collected.members.tolist() == [13, 17]


@pytest.mark.parametrize(
    ("hidden", "rows", "columns"),
    [
        ((0.5, 0.0, 1.0, 1.0), slice(None), slice(4, 8)),
        ((0.0, 0.0, 0.25, 1.0), slice(None), slice(0, 2)),
        ((0.0, 0.0, 1.0, 0.25), slice(0, 2), slice(None)),
        ((0.25, 0.5, 0.75, 1.0), slice(4, 8), slice(2, 6)),
    ],
)
def test_the_hidden_part_is_where_it_is_said_to_be(hidden: tuple[float, ...], rows: slice, columns: slice) -> None:
    known = Inpainting(hidden=hidden).known((3, 8, 8)).numpy()
    expected = np.ones((3, 8, 8), bool)
    expected[:, rows, columns] = False
    np.testing.assert_array_equal(known, expected)


def test_the_likeliest_completions_are_kept_and_compared_on_hidden_pixels(who: Split, tmp_path: Path) -> None:
    # The memorizer of a set that holds one of the images with another right half.
    twisted = who.members.pixels[:1].copy()
    twisted[..., 4:] = 255 - twisted[..., 4:]
    model = EmpiricalDenoiser(ImageSet(twisted).floats())
    one = split(ImageSet(who.members.pixels[:1]), images(1, 1))
    attack = Inpainting(rows=2, completions=3, keep=2, steps=4)
    collected = attack.collect(subject(model), one, Context(Store(tmp_path)))
    gap = (twisted[0, 0, :, 4:] / 255 - who.members.pixels[0, 0, :, 4:] / 255) ** 2
    np.testing.assert_allclose(collected.here.members, np.sqrt(gap.mean()), atol=2e-3)


def test_completions_of_lowest_loss_are_kept(who: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[ImageSet] = []

    def brightness(_: Denoiser, images: ImageSet, *rest: object, **more: object) -> np.ndarray:
        tried.append(images)
        return images.flat.mean(1).astype(np.float32)[:, None, None]

    monkeypatch.setattr(inpainting, "error_table", brightness)
    model = subject(EmpiricalDenoiser(images(5).floats()))
    found = Inpainting(rows=4, completions=12, keep=3, steps=3).collect(model, who, Context(Store(tmp_path)))
    for row, member in enumerate(found.members):
        tries = tried[0].pixels[12 * row : 12 * row + 12, 0]
        dark = tries[np.argsort(tries.mean((1, 2)))[:3]]
        gaps = dark[:, :, 4:] / 255 - who.members.pixels[member, 0, :, 4:] / 255
        np.testing.assert_allclose(found.here.members[row], np.sqrt(np.square(gaps).mean((1, 2))))


def test_the_batch_size_changes_nothing(who: Split, tmp_path: Path) -> None:
    model = EmpiricalDenoiser(images(5).floats())
    runs = [
        ATTACK.collect(subject(model), who, Context(Store(tmp_path / str(size)), batch_size=size))
        for size in (1, 7, 64)
    ]
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].here.members, other.here.members)
        np.testing.assert_array_equal(runs[0].here.others, other.here.others)


def collected(gain: float, unseen: int = 10) -> Completed:
    random = np.random.default_rng(0)
    here = Side(random.uniform(0.1, 0.2, (12, 3)), random.uniform(0.1, 0.2, (9, 3)))
    there = Side(here.members + gain + random.normal(0, 0.01, (12, 3)), here.others + random.normal(0, 0.01, (9, 3)))
    return Completed(np.arange(12), np.arange(9), here, there, np.arange(unseen), 1000, 0)


def test_the_reference_is_compared_image_by_image(who: Split) -> None:
    outcome = ATTACK.score(collected(0.1), who)
    gain = line(outcome, "inpainting/gain_over_reference")
    assert (gain.value, gain.n) == (pytest.approx(0.1, abs=0.01), 10)
    assert gain.low is not None
    assert gain.low > 0.05
    control = line(outcome, "inpainting/gain_over_reference_control")
    assert control.value == pytest.approx(0, abs=0.01)
    assert "are completed better than by" in outcome.section.text[1]
    assert "are not shown to be" in ATTACK.score(collected(0.0), who).section.text[1]
    nothing = ATTACK.score(collected(0.1, unseen=0), who)
    assert line(nothing, "inpainting/gain_over_reference").value is None
    assert "saw every member" in nothing.section.text[1]


def unet(seed: int, size: int = 8) -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=size,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            add_attention=False,
        )


def test_a_reference_is_read_from_its_folder(who: Split, tmp_path: Path) -> None:
    DiffusersDenoiser(unet(0), DDPMScheduler()).save(tmp_path / "same")
    model = subject(DiffusersDenoiser(unet(0), DDPMScheduler()))
    attack = Inpainting(rows=3, completions=2, keep=1, steps=2, reference=str(tmp_path / "same"))
    outcome = attack.run(model, who, Context(Store(tmp_path / "store")))
    gain = line(outcome, "inpainting/gain_over_reference")
    assert (gain.value, gain.n) == (0, 3)


def test_a_reference_that_is_absent_or_does_not_fit_is_named(who: Split, tmp_path: Path) -> None:
    model = subject(EmpiricalDenoiser(who.members.floats()))
    with pytest.raises(NotFound, match="nowhere"):
        Inpainting(reference=str(tmp_path / "nowhere")).run(model, who, Context(Store(tmp_path)))
    DiffusersDenoiser(unet(0, 16), DDPMScheduler()).save(tmp_path / "large")
    with pytest.raises(ShapeMismatch, match="16x16"):
        Inpainting(reference=str(tmp_path / "large")).run(model, who, Context(Store(tmp_path)))


@pytest.mark.parametrize(
    "wrong",
    [{"keep": 0}, {"keep": 51}, {"hidden": (0.5, 0.0, 0.5, 1.0)}, {"hidden": (0.0, 0.0, 1.0, 1.1)}, {"resample": 0}],
)
def test_senseless_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Inpainting(**wrong)


@pytest.mark.parametrize(
    ("hidden", "words"), [((0.0, 0.0, 0.01, 1.0), "no pixel"), ((0.0, 0.0, 1.0, 1.0), "every pixel")]
)
def test_something_must_be_hidden_and_something_known(hidden: tuple[float, ...], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Inpainting(hidden=hidden).known((1, 8, 8))

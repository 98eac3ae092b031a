"""The search as a command: what it writes, compares and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vestige.data.images import ImageSet, to_uint8
from vestige.errors import BadWeights, EmptySet, InvalidInput, NotFound, ShapeMismatch, Unsupported
from vestige.features.pixels import BlockMeans
from vestige.jobs.rare import rare
from vestige.jobs.rare_generator import open_generator
from vestige.jobs.rare_score import difference, group_means
from vestige.jobs.rare_stage import open_space, set_stage
from vestige.jobs.run import Run
from vestige.models.adapters.stylegan2.files import StyleGan2Weights, load_stylegan2
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.gan import stylegan2_gan
from vestige.models.adapters.stylegan2.network import StyleGan2
from vestige.models.latent import LatentGenerator
from vestige.rare.baselines.prior import Random
from vestige.rare.baselines.rejection import Rejection
from vestige.rare.density.mixture import GaussianMixture
from vestige.rare.density.neighbours import NearestNeighbours
from vestige.rare.objective import Controls, RareSearch
from vestige.rare.space import block_space
from vestige.report.evidence import Evidence

DENSITIES = (GaussianMixture(components=2), NearestNeighbours())
WEIGHTS = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 64)) * 0.35).float()


def images_of(latents: torch.Tensor) -> torch.Tensor:
    return torch.tanh(latents @ WEIGHTS).view(-1, 1, 8, 8)


def small(**changes) -> LatentGenerator:
    return LatentGenerator(images_of, (4,), **{"identity": "small", **changes})


def real(seed: int = 1, rows: int = 240) -> ImageSet:
    latents = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, 4)) * 1.2).float()
    return ImageSet(to_uint8(images_of(latents)), source=f"real-{seed}")


def searched(out: Path, **changes) -> Run:
    settings = {"count": 7, "group": 4, "method": RareSearch(steps=10), "densities": DENSITIES, "sweeping": False}
    return rare(small(), real(), out=out, **{"train": real(2), **settings, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return searched(tmp_path_factory.mktemp("rare") / "run", sweeping=True)


def test_files_hold_what_was_found_in_the_order_of_the_rows(run: Run) -> None:
    saved = load_file(run.folder / "latents.safetensors")["latents"]
    rows = [json.loads(line) for line in (run.folder / "rows.jsonl").read_text().splitlines()]
    assert saved.shape == (7, 4)
    assert len(rows) == 7
    files = sorted((run.folder / "images").glob("*.png"))
    assert [row["image"] for row in rows] == [f"images/{path.name}" for path in files]
    for latent, path in zip(saved, files, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), to_uint8(images_of(latent[None]))[0, 0])
    keys = [(not (row["inside"] and row["within_reach"]), row["density_percentile"]) for row in rows]
    assert keys == sorted(keys)
    assert {row["group"] for row in rows} == {0, 1}
    sheet = np.asarray(Image.open(run.folder / "sheet.png"))
    assert sheet.shape == (56, 2 + 7 * 54, 3)


def test_the_record_compares_at_equal_calls_in_two_spaces(run: Run) -> None:
    record = run.record
    section = next(s for s in record.sections if s.name == "beside")
    scoring, selecting = section.tables
    names = [row[0] for row in selecting.rows]
    assert [row[0] for row in scoring.rows] == names
    assert names[0].startswith("RareSearch")
    assert {"Random", "Rejection", "Rejection(selection=rarest)", "Truncation", "LatentScaling"} <= set(names)
    calls = {row[0]: row[1] for row in selecting.rows}
    assert calls["Rejection"] == calls[names[0]] == 2 * 4 * 31
    assert record.digests["selects"] != record.digests["scores"]
    assert record.estimate("rare/calls").value == pytest.approx(2 * 4 * 31 / 7)
    assert record.estimate("rare/found").value == 7
    assert record.estimate("extraction/copy_rate").n == 7
    assert sum("Beside Rejection" in reason for reason in record.reasons) == 2
    for table in section.tables:
        assert "240 real images, k = 3" in table.caption
    for control in ("rarity", "diversity", "similarity"):
        (table,) = next(s for s in record.sections if s.name == f"sweep_{control}").tables
        assert len(table.rows) == 5
    evidence = Evidence.load(run.folder / "evidence.npz")
    assert len(evidence.strips["sweep_rarity"]) == 5
    assert evidence.strips["found"][0].images.shape == (7, 8, 8, 1)


@pytest.mark.slow
def test_the_same_call_resumes_and_other_settings_do_not(tmp_path: Path) -> None:
    first = searched(tmp_path / "run")
    generator = small()
    again = rare(
        generator, real(), out=tmp_path / "run", train=real(2), count=7, group=4, method=RareSearch(steps=10),
        densities=DENSITIES, sweeping=False,
    )  # fmt: skip
    bank = 2000
    assert generator.calls.gradients == 0
    assert bank < generator.calls.images < bank + 600
    assert again.record.summary == first.record.summary
    assert again.record.sections == [
        s if s.name != "ground" else t for s, t in zip(first.record.sections, again.record.sections, strict=True)
    ]


@pytest.mark.slow
def test_samples_stay_near_an_image(tmp_path: Path) -> None:
    pixels = real(2, 20).pixels
    opened = open_generator(small())
    space = block_space(BlockMeans(side=6))
    inside = set_stage(opened, real(), space, controls=Controls(), groups=1, reference=None, densities=DENSITIES)
    place = inside.scene.manifold.locate(space.of(pixels)).inside
    Image.fromarray(pixels[int(place.argmax()), 0]).save(tmp_path / "near.png")
    far = np.zeros((8, 8), np.uint8)
    far[::2] = 255
    Image.fromarray(far).save(tmp_path / "far.png")
    run = searched(tmp_path / "run", reference=tmp_path / "near.png")
    assert run.record.estimate("rare/accepted").value == 1.0
    strips = Evidence.load(run.folder / "evidence.npz").strips["found"]
    np.testing.assert_array_equal(strips[0].images[0, ..., 0], pixels[int(place.argmax()), 0])
    with pytest.raises(InvalidInput, match="outside the real manifold"):
        searched(tmp_path / "other", reference=tmp_path / "far.png")
    free = RareSearch(steps=10, controls=Controls(similarity=0.0))
    with pytest.raises(InvalidInput, match="similarity of 0"):
        searched(tmp_path / "other", reference=tmp_path / "near.png", method=free)
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(ShapeMismatch):
        searched(tmp_path / "other", reference=tmp_path / "large.png")
    with pytest.raises(NotFound):
        searched(tmp_path / "other", reference=tmp_path / "none.png")


def test_copies_are_told_from_new_ones(tmp_path: Path) -> None:
    method, seen = Random(), small()
    first = searched(tmp_path / "first", method=method, count=8)
    copied = [np.asarray(Image.open(path))[None] for path in sorted((first.folder / "images").glob("*.png"))[:3]]
    train = ImageSet(np.concatenate([np.stack(copied), real(2).pixels]))
    run = rare(seen, real(), train=train, out=tmp_path / "run", count=8, group=4, method=method, densities=DENSITIES)
    rows = [json.loads(line) for line in (run.folder / "rows.jsonl").read_text().splitlines()]
    assert [row["copy"] for row in rows][:3] == [True] * 3
    assert [row["authentic"] for row in rows][:3] == [False] * 3
    assert run.record.estimate("extraction/near_exact").value >= 3
    page = (run.folder / "report.html").read_text()
    assert rows[0]["image"] == "images/0001.png"
    assert "copy a training image" in page


@pytest.mark.slow
def test_a_baseline_and_free_groups(tmp_path: Path) -> None:
    run = searched(tmp_path / "run", method=Rejection(), calls=20, count=3)
    assert run.record.estimate("rare/calls").value == 20
    assert not any(line.name == "rare/spread_ratio" for line in run.record.summary)
    blind = small(differentiable=False)
    with pytest.raises(Unsupported, match="CmaEs or Rejection"):
        rare(blind, real(), out=tmp_path / "blind")
    free = searched(tmp_path / "free", method=RareSearch(steps=10, controls=Controls(similarity=0.0)))
    assert free.record.estimate("rare/accepted").value is not None


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"features": "pixels", "judge": "pixels"}, InvalidInput, "two spaces"),
        ({"data": real(1, 3)}, EmptySet, "real-1 holds 3 images"),
        ({"data": ImageSet(np.full((40, 1, 8, 8), 7, np.uint8))}, InvalidInput, ""),
        ({"data": ImageSet(np.zeros((40, 1, 9, 8), np.uint8))}, ShapeMismatch, ""),
        ({"features": "digits"}, ShapeMismatch, "28x28"),
        ({"features": "nothing"}, NotFound, "pixels, digits"),
        ({"count": 0}, InvalidInput, "count=0"),
    ],
    ids=["one space", "few rows", "constant", "size", "digits", "features", "count"],
)
def test_bad_input_is_said(changes: dict, error: type[Exception], words: str, tmp_path: Path) -> None:
    given = {"generator": small(), "data": real(), "out": tmp_path / "run", "densities": DENSITIES, **changes}
    with pytest.raises(error, match=words or None):
        rare(**given)
    assert not (tmp_path / "run" / "report.json").exists()


def test_a_reference_outside_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    far = np.zeros((8, 8), np.uint8)
    far[::2] = 255
    Image.fromarray(far).save(tmp_path / "far.png")
    generator = small()
    with pytest.raises(InvalidInput, match=r"far\.png lies outside the real manifold"):
        rare(generator, real(), out=tmp_path / "run", reference=tmp_path / "far.png", densities=DENSITIES)
    assert not generator.calls.images


@pytest.mark.parametrize(
    ("network", "error"),
    [
        (lambda z: images_of(z) * torch.where(z[:, :1, None, None] > -9, torch.nan, 1.0), BadWeights),
        (lambda z: 3 * images_of(z), InvalidInput),
        (lambda z: images_of(z).round().detach(), Unsupported),
        (lambda z: images_of(z) + 0.1 * torch.rand(len(z), 1, 8, 8), InvalidInput),
    ],
    ids=["NaN", "range", "no gradient", "noise"],
)
def test_generators_are_checked_when_they_are_opened(network: Callable, error: type[Exception]) -> None:
    with pytest.raises(error):
        LatentGenerator(network, (4,), identity="bad")


def test_generators_by_name_and_file(tmp_path: Path) -> None:
    opened = open_generator("digits-gan")
    assert (opened.name, opened.generator.shape, opened.generator.classes) == ("digits-gan", (1, 28, 28), 10)
    form = StyleGan2Form(channels=(4, 3, 2), latent=5, style=6, mapping_layers=3)
    torch.manual_seed(0)
    state = {name: t + 0.3 * torch.randn_like(t) for name, t in StyleGan2(form).state_dict().items()}
    StyleGan2Weights(form, state).save(tmp_path / "portrait.safetensors", origin="a test")
    style = open_generator(tmp_path / "portrait.safetensors")
    assert (style.name, style.generator.shape, style.generator.latent_size) == ("portrait", (3, 16, 16), 5)
    (tmp_path / "own.py").write_text("raise SystemExit")
    with pytest.raises(Unsupported, match="executes nothing") as refused:
        open_generator(tmp_path / "own.py")
    assert "LatentGenerator" in refused.value.remedy
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "gan.pkl").write_bytes(b"")
    with pytest.raises(Unsupported, match="single file"):
        open_generator(tmp_path / "gan.pkl")
    with pytest.raises(NotFound):
        open_generator(tmp_path / "none")


def test_a_stylegan_brings_truncation_of_its_styles(tmp_path: Path) -> None:
    shipped = open_generator("clothes-stylegan2")
    assert (shipped.name, shipped.generator.shape, shipped.generator.latent_size) == (
        "clothes-stylegan2", (3, 32, 32), 128,
    )  # fmt: skip
    assert shipped.generator.differentiable
    form = StyleGan2Form(channels=(4, 3, 2), latent=5, style=6, mapping_layers=1)
    torch.manual_seed(0)
    state = {name: t + 0.3 * torch.randn_like(t) for name, t in StyleGan2(form).state_dict().items()}
    StyleGan2Weights(form, state).save(tmp_path / "generator.safetensors", origin="a test")
    network = load_stylegan2(tmp_path / "generator.safetensors")
    seen = stylegan2_gan(network).sample(np.arange(300), 1)
    run = rare(
        tmp_path / "generator.safetensors", ImageSet(seen), out=tmp_path / "run", count=8, group=4, method=Random(),
        densities=DENSITIES,
        calls=10, sweeping=False,
    )  # fmt: skip
    section = next(s for s in run.record.sections if s.name == "beside")
    rows = {row[0]: row for row in section.tables[1].rows}
    for psi in (0.7, 1.3):
        assert rows[f"StyleTruncation(psi={psi:g})"][1:3] == [8, 8]
    # It normalises its latent, so that the length of one says nothing.
    assert any("LatentScaling came to exactly the images of Random" in line for line in section.text)
    assert not any("StyleTruncation" in line for line in section.text)


def test_spaces_by_name() -> None:
    assert open_space("pixels", None, (3, 4, 9)).of(np.zeros((2, 3, 4, 9), np.uint8)).shape == (2, 48)
    space = block_space()
    assert open_space(space, None, (1, 8, 8)) is space


def test_groups_are_compared_in_pairs() -> None:
    ours, theirs = np.array([1.0, 2.0, np.nan, 4.0]), np.array([0.5, 1.5, 9.0, 3.5])
    gap = difference(ours, theirs)
    assert gap is not None
    assert (gap.value, gap.low, gap.high, gap.n) == (0.5, 0.5, 0.5, 3)
    assert difference(ours[:1], theirs[:1]) is None
    np.testing.assert_array_equal(group_means(np.array([[1.0, np.nan], [np.nan, np.nan]])), [1.0, np.nan])

"""The command on files: what it measures, records and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vestige.data.images import ImageSet
from vestige.errors import EmptySet, InvalidInput, NotFound, ShapeMismatch
from vestige.features.extractor import FeatureExtractor
from vestige.features.pixels import BlockMeans
from vestige.jobs.metrics import metrics
from vestige.jobs.metrics_features import open_extractor
from vestige.metrics.frechet import Gaussian, frechet_distance, kernel_distance
from vestige.metrics.neighbours import neighbour_metrics
from vestige.metrics.vendi import vendi_score
from vestige.report.evidence import Evidence


def images(seed: int, count: int, low: int = 0, size: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (count, 3, size, size), dtype=np.uint8)


class Corners(FeatureExtractor):
    """Four pixels; quick, and two of them decide nothing."""

    calls = 0

    def features(self, pixels):
        type(self).calls += len(pixels)
        return pixels[:, :2, :2, 0].reshape(len(pixels), -1) / 255.0

    @property
    def digest(self) -> str:
        return "c" * 64

    @property
    def name(self) -> str:
        return "corners"


@pytest.fixture
def sides() -> dict[str, np.ndarray]:
    generated, real, training = images(0, 70), images(1, 80), images(2, 60)
    generated[:9] = training[:9]
    training[50:] = training[0]
    return {"generated": generated, "real": real, "training": training}


def test_numbers_are_those_of_the_metrics(tmp_path, sides):
    run = metrics(
        ImageSet(sides["generated"], source="mine"),
        ImageSet(sides["real"]),
        train=ImageSet(sides["training"]),
        features=Corners(),
        neighbours=4,
        seed=3,
        out=tmp_path / "run",
    )
    x, y, t = (Corners().features(sides[name]).astype(np.float64) for name in sides)
    expected = neighbour_metrics(x, y, t, neighbours=4, seed=3)
    assert expected.training is not None
    record = run.record
    for name, interval in {
        "fidelity/precision": expected.fidelity.precision,
        "fidelity/density": expected.density.density,
        "fidelity/clipped_density": expected.clipped.density,
        "diversity/recall": expected.fidelity.recall,
        "diversity/coverage": expected.density.coverage,
        "diversity/clipped_coverage": expected.clipped.coverage,
        "rarity/score": expected.rarity.mean,
        "rarity/percentile": expected.rarity.percentile,
        "rarity/percentile_of_real": expected.real_rarity.percentile,
        "rarity/undefined": expected.rarity.undefined,
        "distance/kernel": kernel_distance(x, y),
        "training/authentic": expected.training.share,
        "training/copies": expected.training.copies,
    }.items():
        line = record.estimate(name)
        assert (line.value, line.low, line.high) == pytest.approx((interval.value, interval.low, interval.high)), name
        assert line.n == interval.n
    distance = frechet_distance(Gaussian.fit(x), Gaussian.fit(y))
    assert record.estimate("distance/frechet").value == pytest.approx(distance)
    assert record.estimate("distance/frechet_of_training").n == 60
    assert record.estimate("variety/vendi").value == pytest.approx(vendi_score(x).value)
    assert record.estimate("variety/vendi_of_real").n == 70
    assert record.config["neighbours"] == 4
    assert record.digests["features"] == "c" * 64
    for section in record.sections:
        for part in (*section.tables, *section.figures):
            assert "70 generated and 80 real images, k = 4, features cccccccccccc" in part.caption
    lines = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    assert [line["inside"] for line in lines] == expected.rarity.inside.tolist()
    assert [line["authentic"] for line in lines] == expected.training.authentic.tolist()
    assert lines[0]["nearest_training"] == ImageSet(sides["training"]).ids[0]
    assert not record.not_done


def test_copies_are_shown_beside_their_training_images(tmp_path, sides):
    run = metrics(
        ImageSet(sides["generated"]), ImageSet(sides["real"]), train=ImageSet(sides["training"]), out=tmp_path
    )
    matches = run.record.sections[-1].matches
    assert {match.generation for match in matches[:9]} == set(range(9))
    first = next(match for match in matches if match.generation == 0)
    assert (first.distance, first.copies, first.row) == (0, 11, ImageSet(sides["training"]).ids[0])
    pictures = Evidence.load(tmp_path / "evidence.npz")
    assert np.array_equal(pictures.pairs[first.picture].generated, pictures.pairs[first.picture].training)
    assert "data:image/png" not in (tmp_path / "report.html").read_text()
    assert any("nearer to training images" in reason for reason in run.record.reasons)


def test_it_resumes_and_refuses_other_settings(tmp_path, sides):
    generated, real = ImageSet(sides["generated"]), ImageSet(sides["real"])
    Corners.calls = 0
    metrics(generated, real, features=Corners(), out=tmp_path)
    assert Corners.calls == 150
    again = metrics(generated, real, features=Corners(), out=tmp_path)
    assert Corners.calls == 150
    assert again.record.cost.network_evaluations == 0
    with pytest.raises(Exception, match="other settings"):
        metrics(generated, real, features=Corners(), neighbours=5, out=tmp_path)


def test_without_training_images_and_with_few(tmp_path):
    record = metrics(ImageSet(images(0, 9)), ImageSet(images(1, 8)), out=tmp_path).record
    assert {item.what for item in record.not_done} == {"whether the images are new", "Fréchet distance"}
    assert record.estimate("distance/frechet").value is None
    assert record.estimate("fidelity/precision").n == 9
    assert len(record.sections) == 2


def test_images_without_a_direction_have_no_vendi_score(tmp_path):
    dark = images(0, 8)
    dark[0] = 0
    record = metrics(ImageSet(dark), ImageSet(images(1, 8)), out=tmp_path).record
    assert "Vendi score" in {item.what for item in record.not_done}


def test_what_it_refuses(tmp_path):
    some = ImageSet(images(0, 9))
    for generated, data, error, match in (
        (some, ImageSet(images(1, 3)), EmptySet, "There are 3 real images"),
        (ImageSet(images(1, 3)), some, EmptySet, "There are 3 generated images"),
        (ImageSet(images(1, 0)), some, EmptySet, "no image"),
        (ImageSet(images(1, 9, size=7)), some, ShapeMismatch, r"generated images have .* \(3, 7, 7\)"),
        (some, ImageSet(np.repeat(images(1, 1), 9, axis=0)), InvalidInput, "All 9 rows of reference features"),
    ):
        with pytest.raises(error, match=match):
            metrics(generated, data, out=tmp_path / "refused")
    assert not (tmp_path / "refused" / "report.json").exists()

    class Broken(Corners):
        def features(self, pixels):
            return np.full((len(pixels), 2), np.nan)

    with pytest.raises(InvalidInput, match="NaN"):
        metrics(some, some, features=Broken(), out=tmp_path / "refused")


def test_names_of_features(tmp_path):
    assert isinstance(open_extractor("pixels"), BlockMeans)
    assert "digit" in open_extractor("digits").name
    own = Corners()
    assert open_extractor(own) is own
    with pytest.raises(NotFound, match="'nothing'"):
        open_extractor("nothing")
    with pytest.raises(NotFound, match=r"config\.json"):
        open_extractor(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotFound, match="preprocessor_config"):
        open_extractor(tmp_path)


def test_command_line(tmp_path: Path, cli):
    for name, seed in (("made", 0), ("real", 1)):
        (tmp_path / name).mkdir()
        for place, image in enumerate(images(seed, 9)):
            Image.fromarray(np.moveaxis(image, 0, -1)).save(tmp_path / name / f"{place}.png")
    np.savez(tmp_path / "train.npz", images=images(2, 8))
    sets = (tmp_path / "made", "--data", tmp_path / "real")
    answer = cli("metrics", *sets, "--train", tmp_path / "train.npz", "--k", 2, "--out", tmp_path / "run")
    assert answer.code == 0
    assert "fidelity/precision" in answer.out
    assert "training/authentic" in answer.out
    assert answer.err == ""
    assert "k = 2" in (tmp_path / "run" / "report.html").read_text()
    wrong = cli("metrics", *sets, "--features", "nothing", "--out", tmp_path / "other")
    assert wrong.code == 2
    assert "Expected: pixels, edges, digits, or the folder" in wrong.err
    few = cli("metrics", *sets, "--k", 9, "--out", tmp_path / "other")
    assert few.code == 2
    assert "There are 9 generated images" in few.err

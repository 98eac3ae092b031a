from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vestige.errors import CorruptFile, InvalidInput, NotFound, ShapeMismatch, StorageFailed
from vestige.report.evidence import Evidence, Picture, Strip


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_saved_evidence_is_read_back_whole(tmp_path: Path, sample: ModuleType) -> None:
    evidence: Evidence = sample.evidence()
    evidence.save(tmp_path / "new" / "evidence.npz")
    loaded = Evidence.load(tmp_path / "new" / "evidence.npz")
    assert set(loaded.pairs) == set(evidence.pairs)
    for index, pair in evidence.pairs.items():
        assert loaded.pairs[index].label == pair.label
        np.testing.assert_array_equal(loaded.pairs[index].generated, pair.generated)
        np.testing.assert_array_equal(loaded.pairs[index].training, pair.training)
    assert list(loaded.strips) == list(evidence.strips)
    for section, strips in evidence.strips.items():
        for got, wanted in zip(loaded.strips[section], strips, strict=True):
            assert (got.title, got.caption) == (wanted.title, wanted.caption)
            np.testing.assert_array_equal(got.images, wanted.images)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["evidence.npz"]


def test_empty_evidence_empty_texts_and_odd_names_survive(tmp_path: Path) -> None:
    path = tmp_path / "e.npz"
    Evidence().save(path)
    assert not Evidence.load(path).pairs
    odd = Evidence(
        pairs={7: Picture(pixels(2, 3, 1), pixels(2, 3, 1), label="")},
        strips={"../a/b": [Strip("t/../x", pixels(1, 2, 2, 3))]},
    )
    odd.save(path)
    loaded = Evidence.load(path)
    assert loaded.pairs[7].label == ""
    assert loaded.strips["../a/b"][0].title == "t/../x"


def test_the_same_evidence_is_the_same_bytes_and_plain_numpy(tmp_path: Path, sample: ModuleType) -> None:
    for name in ("a.npz", "b.npz"):
        sample.evidence().save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["pair/0/generated"].dtype == np.uint8


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.npz"):
        Evidence.load(tmp_path / "none.npz")


class Trap:
    """Would leave a file behind if it were ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "evidence.npz"
    trap = np.array([Trap(sprung)], dtype=object)
    np.savez(path, **{"pair/0/generated": trap, "pair/0/training": trap, "pair/0/label": trap})
    with pytest.raises(CorruptFile, match=r"evidence\.npz"):
        Evidence.load(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(CorruptFile):
        Evidence.load(path)
    assert not sprung.exists()


def test_damaged_files_are_named(tmp_path: Path, sample: ModuleType) -> None:
    path = tmp_path / "evidence.npz"
    sample.evidence().save(path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[200:400] = bytes(200)
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match=r"evidence\.npz"):
            Evidence.load(path)
    np.savez(path, **{"pair/x/generated": pixels(2, 2, 1)})
    with pytest.raises(CorruptFile):
        Evidence.load(path)
    np.savez(path, **{"pair/1/generated": pixels(2, 2, 1)})
    with pytest.raises(CorruptFile, match="pair/1/training"):
        Evidence.load(path)
    floats = np.zeros((2, 2, 1))
    np.savez(path, **{"pair/1/generated": floats, "pair/1/training": floats, "pair/1/label": np.array("x")})
    with pytest.raises(CorruptFile, match="float64"):
        Evidence.load(path)
    with path.open("wb") as stream:
        np.save(stream, pixels(2, 2))
    with pytest.raises(CorruptFile, match="single array"):
        Evidence.load(path)


def test_pictures_are_checked() -> None:
    with pytest.raises(ShapeMismatch, match="generated"):
        Picture(pixels(2, 2, 1), pixels(3, 2, 1), "x")
    for wrong in (pixels(2, 2), pixels(2, 2, 2), pixels(0, 2, 1)):
        with pytest.raises(InvalidInput, match=r"Picture\.generated"):
            Picture(wrong, wrong, "x")
    with pytest.raises(InvalidInput, match=r"Strip\.images"):
        Strip("t", pixels(2, 2, 1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="file"):
        Evidence().save(tmp_path / "file" / "evidence.npz")

"""Every mistake ends in a typed error from Python and in one clear message and exit code 2 on the command line."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from vestige.data.load import load_images
from vestige.erase.data.erasediff import EraseDiff
from vestige.errors import (
    BadWeights,
    CorruptFile,
    DigestMismatch,
    EmptySet,
    InvalidInput,
    NotFound,
    ShapeMismatch,
    StorageFailed,
    Unsupported,
    VestigeError,
)
from vestige.jobs.audit import audit
from vestige.jobs.erase import erase
from vestige.jobs.increments import apply_increments
from vestige.jobs.policy import load_policy
from vestige.jobs.verify import verify

QUICK = EraseDiff(steps=1, batch_size=2)
FEW = ["--generations", 4, "--steps", 2, "--rows", 4, "--draws", 1]


def one_message(answer: Any, words: str) -> None:
    """Three labelled lines on stderr, nothing on stdout, no traceback."""
    assert answer.code == 2, answer
    assert answer.out == ""
    lines = answer.err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["Error", "Expected", "Do next"]
    assert words in answer.err


@dataclass
class Bench:
    """Calls of the same job from Python and from the command line, both expected to fail alike."""

    world: Any
    cli: Callable[..., Any]
    out: Path
    extra: dict[str, Any] = field(default_factory=dict)

    def audit(self, error: type[VestigeError], words: str, **changed: Any) -> None:
        given = {"model": self.world.plain, "data": self.world.train, "non_members": self.world.others, **changed}
        with pytest.raises(error) as caught:
            audit(given["model"], given["data"], non_members=given["non_members"], out=self.out, **self.extra)
        assert words in str(caught.value)
        options = ["--data", given["data"], "--non-members", given["non_members"], "--out", self.out]
        one_message(self.cli("audit", given["model"], *options, *FEW), words)

    def erase(self, error: type[VestigeError], words: str, **changed: Any) -> None:
        given = {"model": self.world.plain, "forget": "class:0", "retain": self.world.train, **changed}
        with pytest.raises(error) as caught:
            erase(given["model"], forget=given["forget"], retain=given["retain"], out=self.out, method=QUICK)
        assert words in str(caught.value)
        options = ["--forget", given["forget"], "--retain", given["retain"], "--out", self.out]
        one_message(self.cli("erase", given["model"], *options, "--set", "steps=1"), words)


@pytest.fixture
def bench(world: Any, cli: Callable[..., Any], tmp_path: Path) -> Bench:
    return Bench(world, cli, tmp_path / "out", world.settings(4))


def test_missing_paths(bench: Bench, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    bench.audit(NotFound, f"There is no model at {absent}", model=absent)
    bench.audit(NotFound, f"{absent} does not exist", data=absent)
    bench.audit(NotFound, f"{absent} does not exist", non_members=absent)
    bench.erase(NotFound, f"{absent} does not exist", retain=absent)
    one_message(bench.cli("report", absent), "report.json")
    one_message(bench.cli("increments", "list", absent), "neither an increment nor a model")
    one_message(bench.cli("increments", "apply", absent, absent, "--out", bench.out), "There is no model")
    assert not bench.out.exists()


def test_no_training_data(bench: Bench) -> None:
    one_message(bench.cli("audit", bench.world.plain, "--out", bench.out), "pass --data")
    one_message(bench.cli("erase", bench.world.plain, "--forget", "class:0", "--out", bench.out), "pass --retain")


def test_images_of_another_size_or_colour(bench: Bench, tmp_path: Path) -> None:
    large = bench.world.save_images(tmp_path / "large", bench.world.noise(0, 4, 16))
    bench.audit(ShapeMismatch, "RGB images of 16x16 pixels", data=large)
    bench.audit(ShapeMismatch, "RGB images of 16x16 pixels", non_members=large)
    bench.erase(ShapeMismatch, "RGB images of 16x16 pixels", retain=large)
    np.savez(tmp_path / "grey.npz", images=bench.world.noise(0, 4)[:, 0])
    bench.audit(ShapeMismatch, "grey images of 8x8 pixels", data=tmp_path / "grey.npz")
    bench.audit(ShapeMismatch, "grey images of 8x8 pixels", model=tmp_path / "grey.npz")
    Image.new("RGB", (9, 8)).save(large / "odd.png")
    bench.audit(ShapeMismatch, "odd.png", data=large)


def test_a_corrupt_image_is_named_or_left_out(bench: Bench, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bench.world.train, tmp_path / "train"))
    content = (folder / "005.png").read_bytes()
    (folder / "005.png").write_bytes(content[: len(content) // 2])
    (folder / "notes.jpg").write_text("no picture")
    bench.audit(CorruptFile, "005.png", data=folder)
    run = audit(
        bench.world.plain,
        folder,
        non_members=bench.world.others,
        out=tmp_path / "run",
        skip_corrupt=True,
        **bench.extra,
    )
    assert "2 unreadable files were left out" in " ".join(run.record.sections[0].text)
    assert "005.png" in " ".join(run.record.sections[0].text)
    options = ["--data", folder, "--skip-corrupt", "--out", tmp_path / "other", *FEW]
    assert bench.cli("audit", bench.world.plain, *options).code in (0, 1, 3)


def test_nothing_to_forget(bench: Bench, tmp_path: Path) -> None:
    bench.erase(EmptySet, "rows: is empty", forget="rows:")
    run = audit(
        bench.world.plain, bench.world.train, non_members=bench.world.others, out=tmp_path / "run", **bench.extra
    )
    assert not [match for section in run.record.sections for match in section.matches]
    bench.erase(EmptySet, f"{tmp_path / 'run'} is empty", forget=tmp_path / "run")
    (tmp_path / "rows.txt").write_text("\n")
    bench.erase(EmptySet, "is empty", forget=tmp_path / "rows.txt")


def test_rows_that_are_not_there(bench: Bench, tmp_path: Path) -> None:
    bench.erase(NotFound, "'0123456789abcdef' among them", forget="rows:0123456789abcdef")
    bench.erase(NotFound, "not in the training data", forget=bench.world.others)
    bench.erase(NotFound, "the data has no labels", forget="class:0")


def test_labels_that_the_model_does_not_know(bench: Bench, tmp_path: Path) -> None:
    model = bench.world.save_model(tmp_path / "model", classes=2)
    data = bench.world.save_images(tmp_path / "train", bench.world.noise(0, 6), classes=3)
    bench.audit(InvalidInput, "labels from 0 to 2", model=model, data=data)
    bench.erase(InvalidInput, "labels from 0 to 2", model=model, retain=data)


def test_weights_that_hold_nan(bench: Bench, tmp_path: Path) -> None:
    model = Path(shutil.copytree(bench.world.plain, tmp_path / "model"))
    (weights,) = model.glob("unet/*.safetensors")
    tensors = load_file(weights)
    tensors["conv_in.bias"][0] = float("nan")
    save_file(tensors, weights)
    bench.audit(BadWeights, "conv_in.bias holds NaN", model=model)
    bench.erase(BadWeights, "conv_in.bias holds NaN", model=model, forget="rows:1")


def test_folders_that_are_no_model(bench: Bench, tmp_path: Path) -> None:
    transformer = tmp_path / "transformer"
    transformer.mkdir()
    (transformer / "config.json").write_text("{}")
    bench.audit(Unsupported, "no model_index.json", model=transformer)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    bench.audit(EmptySet, "no readable image", model=tmp_path / "texts")
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    bench.audit(InvalidInput, "single file of type .ckpt", model=tmp_path / "model.ckpt")
    cut = Path(shutil.copytree(bench.world.plain, tmp_path / "cut"))
    (weights,) = cut.glob("unet/*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    bench.audit(CorruptFile, "could not be read", model=cut)


def test_a_full_disk(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        bench.audit(StorageFailed, "No space left on device")
    assert [path for path in bench.out.rglob("*") if path.is_file()] == []
    # With space again, the same command goes through.
    audit(bench.world.plain, bench.world.train, non_members=bench.world.others, out=bench.out, **bench.extra)


def test_increments_of_another_base(bench: Bench, tmp_path: Path) -> None:
    world, row = bench.world, load_images(bench.world.train)[0].ids[5]
    erase(world.plain, forget=f"rows:{row}", retain=world.train, out=tmp_path / "increment", method=QUICK)
    run = tmp_path / "run"
    audit(world.flat, world.train, non_members=world.others, out=run, **bench.extra)
    words = "'increment' was made for the model"
    with pytest.raises(DigestMismatch, match=words):
        verify(world.flat, increment=tmp_path / "increment", against=run, out=bench.out)
    options = ["--increment", tmp_path / "increment", "--against", run, "--out", bench.out]
    one_message(bench.cli("verify", world.flat, *options), words)
    with pytest.raises(DigestMismatch, match=words):
        apply_increments(world.flat, [tmp_path / "increment"], out=bench.out)
    one_message(bench.cli("increments", "apply", world.flat, tmp_path / "increment", "--out", bench.out), words)
    assert not bench.out.exists()


def test_a_policy_with_an_unknown_key(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[audit]\nmax_extractions = 1\n")
    with pytest.raises(InvalidInput, match="max_extractions"):
        load_policy(tmp_path / "policy.toml")
    options = ["--data", bench.world.train, "--out", bench.out, "--policy", tmp_path / "policy.toml"]
    one_message(bench.cli("audit", bench.world.plain, *options), "`audit.max_extractions`")


def test_a_folder_that_holds_another_run(bench: Bench) -> None:
    options = ["--data", bench.world.train, "--out", bench.out, *FEW]
    assert bench.cli("audit", bench.world.plain, *options).code == 3
    one_message(bench.cli("audit", bench.world.plain, *options, "--seed", 1), "other settings (seed)")
    assert bench.cli("audit", bench.world.plain, *options, "--seed", 1, "--overwrite").code == 3

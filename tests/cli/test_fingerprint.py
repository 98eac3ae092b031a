"""``vestige fingerprint`` and ``vestige compare-weights`` on tiny models on disk, and on what is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vestige.fingerprint.card import fingerprint
from vestige.fingerprint.launder.gain_shift import GainShift
from vestige.fingerprint.launder.linear_merge import LinearMerge
from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.fingerprint.portrait.code import VectorCode
from vestige.fingerprint.portrait.painter import Painter
from vestige.fingerprint.publish import read_card
from vestige.models.adapters.stylegan2.files import StyleGan2Weights
from vestige.models.adapters.stylegan2.form import StyleGan2Form
from vestige.models.adapters.stylegan2.network import StyleGan2
from vestige.models.transformer.open import open_transformer
from vestige.models.transformer.write import write_llama
from vestige.record import Record, Verdict

SMALL = {"layers": 3, "vocabulary": 300}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, build_model: Callable[..., Any]) -> Path:
    """base, an offspring that was noised, permuted and shifted, a stranger, a merge, and base with other tokens."""
    root = tmp_path_factory.mktemp("models")
    base, stranger = build_model(seed=0, **SMALL), build_model(seed=1, **SMALL)
    tuned = Noise(0.02).apply(base, seed=1)
    write_llama(base, root / "base")
    write_llama(stranger, root / "stranger")
    write_llama(GainShift().apply(ResidualPermutation().apply(tuned, seed=2), seed=3), root / "offspring")
    write_llama(LinearMerge(stranger, 0.3).apply(base, seed=0), root / "merged")
    write_llama(replace(stranger, strings=tuple(f"other {row}" for row in range(300))), root / "foreign")
    return root


@pytest.fixture(scope="module")
def card(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vestige.jobs.fingerprint import fingerprint as run

    path = tmp_path_factory.mktemp("cards") / "base.json"
    run(models / "base", out=path)
    return path


def test_a_fingerprint_is_printed_and_written(models: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "card.json"
    answer = cli("fingerprint", models / "base", "-o", out)
    assert (answer.code, answer.err) == (0, "")
    expected = fingerprint(open_transformer(models / "base"))
    held = read_card(out.read_text())
    assert held.digest == expected.digest
    assert held.vector.tolist() == expected.vector.tolist()
    code = VectorCode.of(expected.code)
    for shown in ("llama", "3 of width 32", expected.digest, code.kin, code.exact, "compare-weights"):
        assert shown in answer.out
    before = out.read_bytes()
    answer = cli("fingerprint", models / "stranger", "-o", out)
    assert (answer.code, answer.out) == (2, "")
    assert "--overwrite" in answer.err
    assert out.read_bytes() == before
    assert cli("fingerprint", models / "stranger", "-o", out, "--overwrite").code == 0
    assert read_card(out.read_text()).digest != expected.digest


def test_a_portrait_by_a_generator_of_ones_own(card: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    form = StyleGan2Form(channels=(6, 5, 4), latent=16, style=12, mapping_layers=2)
    network, file, out = StyleGan2(form), tmp_path / "own.safetensors", tmp_path / "portrait.png"
    StyleGan2Weights(form, dict(network.state_dict())).save(file, origin="test")
    answer = cli("fingerprint", card, "--portrait", out, "--generator", file)
    assert (answer.code, answer.err) == (0, "")
    held = read_card(card.read_text())
    assert out.read_bytes() == Painter(network).paint(held.code).png()
    with Image.open(out) as picture:
        assert picture.info["vestige:kin"] in answer.out
    answer = cli("fingerprint", card, "--generator", file)
    assert (answer.code, answer.out) == (2, "")
    assert "--portrait" in answer.err
    assert cli("fingerprint", card, "--portrait", out, "--generator", file).code == 2


def test_offspring_is_found_and_what_was_done_to_it_named(
    models: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answer = cli("compare-weights", models / "base", models / "offspring", "--out", out)
    assert answer.code == 1, answer
    record = Record.model_validate_json((out / "report.json").read_text())
    assert record.verdict is Verdict.FINDING
    assert "base and offspring are of the same lineage" in answer.out
    assert "residual stream permuted" in answer.out
    assert "norm gains shifted" in answer.out
    assert (out / "report.html").is_file()
    assert str(out / "report.html") in answer.out
    p = record.estimate("lineage/p_value").value
    assert p is not None
    assert p < 1e-4
    assert 0 < (record.estimate("merge/other_parents_at_most").value or 0) < 0.1
    assert record.access == "weights"
    assert "lineage/similarity: HuRef; " in " ".join(answer.out.split())


def test_strangers_are_independent(models: Path, cli: Callable[..., Any]) -> None:
    answer = cli("compare-weights", models / "base", models / "stranger")
    assert (answer.code, answer.err) == (0, "")
    assert "independent" in answer.out


def test_too_few_common_tokens_leave_it_undetermined(models: Path, cli: Callable[..., Any]) -> None:
    answer = cli("compare-weights", models / "base", models / "foreign")
    assert answer.code == 3
    assert "share too few tokens" in answer.out


def test_a_card_stands_for_its_model(models: Path, card: Path, cli: Callable[..., Any]) -> None:
    answer = cli("compare-weights", card, models / "offspring")
    assert answer.code == 1
    assert "access: cards" in answer.out
    assert "a card was given in place of a model" in " ".join(answer.out.split())
    assert cli("compare-weights", card, models / "offspring", "--expect", "same").code == 0
    assert cli("compare-weights", card, models / "stranger").code == 0
    assert cli("compare-weights", card, models / "stranger", "--expect", "same").code == 1


def test_shares_of_a_merge(models: Path, card: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [models / "base", models / "merged", "--parent", models / "stranger"]
    answer = cli("compare-weights", *both, "--out", out)
    assert answer.code in (0, 1, 3)
    record = Record.model_validate_json((out / "report.json").read_text())
    for name, share in (("base", 0.7), ("stranger", 0.3)):
        assert record.estimate(f"merge/{name}").value == pytest.approx(share, abs=0.15)
    answer = cli("compare-weights", card, models / "merged", "--parent", models / "stranger")
    assert answer.code == 2
    assert "leave --parent out" in answer.err


def broken(folder: Path, models: Path, kind: str) -> Path:
    """Something that is no model, made under a name that says what it is."""
    if kind in ("empty", "card"):
        folder.mkdir(parents=True)
        return folder
    if kind == "text":
        folder.with_suffix(".txt").write_text("no model")
        return folder.with_suffix(".txt")
    folder.mkdir(parents=True)
    for file in (models / "base").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if kind == "unknown":
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, "model_type": "perceiver"}))
    if kind == "bare":
        (folder / "config.json").unlink()
    if kind == "truncated":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    if kind == "gguf":
        (folder / "model.gguf").write_bytes(b"GGUF" + bytes(4))
        return folder / "model.gguf"
    return folder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("absent", "There is no"),
        ("empty", "Expected"),
        ("text", "Expected"),
        ("unknown", "perceiver"),
        ("bare", "config.json"),
        ("truncated", "Expected"),
        ("gguf", "Expected"),
    ],
)
def test_what_is_no_model(models: Path, cli: Callable[..., Any], tmp_path: Path, kind: str, said: str) -> None:
    path = tmp_path / "absent" if kind == "absent" else broken(tmp_path / kind, models, kind)
    for command in (["fingerprint", path], ["compare-weights", models / "base", path]):
        answer = cli(*command)
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err
        assert "Do next" in answer.err
        assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "no JSON"),
        (lambda text: text.replace('"version":1', '"version":2'), "version 2"),
        (lambda text: text.replace("vestige-fingerprint", "other"), "no fingerprint card"),
        (lambda text: text.replace('"depth":3', '"depth":4'), "fit together"),
        (lambda text: "[]", "no fingerprint card"),
    ],
)
def test_what_is_no_card(
    card: Path, cli: Callable[..., Any], tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(change(card.read_text()))
    assert path.read_text() != card.read_text()
    answer = cli("compare-weights", card, path)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert str(path) in answer.err

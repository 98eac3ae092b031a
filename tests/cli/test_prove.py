"""``vestige prove`` and ``vestige verify-proof``: three tiers, from a model to a verdict."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vestige.jobs.fingerprint import fingerprint
from vestige.models.transformer.write import write_llama

ARKWORKS = pytest.mark.skipif(find_spec("py_arkworks_bls12381") is None, reason="needs the extra 'proof'")
FEW = ["--tokens", "24", "--layers", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, build_model: Callable[..., Any]) -> Path:
    """mine and other, of one shape, and mine's card."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("mine", "other")):
        write_llama(build_model(seed=seed, d=16, f=20, layers=2, vocabulary=60), root / name)
    fingerprint(root / "mine", out=root / "mine.json")
    fingerprint(root / "other", out=root / "other.json")
    return root


@pytest.fixture
def forged(models: Path, tmp_path: Path) -> Path:
    """A card that says mine's digest and holds other's vectors."""
    path = tmp_path / "forged.json"
    digest = json.loads((models / "mine.json").read_text())["digest"]
    path.write_text(json.dumps({**json.loads((models / "other.json").read_text()), "digest": digest}))
    return path


def rejected(answer: Any, said: str) -> None:
    assert (answer.code, answer.out) == (1, ""), answer
    assert said in " ".join(answer.err.split())


def test_open_weights(models: Path, forged: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    answer = cli("prove", "manifest", models / "mine", "-o", manifest, *FEW)
    assert (answer.code, answer.err) == (0, "")
    assert "Does not show: which model is deployed" in answer.out
    assert cli("prove", "manifest", models / "mine", "-o", manifest, *FEW).code == 2
    check = ["verify-proof", "manifest", manifest]
    answer = cli(*check, models / "mine", "--card", models / "mine.json")
    assert (answer.code, answer.err) == (0, "")
    assert "It holds." in answer.out
    assert "mine.json is that of these weights" in answer.out
    rejected(cli(*check, models / "other"), "model.safetensors is another file")
    rejected(cli(*check, models / "mine", "--card", models / "other.json"), "digest")
    rejected(cli(*check, models / "mine", "--card", forged), "not what these weights give")
    manifest.write_text(manifest.read_text()[:-20])
    assert cli(*check, models / "mine").code == 2


def test_auditor(models: Path, forged: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "audit"
    answer = cli("prove", "rows", models / "mine", "--out", out, *FEW)
    assert (answer.code, answer.err) == (0, "")
    assert f"Publish {out / 'rows.json'}" in answer.out
    assert f"Keep {out / 'rows.secret'} secret" in answer.out
    assert stat.S_IMODE((out / "rows.secret").stat().st_mode) == 0o600
    assert cli("prove", "rows", models / "mine", "--out", out, *FEW).code == 2
    check = ["verify-proof", "rows", out / "rows.json", out / "rows.secret"]
    answer = cli(*check, models / "mine", "--card", models / "mine.json", *FEW)
    assert (answer.code, answer.err) == (0, "")
    assert json.loads((out / "rows.json").read_text())["root"] in answer.out
    rejected(cli(*check, models / "other", *FEW), "root")
    rejected(cli(*check, models / "mine"), "root")
    rejected(cli(*check, models / "mine", "--card", forged, *FEW), "not what these weights give")


@ARKWORKS
def test_zero_knowledge(models: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    owner, asked, proof = tmp_path / "owner", tmp_path / "challenge.json", tmp_path / "proof.bin"
    answer = cli("prove", "commit", models / "mine", "--out", owner, *FEW)
    assert (answer.code, answer.err) == (0, "")
    assert cli("prove", "commit", models / "mine", "--out", owner, *FEW).code == 2
    answer = cli("prove", "challenge", owner / "commitment.bin", "-o", asked, "--size", "8")
    assert (answer.code, answer.err) == (0, "")
    assert "vestige prove answer" in answer.out
    assert cli("prove", "challenge", owner / "commitment.bin", "-o", asked).code == 2
    answer = cli("prove", "answer", owner, asked, "-o", proof)
    assert (answer.code, answer.err) == (0, "")
    check = ["verify-proof", "answer", owner / "commitment.bin", proof]
    answer = cli(*check, asked, "--reference", models / "mine")
    assert (answer.code, answer.err) == (0, "")
    assert "Similarity to the reference: 1.000" in answer.out
    assert "which model is deployed" in answer.out
    answer = cli(*check, asked, "--reference", models / "other")
    assert answer.code == 0
    assert "Similarity to the reference: 1.000" not in answer.out

    other = tmp_path / "other.json"
    assert cli("prove", "challenge", owner / "commitment.bin", "-o", other, "--size", "8").code == 0
    rejected(cli(*check, other), "does not hold")
    flipped = bytearray(proof.read_bytes())
    flipped[30] ^= 1
    proof.write_bytes(flipped)
    assert cli(*check, asked).code in (1, 2)
    proof.write_bytes(flipped[:100])
    answer = cli(*check, asked)
    assert (answer.code, answer.out) == (2, "")
    assert str(proof) in answer.err

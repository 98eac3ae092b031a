"""``vestige lineage``: scanning a folder, and the registry."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vestige.fingerprint.launder.noise import Noise
from vestige.fingerprint.launder.residual_permutation import ResidualPermutation
from vestige.models.transformer.write import write_llama
from vestige.record import Record


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, build_model: Callable[..., Any]) -> Path:
    """Two bases with an offspring each in sub-folders, one of them changed so as to hide it."""
    root = tmp_path_factory.mktemp("family") / "zoo"
    for seed in (0, 1):
        base = build_model(seed=seed, layers=3, vocabulary=300)
        write_llama(base, root / f"base-{seed}")
        tuned = Noise(0.02).apply(base, seed=5)
        write_llama(ResidualPermutation().apply(tuned, seed=2) if seed else tuned, root / "tuned" / f"of-{seed}")
    return root


@pytest.fixture
def zoo(family: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(family, tmp_path / "zoo"))


def test_a_folder_is_scanned_and_scanned_again(
    zoo: Path, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_model: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    (zoo / "not-a-model").mkdir()
    (zoo / "not-a-model" / "config.json").write_text("{}")
    (zoo / "notes.json").write_text("{}")
    answer = cli("lineage", "scan", zoo, "--out", out)
    assert (answer.code, answer.err) == (0, "")
    record = Record.model_validate_json((out / "report.json").read_text())
    assert record.estimate("lineage/models").value == 4
    assert record.estimate("lineage/families").value == 2
    assert "Of one lineage: base-0, tuned/of-0." in record.reasons
    assert "Of one lineage: base-1, tuned/of-1." in record.reasons
    assert [item.what for item in record.not_done] == ["not-a-model"]
    lines = [line.split(",") for line in (out / "matrix.csv").read_text().splitlines()]
    assert lines[0] == ["", *(line[0] for line in lines[1:])]
    assert [float(line[place]) for place, line in enumerate(lines) if place] == [1.0] * 4
    page = (out / "report.html").read_text()
    assert all(name in page for name in ("tuned/of-1", "average linkage"))
    assert "likeness" in answer.out

    cards = {path: path.stat().st_mtime_ns for path in (out / "cards").iterdir()}
    assert len(cards) == 4
    write_llama(build_model(seed=2, layers=3, vocabulary=300), zoo / "new")
    (zoo / "base-0" / "config.json").touch()
    os.utime(zoo / "base-0" / "config.json", ns=(1, 1))
    assert cli("lineage", "scan", zoo, "--out", out).code == 0
    after = {path: path.stat().st_mtime_ns for path in (out / "cards").iterdir()}
    assert len(after) == 6
    assert cards.items() <= after.items()
    record = Record.model_validate_json((out / "report.json").read_text())
    assert record.estimate("lineage/models").value == 5
    assert record.estimate("lineage/families").value == 3
    damaged = next(path for path in after if path.name.startswith("new"))
    damaged.write_text("half")
    assert cli("lineage", "scan", zoo, "--out", out).code == 0
    assert damaged.stat().st_size > 1000


def test_a_scan_keeps_out_of_other_reports(zoo: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    answer = cli("lineage", "scan", tmp_path / "absent")
    assert (answer.code, answer.out) == (2, "")
    (tmp_path / "empty").mkdir()
    answer = cli("lineage", "scan", tmp_path / "empty", "--out", tmp_path / "o")
    assert (answer.code, answer.out) == (2, "")
    assert "two or more" in answer.err
    assert cli("lineage", "scan", zoo / "tuned", "--out", tmp_path / "o").code == 0
    answer = cli("lineage", "scan", zoo, "--out", tmp_path / "o")
    assert answer.code == 2
    assert "--overwrite" in answer.err


def test_the_registry_keeps_claims_and_says_what_cards_show(zoo: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    place = tmp_path / "registry"
    end = ["--registry", place]
    assert cli("lineage", "show", *end).code == 2
    assert cli("lineage", "add", zoo / "base-0", *end).code == 0
    answer = cli("lineage", "add", zoo / "tuned" / "of-0", "--name", "child", "--parent", "base-0", *end)
    assert (answer.code, answer.err) == (0, "")
    assert "same lineage" in answer.out
    assert "do not show" not in answer.out
    answer = cli("lineage", "add", zoo / "tuned" / "of-1", "--name", "false", "--parent", "base-0", *end)
    assert answer.code == 0
    assert "do not show that false descends from base-0" in answer.out
    answer = cli("lineage", "show", *end)
    assert answer.code == 0
    assert answer.out.index("claimed descent") < answer.out.rindex("base-0") < answer.out.rindex("child")
    assert "child" not in cli("lineage", "show", "false", *end).out.split("claimed descent")[1]

    for command, said in [
        (["lineage", "add", zoo / "base-1", "--name", "child"], "--overwrite"),
        (["lineage", "add", zoo / "base-1", "--name", "base-0", "--overwrite"], "other weights"),
        (["lineage", "add", zoo / "base-1", "--parent", "nobody"], "nobody"),
        (["lineage", "add", zoo / "base-1", "--name", "../out"], "letters"),
        (["lineage", "show", "nobody"], "child"),
    ]:
        before = {path: path.read_bytes() for path in place.iterdir()}
        answer = cli(*command, *end)
        assert (answer.code, answer.out) == (2, "")
        assert said in answer.err
        assert {path: path.read_bytes() for path in place.iterdir()} == before

    entry = place / "child.lineage.json"
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "name": "other"}))
    answer = cli("lineage", "show", *end)
    assert answer.code == 2
    assert str(entry) in answer.err

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vestige.errors import CorruptFile, InvalidInput, NotFound, StorageFailed, Unsupported
from vestige.record import Estimate, Match, Record, Section, json_schema
from vestige.report.folder import load, write


def test_a_record_is_read_back_as_it_was(tmp_path: Path, small: Record) -> None:
    paths = write(small, tmp_path / "run")
    assert load(tmp_path / "run") == small
    assert [p.name for p in paths] == ["report.json", "report.html"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["report.html", "report.json"]


def test_writing_again_gives_the_same_bytes(tmp_path: Path, small: Record, sample: ModuleType) -> None:
    first = [p.read_bytes() for p in write(small, tmp_path, sample.evidence())]
    second = [p.read_bytes() for p in write(load(tmp_path), tmp_path, sample.evidence())]
    assert first == second


def test_the_json_follows_its_schema(tmp_path: Path, small: Record) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path, _ = write(small, tmp_path)
    validator = jsonschema.Draft202012Validator(json_schema())
    content = json.loads(path.read_text())
    validator.validate(content)
    content["summary"][0]["value"] = "high"
    assert not validator.is_valid(content)


def _no_constants(name: str) -> None:
    raise AssertionError(name)


def test_numbers_that_are_not_finite_become_null(tmp_path: Path, small: Record) -> None:
    record = small.model_copy(
        update={"summary": [Estimate(name="a", value=math.nan, low=-math.inf)], "config": {"x": math.nan}}
    )
    path, page = write(record, tmp_path)
    content = json.loads(path.read_text(), parse_constant=_no_constants)
    assert content["config"] == {"x": None}
    assert load(tmp_path).summary == [Estimate(name="a", value=None)]
    assert "not measured" in page.read_text()


def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path: Path, small: Record) -> None:
    bad = Section(name="s", title="s", matches=[Match(row="r", generation=0, distance=math.nan)])
    with pytest.raises(InvalidInput, match=r"sections\.0\.matches\.0\.distance"):
        write(small.model_copy(update={"sections": [bad]}), tmp_path)
    with pytest.raises(InvalidInput, match="JSON"):
        write(small.model_copy(update={"title": "\ud800"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_report_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"report\.json"):
        load(tmp_path)
    with pytest.raises(NotFound):
        load(tmp_path / "nowhere")


def _break(content: dict[str, Any], key: str, value: Any) -> str:
    return json.dumps({**content, key: value})


def test_damaged_reports_name_the_field(tmp_path: Path, small: Record) -> None:
    path, _ = write(small, tmp_path)
    content: dict[str, Any] = json.loads(path.read_text())
    cases = {
        _break(content, "title", 3): "title",
        _break(content, "cost", {**content["cost"], "seconds": "long"}): r"cost\.seconds",
        _break(content, "extra", 1): "extra",
        _break(content, "schema_version", None): "schema_version is missing",
        json.dumps({k: v for k, v in content.items() if k != "seeds"}): "seeds",
        path.read_text()[:-30]: "is not a record",
        path.read_text().replace("1874.2", "NaN"): "NaN is not JSON",
        "[" * 100_000: "is not a record",
        "[]": "no object",
        "": "is not a record",
    }
    for text, message in cases.items():
        path.write_text(text)
        with pytest.raises(CorruptFile, match=message):
            load(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CorruptFile, match="UTF-8"):
        load(tmp_path)


def test_another_schema_version_is_unsupported(tmp_path: Path, small: Record) -> None:
    path, _ = write(small, tmp_path)
    path.write_text(path.read_text().replace('"schema_version": "1.0"', '"schema_version": "9.0"'))
    with pytest.raises(Unsupported, match=r"9\.0") as caught:
        load(tmp_path)
    assert "install" in caught.value.remedy


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path: Path, small: Record) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageFailed, match="file"):
        write(small, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_old_report_survives_a_write_that_fails(
    tmp_path: Path, small: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = write(small, tmp_path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vestige.store.write.os.fsync", full)
    with pytest.raises(StorageFailed, match="No space left"):
        write(small.model_copy(update={"title": "new"}), tmp_path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]

"""The command line of `vestige geometry`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vestige.record import Record

FEW = ["--count", 6, "--controls", 8, "--set", "dsm.draws=2", "--set", "dsm.ratios=0.1,0.3", "--at", 0.3]
NEAR = ["--reference", "mle", "--set", "mle.neighbours=4,5"]


def options(world: Any, out: Path) -> list[object]:
    return ["--data", world.train, "--non-members", world.others, "--out", out, *FEW]


def test_few_non_members_are_inconclusive_and_say_how_many_are_needed(
    world: Any, cli: Callable[..., Any], tmp_path: Path
) -> None:
    answer = cli("geometry", world.flat, *options(world, tmp_path / "run"), *NEAR)
    assert answer.code == 3, answer
    record = Record.model_validate_json((tmp_path / "run" / "report.json").read_text())
    assert record.command == "geometry"
    assert "24 are needed" in record.reasons[0]
    assert record.config["estimator"]["draws"] == 2
    assert record.config["reference"]["neighbours"] == [4, 5]
    assert len((tmp_path / "run" / "points.jsonl").read_text().splitlines()) == 6


def test_a_run_is_resumed_and_its_page_drawn_again(world: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    call = ["geometry", world.flat, *options(world, tmp_path / "run"), *NEAR, "--quantile", 0.3]
    first, second = cli(*call), cli(*call)
    assert first.code == second.code
    assert first.code in (0, 1)
    assert cli("report", tmp_path / "run", "--show-images").code == 0
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()
    other = cli(*call, "--seed", 1)
    assert other.code == 2
    assert "seed" in other.err


def test_generations_are_judged_and_drawn_again(world: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    call = ["geometry", world.flat, *options(world, tmp_path / "run"), *NEAR, "--quantile", 0.3, "--steps", 2]
    answer = cli(*call, "--points", "generated", "--redraw")
    assert answer.code in (0, 1), answer
    record = Record.model_validate_json((tmp_path / "run" / "report.json").read_text())
    assert record.config["redraw"] == 3
    assert record.estimate("redraw/copies_before").value == 1
    line = json.loads((tmp_path / "run" / "points.jsonl").read_text().splitlines()[0])
    assert line["side"] == "generation"
    assert line["copied"] is True


@pytest.mark.parametrize("name", ["none", "plain"])
def test_a_reference_may_be_left_out_or_be_a_model(
    world: Any, cli: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    reference = name if name == "none" else world.root / name
    answer = cli("geometry", world.flat, *options(world, tmp_path), "--reference", reference, "--quantile", 0.3)
    assert answer.code in (0, 1), answer


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--points", "pixels"], "--points pixels"),
        (["--estimator", "nosuch"], "nosuch"),
        (["--reference", "nosuch"], "nosuch"),
        (["--set", "draws=2"], "names no estimator"),
        (["--set", "lidl.x=2"], "belongs to no estimator"),
        (["--set", "dsm.drawz=2"], "drawz"),
        (["--redraw"], "cannot be drawn again"),
        (["--quantile", 0.7], "quantile"),
        (["--reference", "unconditional"], "no condition"),
    ],
)
def test_wrong_usage_is_named(
    world: Any, cli: Callable[..., Any], tmp_path: Path, wrong: list[object], said: str
) -> None:
    answer = cli("geometry", world.flat, *options(world, tmp_path / "run"), *wrong)
    assert answer.code == 2, answer
    assert said in answer.err
    assert not (tmp_path / "run").exists()

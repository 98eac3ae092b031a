"""``--attack``, ``--set ATTACK.FIELD`` and ``--shadows``."""

from __future__ import annotations

from pathlib import Path

import pytest

from vestige.audit.membership.pia import PIA
from vestige.cli.attacks import chosen
from vestige.errors import InvalidInput, NotFound


def names(found: list[object]) -> list[str]:
    return [type(attack).__name__ for attack in found]


def test_unasked_all_run_that_need_no_special_experiment() -> None:
    found = chosen([], [], None)
    assert {"GenerateAndFilter", "DenoisingLoss", "PIA"} <= {*names(found)}
    assert all(attack.by_default for attack in found)


def test_named_attacks_run_in_the_order_given() -> None:
    assert names(chosen(["pia", "GenerateAndFilter"], [], None)) == ["PIA", "GenerateAndFilter"]


def test_settings_reach_their_attack_and_the_last_one_counts() -> None:
    (made,) = chosen(["pia"], ["pia.rows=10", "PIA.rows=30", "denoisingloss.rows=5"], None)
    assert made == PIA(rows=30)


def test_shadow_models_bring_the_attack_that_needs_them() -> None:
    lira = chosen(["pia"], [], Path("here"))[-1]
    assert type(lira).__name__ == "LiRA"
    assert lira.settings()["shadows"] == "here"
    assert names(chosen(["lira"], [], Path("here"))) == ["LiRA"]


@pytest.mark.parametrize("text", ["rows=3", "nothing.rows=3", "pia.colour=red"])
def test_settings_of_nothing_are_named(text: str) -> None:
    with pytest.raises(InvalidInput, match="--set"):
        chosen([], [text], None)


def test_an_unknown_attack_is_named() -> None:
    with pytest.raises(NotFound, match="magic"):
        chosen(["magic"], [], None)

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pytest

from vestige.cli.settings import by_method, with_settings
from vestige.erase.data.erasediff import Balance, EraseDiff
from vestige.erase.data.teacher import Target
from vestige.erase.loop import Loop, Precision, Stop
from vestige.errors import InvalidInput


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Method:
    steps: int = 3
    rate: float = 0.5
    colour: Colour = Colour.RED
    deep: bool = False
    times: tuple[float, ...] = (0.1,)


def test_values_are_read_by_the_types_of_their_fields() -> None:
    assert with_settings(Method, []) == Method()
    made = with_settings(Method, ["steps=7", "rate=1e-3", "colour=blue", "deep=true"])
    assert made == Method(7, 0.001, Colour.BLUE, True)
    assert type(made.steps) is int
    assert with_settings(Method, ["steps=1", "steps=2"]).steps == 2
    assert with_settings(Method, ["rate=2"]).rate == 2.0
    assert with_settings(Method, ["times=0.2"]).times == (0.2,)
    assert with_settings(Method, ["times=0.1,0.3"]).times == (0.1, 0.3)


def test_real_settings() -> None:
    made = with_settings(EraseDiff, ["steps=300", "target=noise", "balance=cosine", "eta=2", "learning_rate=1e-4"])
    assert made == EraseDiff(steps=300, target=Target.NOISE, balance=Balance.COSINE, eta=2.0, learning_rate=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepps=3", r"--set stepps=3 does not name a setting of Method.*steps=3, rate=0\.5, colour=red"),
        ("steps", "does not name a setting"),
        ("=3", "does not name a setting"),
        ("steps=many", "--set steps: .*integer"),
        ("steps=1.5", "--set steps: .*integer"),
        ("rate=fast", "--set rate: .*number"),
        ("times=0.1,soon", "--set times.1: .*number"),
        ("colour=green", "--set colour: .*'red' or 'blue'"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        with_settings(Method, [text])


def test_settings_of_the_loop() -> None:
    made = with_settings(Loop, ["micro_batch=8", "precision=bfloat16", "average=0.99", "stop=residue"], option="--loop")
    assert made == Loop(micro_batch=8, precision=Precision.BFLOAT16, average=0.99, stop=Stop.RESIDUE)


@pytest.mark.parametrize(
    ("text", "words"),
    [("zeal=1", "^--loop zeal=1 does not name a setting of Loop"), ("rank=low", "^--loop rank: .*integer")],
)
def test_mistakes_name_the_option_that_was_typed(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        with_settings(Loop, [text], option="--loop")


def test_settings_are_sorted_by_method() -> None:
    assert by_method(["One.steps=3", "one.rate=2"], ["One", "Two"], what="way") == {
        "one": ["steps=3", "rate=2"],
        "two": [],
    }


@pytest.mark.parametrize("text", ["three.steps=3", "steps=3", ".steps=3", ""])
def test_settings_of_no_method_are_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^--more {text} names no way\..*one of One, Two") as caught:
        by_method([text], ["One", "Two"], what="way", option="--more")
    assert "vestige ls" in caught.value.remedy


def test_values_out_of_range_are_refused_by_the_method() -> None:
    with pytest.raises(InvalidInput, match="eta"):
        with_settings(EraseDiff, ["eta=nan"])

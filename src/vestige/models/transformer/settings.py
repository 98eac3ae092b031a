"""Settings of an architecture as a file gives them: any value may be missing or of the wrong kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

from vestige.errors import CorruptFile, Unsupported
from vestige.models.transformer.block import Activation

_LARGEST = 1 << 31
_SCALE = 1e30
"""Numbers beyond it, or below its inverse, are mistakes."""

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "silu": Activation.SILU,
        "swish": Activation.SILU,
        "gelu": Activation.GELU,
        "gelu_new": Activation.GELU_TANH,
        "gelu_fast": Activation.GELU_TANH,
        "gelu_pytorch_tanh": Activation.GELU_TANH,
        "relu": Activation.RELU,
    }
)
"""By the names of transformers."""


@dataclass(frozen=True)
class Settings:
    """Named values and where they come from. A name with the value null counts as absent."""

    values: Mapping[str, Any] = field(repr=False)
    origin: str

    def has(self, name: str) -> bool:
        """Whether the value is there."""
        return self.values.get(name) is not None

    def whole(self, *names: str, default: int | None = None) -> int:
        """The first of these that is there, a whole number from 1 on. Raises CorruptFile."""
        name, value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < _LARGEST:
            raise self.wrong(name, value, "a whole number from 1 on")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """The first of these that is there, a positive number. Raises CorruptFile."""
        name, value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 / _SCALE < value < _SCALE:
            raise self.wrong(name, value, "a number above 0")
        return float(value)

    def number_if(self, name: str) -> float | None:
        """A positive number, or None where it is absent. Raises CorruptFile."""
        return self.number(name) if self.has(name) else None

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false. Raises CorruptFile."""
        name, value = self._first((name,), default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "true or false")
        return value

    def text(self, *names: str, default: str | None = None) -> str:
        """The first of these that is there, a text. Raises CorruptFile."""
        name, value = self._first(names, default)
        if not isinstance(value, str):
            raise self.wrong(name, value, "a text")
        return value

    def activation(self, *names: str, default: str | None = None) -> Activation:
        """The nonlinearity that the first of these names. Raises CorruptFile or Unsupported."""
        name = self.text(*names, default=default)
        if name not in ACTIVATIONS:
            raise Unsupported(
                f"{self.origin} asks for the nonlinearity {name[:60]!r}.",
                expected=f"one of {', '.join(ACTIVATIONS)}.",
                remedy="open a model of a known architecture.",
            )
        return ACTIVATIONS[name]

    def part(self, name: str) -> Settings | None:
        """The settings under a name, or None. Raises CorruptFile."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(name, value, "a table")
        return Settings(cast("Mapping[str, Any]", value), f"{self.origin}, {name}")

    def listed(self, name: str) -> tuple[Any, ...] | None:
        """The list under a name, or None. Raises CorruptFile."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            raise self.wrong(name, value, "a list")
        return tuple(cast("list[Any]", value))

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """The list of numbers under a name, or None. Raises CorruptFile."""
        values = self.listed(name)
        if values is None:
            return None
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_SCALE < value < _SCALE:
                raise self.wrong(name, value, "a list of numbers")
        return tuple(float(value) for value in values)

    def wrong(self, name: str, value: object, expected: str) -> CorruptFile:
        """The error for a value that cannot be."""
        found = "nothing" if value is None else repr(value)[:100]
        return CorruptFile(
            f"{self.origin} gives {found} for {name}.",
            expected=f"{expected}.",
            remedy="take the file from where the model was published.",
        )

    def _first(self, names: tuple[str, ...], default: object) -> tuple[str, object]:
        return next(((name, self.values[name]) for name in names if self.has(name)), (names[0], default))

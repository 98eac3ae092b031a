"""The record that every command leaves behind: what was done, to what, and what came out.

A report is drawn from records alone. ``report.json`` is ``Record.model_dump_json()``;
its JSON schema is :func:`json_schema` and carries the version in ``schema_version``.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.0"

Cell = str | int | float | bool | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Estimate(_Part):
    """One number with its interval. ``low``/``high`` bound it at 95 % unless the note says otherwise."""

    name: str = Field(description="slash-separated, e.g. extraction/recall@copies>=64")
    value: float | None = Field(description="null when it could not be measured; the note says why")
    low: float | None = None
    high: float | None = None
    n: int | None = Field(default=None, description="number of observations behind the value")
    unit: str = ""
    note: str = ""


class Table(_Part):
    """Rows to show as they are. Cells are plain values in the order of ``columns``."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    caption: str = ""


class Series(_Part):
    """One named line, set of bars or points; ``low`` and ``high`` bound ``y``, ``x_low`` and ``x_high`` bound ``x``."""

    name: str
    x: list[float | str]
    y: list[float | None]
    low: list[float | None] | None = None
    high: list[float | None] | None = None
    x_low: list[float | None] | None = Field(default=None, description="of a scatter only")
    x_high: list[float | None] | None = Field(default=None, description="of a scatter only")
    labels: list[str] | None = Field(
        default=None, description="names beside the points of a scatter, or at the ends of a tree"
    )


class Figure(_Part):
    """A chart as data; the report draws it."""

    name: str
    title: str
    kind: Literal["line", "bars", "points", "histogram", "scatter", "tree"]
    series: list[Series]
    x_label: str = ""
    y_label: str = ""
    x_log: bool = False
    y_log: bool = False
    diagonal: bool = Field(default=False, description="draw y = x, the line of chance in a ROC")
    thresholds: list[tuple[str, float]] = Field(default=[], description="labelled vertical lines")
    caption: str = ""


class NotDone(_Part):
    """Something that the access level or the given data could not support."""

    what: str
    reason: str
    remedy: str


class Match(_Part):
    """One recovered image: hashes and distances, never pixels.

    ``picture`` is the index of the pair in the run's ``evidence.npz``.
    """

    row: str = Field(description="content hash of the training image")
    generation: int = Field(description="row number of the generated image")
    distance: float = Field(description="root mean squared difference, pixels in [0, 1]")
    calibrated: float | None = None
    copies: int = Field(default=1, description="rows of the training data in its near-duplicate cluster")
    eidetic: int | None = Field(default=None, description="k: distinct training images within delta of it")
    picture: int | None = None


class Verdict(str, Enum):
    """How a run ended, judged against a policy."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FINDING = "finding"
    INCONCLUSIVE = "inconclusive"
    NONE = "none"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 a finding, 3 inconclusive."""
        return {"pass": 0, "finding": 1, "inconclusive": 3, "none": 0}[self.value]


class Section(_Part):
    """One part of a run in reading order: a headline, a few sentences, tables and figures."""

    name: str
    title: str
    text: list[str] = []
    tables: list[Table] = []
    figures: list[Figure] = []
    matches: list[Match] = []


class Environment(_Part):
    """What the run ran on."""

    versions: dict[str, str]
    python: str
    platform: str
    device: str
    threads: int


class Cost(_Part):
    """What the run took."""

    seconds: float
    network_evaluations: int
    peak_memory_bytes: int | None = None


class Record(_Part):
    """Everything needed to read, check and repeat a run."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    command: str
    title: str
    created: str = Field(description="UTC, ISO 8601")
    subject: dict[str, str] = Field(description="name, digest and kind of the model examined")
    access: str
    config: dict[str, Any]
    digests: dict[str, str]
    seeds: dict[str, int]
    environment: Environment
    cost: Cost
    verdict: Verdict
    reasons: list[str] = Field(description="why the verdict is what it is, one sentence each")
    summary: list[Estimate]
    sections: list[Section] = []
    not_done: list[NotDone] = []

    def estimate(self, name: str) -> Estimate:
        """The summary line of that name (KeyError if absent)."""
        for line in self.summary:
            if line.name == name:
                return line
        raise KeyError(name)


def json_schema() -> dict[str, Any]:
    """JSON schema of ``report.json``."""
    return Record.model_json_schema()

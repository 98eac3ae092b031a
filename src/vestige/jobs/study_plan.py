"""A study's plan, read from TOML: which models to train, and how each is audited."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vestige.errors import InvalidInput, NotFound, VestigeError
from vestige.train.recipe import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measure(_Strict):
    """How every model is audited: the same attacks, budget and seed for all."""

    generations: int = Field(default=500, ge=2)
    sampling_steps: int = Field(default=10, ge=1)
    rows: int = Field(default=500, ge=2, description="members, and as many non-members, for the denoising loss")
    draws: int = Field(default=2, ge=1)
    seed: int = Field(default=0, ge=0)


class Variant(_Strict):
    """One way to train, at every seed and length."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    deduplicate: bool = Field(default=False, description="train on one row of each near-duplicate cluster")
    canaries: int = Field(default=0, ge=0, description="noise images at each of 1, 2, 4 .. 64 copies")
    seeds: tuple[int, ...] | None = None
    lengths: tuple[int, ...] | None = None
    recipe: dict[str, Any] = {}


class StudyPlan(_Strict):
    """A grid of small models. The first variant is the one that the others are compared with."""

    title: str
    data: str
    non_members: str
    once_seen: int | None = Field(default=None, ge=1, description="how many members without duplicates to keep")
    copies_at_most: int | None = Field(default=None, ge=1, description="bound on the rows of one image")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    lengths: tuple[int, ...] = Field(min_length=1, description="training lengths in steps; one training serves all")
    recipe: dict[str, Any] = {}
    audit: Measure = Measure()
    variant: tuple[Variant, ...] = Field(min_length=1)

    def recipe_of(self, variant: Variant, seed: int) -> Recipe:
        """The recipe of one training."""
        fields = {"steps": max(self.lengths_of(variant)), **self.recipe, **variant.recipe, "seed": seed}
        return TypeAdapter(Recipe).validate_python(fields)

    def seeds_of(self, variant: Variant) -> tuple[int, ...]:
        """The variant's own seeds, or the plan's."""
        return variant.seeds or self.seeds

    def lengths_of(self, variant: Variant) -> tuple[int, ...]:
        """The variant's own lengths, or the plan's, ascending."""
        return tuple(sorted({*(variant.lengths or self.lengths)}))

    @property
    def models(self) -> int:
        """How many models the plan asks for."""
        return sum(len(self.seeds_of(v)) * len(self.lengths_of(v)) for v in self.variant)


def load_plan(path: Path) -> StudyPlan:
    """Read and check a plan, every recipe included, before anything is trained.

    Raises
    ------
    NotFound : no such file.
    InvalidInput : not TOML, or an unknown or bad key; the message names it.
    """
    try:
        plan = StudyPlan.model_validate(tomllib.loads(path.read_text()))
        for variant in plan.variant:
            unknown = {*plan.recipe, *variant.recipe} - {field.name for field in dataclasses.fields(Recipe)}
            if unknown:
                raise ValueError(f"`recipe` has no field {', '.join(sorted(unknown))}")
            plan.recipe_of(variant, 0)
        names = [variant.name for variant in plan.variant]
        if len({*names}) < len(names):
            raise ValueError("two variants share a name")
    except OSError as error:
        raise NotFound(
            f"{path} cannot be read ({error.strerror}).", expected="a TOML study.", remedy="check the path."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _bad(path, f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error
    except VestigeError as error:
        raise _bad(path, error.found) from error
    except ValueError as error:
        raise _bad(path, str(error)) from error
    return plan


def _bad(path: Path, what: str) -> InvalidInput:
    return InvalidInput(
        f"The study {path} has a fault: {what}.",
        expected="title, data, non_members, lengths and at least one [[variant]] with a name; "
        f"[recipe] knows {', '.join(field.name for field in dataclasses.fields(Recipe))}.",
        remedy="correct it; studies/digits.toml is an example.",
    )

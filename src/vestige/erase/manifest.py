"""What an increment is, without its weights; and what it must stand after.

Most increments are made for a bare base. One that was trained on top of others (``after``) belongs after them, in
their order and at scale 1: only then does the model become what the training saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vestige.digest import digest_json, short
from vestige.erase import encoding
from vestige.errors import InvalidInput, Unsupported


class _Version(BaseModel):
    """The one field that every format of a manifest has."""

    format: int = encoding.DENSE


class Manifest(BaseModel):
    """What an increment is, without its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = encoding.DENSE
    """How the weights' change is written: see :mod:`vestige.erase.encoding`."""
    name: str
    base: str
    """Digest of the model that the increment belongs to."""
    method: str
    settings: dict[str, Any]
    forgotten: list[str] = []
    """Row ids that it makes the model forget."""
    after: list[str] = []
    """Digests of the increments on top of which it was trained, in order."""
    parts: list[str] = []
    """Digests of the increments it was composed from, in order."""
    delta: str
    """Digest of the weights' change."""
    cost: dict[str, float] = {}

    @property
    def digest(self) -> str:
        """Names the increment: base, change and all else here, but not how the change is written."""
        content = self.model_dump() | {"format": encoding.DENSE}
        # Without this, increments from before the field would go by another name now.
        return digest_json(content if self.after else {k: v for k, v in content.items() if k != "after"})

    @staticmethod
    def read(text: bytes, folder: Path) -> Manifest:
        """The manifest of the increment in a folder, from its JSON.

        Raises
        ------
        ValueError : the text is no manifest.
        Unsupported : a newer vestige wrote it, in a format that this one does not know.
        """
        version = _Version.model_validate_json(text).format
        if version not in encoding.FORMATS:
            raise Unsupported(
                f"The increment in {folder} has format {version}.",
                expected=f"a format up to {max(encoding.FORMATS)}, which this vestige reads.",
                remedy="install the vestige that wrote it, or a newer one.",
            )
        return Manifest.model_validate_json(text)


def provides(manifest: Manifest, scale: float) -> list[str]:
    """Digests of the increments that are applied in full by applying this increment, in order.

    Its own and, for a composition, those of its parts; none unless the scale is 1.
    """
    if scale != 1:
        return []
    scales = manifest.settings.get("scales")
    parts = zip(manifest.parts, scales if isinstance(scales, list) else [], strict=False)
    return [*(part for part, own in parts if own == 1), manifest.digest]


def in_order(wanted: Sequence[str], held: Sequence[str]) -> bool:
    """Whether all that is wanted is held, in that order."""
    rest = iter(held)
    return all(digest in rest for digest in wanted)


def after_of(parts: Sequence[tuple[Manifest, float]]) -> list[str]:
    """Digests of what the parts of a composition need and do not provide, in an order that suits them all.

    Raises
    ------
    InvalidInput : a part would not come after what it needs.
    """
    inside = {digest for part, _ in parts for digest in (part.digest, *part.parts)}
    held: list[str] = []
    order: TopologicalSorter[str] = TopologicalSorter()
    for part, scale in parts:
        needs = part.after
        outside = [digest for digest in needs if digest not in inside]
        # What the composition is applied on top of comes before all of its parts, so those stand last.
        if not in_order(needs[len(outside) :], held):
            raise _out_of_order(part)
        for place, digest in enumerate(outside):
            order.add(digest, *outside[max(place - 1, 0) : place])
        held += provides(part, scale)
    try:
        return list(order.static_order())
    except CycleError as error:
        raise _out_of_order(parts[-1][0]) from error


def _out_of_order(part: Manifest) -> InvalidInput:
    return InvalidInput(
        f"The increment '{part.name}' would not come after what it was trained on top of.",
        expected=f"{', '.join(map(short, part.after))}, in this order and at scale 1: "
        "first those that are not composed, then those that are.",
        remedy="name the increments in the order in which they were made, without a gap.",
    )

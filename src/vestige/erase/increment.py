"""Increments: named changes of weights, bound to the base they were made for.

An increment holds ``delta = new - base`` for every weight that moved. Applying adds
deltas to the base in the order given; nothing is ever subtracted, so the base comes back
bit for bit by using the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vestige.digest import digest_tensors, short
from vestige.erase import encoding
from vestige.erase.encoding import Factors
from vestige.erase.manifest import Manifest, after_of
from vestige.errors import (
    AlreadyExists,
    BadWeights,
    CorruptFile,
    DigestMismatch,
    InvalidInput,
    NotFound,
    NothingChanged,
)
from vestige.store import write_bytes, write_text

MANIFEST, WEIGHTS = "increment.json", "increment.safetensors"


@dataclass(frozen=True, eq=False)
class Increment:
    """A change of weights with its manifest."""

    manifest: Manifest
    delta: dict[str, Tensor]
    factors: dict[str, Factors] = field(default_factory=dict[str, Factors])
    """Low-rank factors of the changes that are such products, bit for bit; only they are written then."""

    @staticmethod
    def between(
        base: nn.Module,
        changed: nn.Module,
        *,
        name: str,
        base_digest: str,
        method: str,
        settings: Mapping[str, Any],
        forgotten: Sequence[str] = (),
        cost: Mapping[str, float] | None = None,
        after: Sequence[str] = (),
    ) -> Increment:
        """The difference of two networks of one architecture, weights that did not move left out.

        ``base_digest`` is that of the model without any increment, ``after`` names those it already carries.

        Raises
        ------
        NothingChanged : no weight moved.
        BadWeights : a weight became NaN or infinite.
        """
        before = base.state_dict()
        delta = {
            key: (value.detach() - before[key]).cpu()
            for key, value in changed.state_dict().items()
            if value.is_floating_point() and not torch.equal(value, before[key])
        }
        if not any(bool(d.count_nonzero()) for d in delta.values()):
            raise NothingChanged(
                f"{method} moved no weight.",
                expected="a change.",
                remedy="raise the learning rate or the number of steps, or check the forget set.",
            )
        for key, change in delta.items():
            if not bool(torch.isfinite(change).all()):
                raise BadWeights(
                    f"{method} turned {key} into NaN or infinity.",
                    expected="finite weights.",
                    remedy="lower the learning rate.",
                )
        return Increment(
            Manifest(
                format=encoding.format_of(delta),
                name=name,
                base=base_digest,
                method=method,
                settings=dict(settings),
                forgotten=list(forgotten),
                after=list(after),
                delta=digest_tensors(delta),
                cost=dict(cost or {}),
            ),
            delta,
        )

    @property
    def digest(self) -> str:
        """Digest of the manifest, which names base and delta. How the weights are written does not enter it."""
        return self.manifest.digest

    def norm(self) -> float:
        """Euclidean norm of the change."""
        return float(sum(d.double().square().sum() for d in self.delta.values())) ** 0.5

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write the increment as a folder of safetensors and a manifest, each weight the shorter way.

        Raises
        ------
        AlreadyExists : the folder holds an increment and ``overwrite`` is false.
        """
        if (folder / MANIFEST).exists() and not overwrite:
            raise AlreadyExists(
                f"{folder} already holds an increment.",
                expected="a new folder.",
                remedy="choose another --out, or pass --overwrite.",
            )
        content, version = encoding.write(self.delta, self.factors)
        write_bytes(folder / WEIGHTS, content)
        manifest = self.manifest.model_copy(update={"format": version})
        write_text(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> Increment:
        """Read a folder written by :meth:`save`.

        Raises
        ------
        NotFound : no increment there.
        CorruptFile : the manifest or the weights are damaged, or do not belong together.
        Unsupported : a newer vestige wrote it in a format that this one does not know.
        """
        if not (folder / MANIFEST).is_file():
            raise NotFound(
                f"{folder} holds no {MANIFEST}.",
                expected="a folder written by `vestige erase`.",
                remedy="check the path; `vestige increments list FOLDER` shows what a folder holds.",
            )
        try:
            text = (folder / MANIFEST).read_bytes()
            manifest = Manifest.read(text, folder)
            delta, factors = encoding.read_factored((folder / WEIGHTS).read_bytes(), manifest.format)
        except (ValueError, OSError) as error:
            raise CorruptFile(
                f"The increment in {folder} cannot be read ({str(error).splitlines()[0]}).",
                expected="the files that `vestige erase` wrote.",
                remedy="copy the folder again or repeat the erasure.",
            ) from error
        if digest_tensors(delta) != manifest.delta:
            raise CorruptFile(
                f"The weights in {folder} are not those its manifest names.",
                expected=f"a change with digest {short(manifest.delta)}.",
                remedy="copy the folder again or repeat the erasure.",
            )
        return Increment(manifest, delta, factors)

    def check_base(self, base_digest: str) -> None:
        """Raise DigestMismatch unless the increment was made for this base."""
        if self.manifest.base != base_digest:
            raise DigestMismatch(
                f"The increment '{self.manifest.name}' was made for the model {short(self.manifest.base)}, "
                f"this one is {short(base_digest)}.",
                expected="the model that the increment names as its base.",
                remedy="pass that model, or repeat the erasure on this one; an increment fits no other weights.",
            )


def add(module: nn.Module, increments: Sequence[tuple[Increment, float]]) -> None:
    """Add scaled increments to a base network in place.

    Sums are computed in float64 and rounded once, so that the order makes no difference to a float32 network. Weights
    that an increment leaves alone, or that a scale of 0 would, keep their bits.

    Raises
    ------
    DigestMismatch : an increment names a weight that the network does not have.
    """
    state = module.state_dict()
    changes: dict[str, list[tuple[Tensor, float]]] = {}
    for increment, scale in increments:
        for name, delta in increment.delta.items() if scale else ():
            if name not in state or state[name].shape != delta.shape:
                raise DigestMismatch(
                    f"The increment '{increment.manifest.name}' changes {name}, which the model does not have "
                    "in that shape.",
                    expected="the architecture of the increment's base.",
                    remedy="pass the base that the increment was made for.",
                )
            changes.setdefault(name, []).append((delta, scale))
    with torch.no_grad():
        for name, several in changes.items():
            weight = state[name]
            parts = [delta.to(weight) * scale for delta, scale in several]
            total = torch.stack([weight, *parts]).double().sum(0).to(weight.dtype)
            # -0.0 + 0.0 is 0.0: adding nothing would still flip a sign bit.
            moved = torch.stack([part != 0 for part in parts]).any(0)
            weight.copy_(torch.where(moved, total, weight))


def compose(increments: Sequence[Increment], name: str, scales: Sequence[float] | None = None) -> Increment:
    """One increment that does what several do together: the sum of their scaled deltas, in order.

    What its parts were trained on top of and do not bring themselves, it is trained on top of.

    Raises
    ------
    InvalidInput : none given, or a part stands before another that it was trained on top of, or beside a scaled one.
    DigestMismatch : they belong to different bases.
    """
    if not increments:
        raise InvalidInput("No increment was given.", expected="at least one.", remedy="name the folders to compose.")
    weights = [1.0] * len(increments) if scales is None else list(scales)
    delta: dict[str, Tensor] = {}
    for increment, scale in zip(increments, weights, strict=True):
        increment.check_base(increments[0].manifest.base)
        for key, change in increment.delta.items():
            delta[key] = delta[key] + scale * change if key in delta else scale * change
    manifests = [i.manifest for i in increments]
    return Increment(
        Manifest(
            format=encoding.format_of(delta),
            name=name,
            base=manifests[0].base,
            method="compose",
            settings={"parts": [m.name for m in manifests], "scales": weights},
            forgotten=sorted({row for m in manifests for row in m.forgotten}),
            after=after_of(list(zip(manifests, weights, strict=True))),
            parts=[i.digest for i in increments],
            delta=digest_tensors(delta),
        ),
        delta,
    )

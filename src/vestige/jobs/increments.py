"""``vestige increments``: show, apply, remove and compose increments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vestige.digest import short
from vestige.erase.applied import check_after, open_base, read_applied, without, write_applied
from vestige.erase.concept.compatible import check_compatible
from vestige.erase.increment import MANIFEST, Increment, compose
from vestige.errors import NotFound
from vestige.jobs.resolve import zoo_entry
from vestige.models.adapters.diffusers import is_pipeline_folder
from vestige.record import Cell, Table
from vestige.zoo.pipelines import PIPELINES, zoo_pipeline

Scaled = tuple[Increment, float]


def model_folder(model: str | Path) -> Path:
    """The diffusers folder behind a zoo name or path.

    Raises
    ------
    NotFound : no such model.
    """
    entry = zoo_entry(model)
    if model in PIPELINES:
        entry = zoo_pipeline(str(model))
    folder = entry.folder if entry is not None else Path(model)
    if not folder.is_dir():
        raise NotFound(f"There is no model at {folder}.", expected="a diffusers folder.", remedy="check the path.")
    return folder


def describe_increments(paths: Sequence[Path]) -> Table:
    """A table of the increments in the given folders: increments themselves, or models with some applied."""
    rows: list[list[Cell]] = []
    for path in (found for given in paths for found in _opened(given)):
        if (path / MANIFEST).is_file():
            rows.append(_row(str(path), Increment.load(path), None))
        elif is_pipeline_folder(path):
            note = read_applied(path)
            _, layers = open_base(path)
            rows += [_row(str(path), increment, scale) for increment, scale in layers]
            if note is None:
                rows.append([str(path), "no increment applied", *[None] * 7])
        else:
            raise NotFound(
                f"{path} holds neither an increment nor a model.",
                expected="a folder written by `vestige erase` or `vestige increments apply`.",
                remedy="check the path.",
            )
    columns = ["where", "name", "method", "base", "forgets", "norm of change", "scale", "digest", "built on"]
    return Table(name="increments", title="Increments", columns=columns, rows=rows)


def _opened(path: Path) -> list[Path]:
    """The folder itself, or those of the increments in it if it only gathers some."""
    gathered = [found.parent for found in sorted(path.glob(f"*/{MANIFEST}"))]
    plain = (path / MANIFEST).is_file() or is_pipeline_folder(path)
    return [path] if plain or not gathered else gathered


def _row(where: str, increment: Increment, scale: float | None) -> list[Cell]:
    manifest = increment.manifest
    return [
        where,
        manifest.name,
        manifest.method,
        short(manifest.base),
        len(manifest.forgotten),
        round(increment.norm(), 4),
        scale,
        short(manifest.digest),
        ", ".join(map(short, manifest.after)) or None,
    ]


def apply_increments(
    model: str | Path,
    increments: Sequence[Path],
    *,
    out: str | Path,
    scale: float = 1.0,
    null_condition: int | None = None,
    overwrite: bool = False,
) -> str:
    """Write the model with increments added, after those it already has; returns the new digest.

    ``null_condition`` is that of the audit, where the model's folder does not state it.

    Raises
    ------
    DigestMismatch : an increment belongs to another base.
    InvalidInput : an increment would not come after those it was trained on top of, or erases a concept once more.
    AlreadyExists : ``out`` is not empty.
    """
    base, layers = open_base(model_folder(model), null_condition=null_condition)
    new = [(Increment.load(path), scale) for path in increments]
    check_after(new, onto=layers)
    check_compatible([increment for increment, _ in [*layers, *new]])
    return write_applied(Path(out), base, [*layers, *new], overwrite=overwrite).digest


def remove_increments(
    model: str | Path, names: Sequence[str], *, out: str | Path, overwrite: bool = False
) -> tuple[str, bool]:
    """Write the model without the named increments (all, if none is named).

    Returns the new digest and whether it is the base's, bit for bit.

    Raises
    ------
    NotFound : an increment of that name is not applied.
    """
    base, layers = open_base(model_folder(model))
    for name in names:
        layers = without(layers, name)
    digest = write_applied(Path(out), base, layers if names else [], overwrite=overwrite).digest
    return digest, digest == base.digest


def compose_increments(
    increments: Sequence[Path], *, out: str | Path, name: str | None = None, overwrite: bool = False
) -> Increment:
    """Write one increment that does what several do together.

    Raises
    ------
    DigestMismatch : they belong to different bases.
    InvalidInput : two of them erase one concept.
    """
    parts = [Increment.load(path) for path in increments]
    check_compatible(parts)
    whole = compose(parts, name or Path(out).name)
    whole.save(Path(out), overwrite=overwrite)
    return whole

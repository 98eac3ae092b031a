"""What a search leaves as files: images in the order of their rarity, a sheet of them, latents, and rows of numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import save

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.data.images import to_uint8
from vestige.jobs.audit import Findings
from vestige.jobs.rare_methods import Comparison
from vestige.jobs.rare_pictures import save_images, save_sheet
from vestige.jobs.rare_results import Results
from vestige.jobs.rare_stage import read_reference
from vestige.jobs.rare_ways import Pixels
from vestige.store import write_bytes, write_text


def rarest_first(comparison: Comparison) -> npt.NDArray[np.int64]:
    """Places of the found images in the order of the page: accepted ones first, by falling rarity."""
    measured = comparison.chosen.measured
    if measured is None:
        return np.empty(0, np.int64)
    outside = ~measured.accepted[measured.present]
    return np.lexsort((measured.percentile[measured.present], outside)).astype(np.int64)


def copied_ones(audited: Findings | None) -> npt.NDArray[np.bool_]:
    """Which of the found images the audit takes for copies."""
    if audited is None:
        return np.zeros(0, np.bool_)
    generated = audited.collected[GenerateAndFilter.__name__]
    return generated.members.copies(GenerateAndFilter().delta)


def near(found: Results, reference: str | Path | None) -> Pixels | None:
    """The reference image and what the latent found for it makes, uint8 [2, c, h, w]; None without one."""
    inverted = found.stage.inverted
    if reference is None or inverted is None:
        return None
    made = to_uint8(found.opened.generator.made(inverted.latents, inverted.labels))
    return np.concatenate([read_reference(reference, found.stage.real.shape), made])


def write_files(found: Results, order: npt.NDArray[np.int64], copied: npt.NDArray[np.bool_], out: Path) -> None:
    """Images, contact sheet, latents and rows; nothing where nothing was found."""
    chosen = found.comparison.chosen
    if chosen.measured is None:
        return
    accepted = chosen.measured.accepted[chosen.measured.present]
    save_images(chosen.pixels, order, out)
    kinds = ["copied" if copied[i] else "accepted" if accepted[i] else "outside" for i in order]
    save_sheet(chosen.pixels[order], kinds, out / "sheet.png")
    references = found.stage.references
    if chosen.latents is not None:
        latents, labels = chosen.latents.flat(references)
        tensors = {"latents": latents[order].cpu().contiguous()}
        tensors |= {} if labels is None else {"labels": labels[order].cpu().contiguous()}
        write_bytes(out / "latents.safetensors", save(tensors))
    write_text(out / "rows.jsonl", "\n".join(json.dumps(row) for row in _rows(found, order, copied)) + "\n")


def _rows(found: Results, order: npt.NDArray[np.int64], copied: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """One line a found image, in the order of the files."""
    measured, score = found.comparison.chosen.measured, found.scores[found.comparison.chosen.name]
    if measured is None:
        return []
    place = np.argwhere(measured.present)
    lines: list[dict[str, Any]] = []
    for rank, row in enumerate(order):
        at = tuple(place[row])
        line: dict[str, Any] = {
            "image": f"images/{rank + 1:04d}.png",
            "group": int(at[0]),
            "inside": bool(measured.inside[at]),
            "within_reach": bool(measured.within[at]),
            "log_density": float(measured.log_density[at]),
            "density_percentile": float(measured.percentile[at]),
            "rarity": _known(measured.rarity[at]),
            "rarity_percentile": _known(measured.rarity_percentile[at]),
            "distance": _known(measured.distance[at]),
            "copy": bool(copied[row]),
        }
        if score is not None:
            near = score.near
            line |= {
                "second_space_rarity": _known(near.rarity.scores[row]),
                "second_space_percentile": _known(near.rarity.percentiles[row]),
            }
            if near.training is not None:
                line |= {
                    "nearest_training_distance": float(near.training.nearest[row]),
                    "authentic": bool(near.training.authentic[row]),
                }
        lines.append(line)
    return lines


def _known(value: Any) -> float | None:
    """A number of an array; None where it is not finite."""
    return float(value) if np.isfinite(value) else None

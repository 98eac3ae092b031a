"""Pictures of a search: the contact sheet and single images as files, strips and pairs for the page."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vestige.jobs.rare_methods import Comparison, Pixels
from vestige.jobs.rare_sweep import Swept
from vestige.report.evidence import Strip
from vestige.store.write import write_bytes

COLUMNS, GAP, LEAST = 16, 2, 48
"""Images in a row of the sheet, pixels between them, and the side that small ones are enlarged to."""

_FRAMES = {"accepted": (255, 255, 255), "outside": (226, 145, 40), "copied": (200, 30, 40)}
_SHOWN = 10


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An image uint8 [h, w, c] or [h, w] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def save_images(pixels: Pixels, order: npt.NDArray[np.int64], folder: Path) -> None:
    """``images/0001.png`` and so on, in the given order."""
    for rank, row in enumerate(order):
        write_bytes(folder / "images" / f"{rank + 1:04d}.png", png(np.moveaxis(pixels[row], 0, -1)))


def save_sheet(pixels: Pixels, kinds: list[str], path: Path) -> None:
    """Images [n, c, h, w] in rows, in the given order; frames tell ``accepted``, ``outside`` and ``copied`` apart."""
    n, _, height, width = pixels.shape
    zoom = max(1, -(-LEAST // max(height, width)))
    columns = min(COLUMNS, n)
    cell = np.array([height, width]) * zoom + 2 * GAP
    rows = -(-n // columns)
    sheet = np.full((*(cell * (rows, columns) + GAP * np.array([rows + 1, columns + 1])), 3), 255, np.uint8)
    for place in range(n):
        top, left = (cell + GAP) * divmod(place, columns) + GAP
        sheet[top : top + cell[0], left : left + cell[1]] = _FRAMES[kinds[place]]
        image = np.moveaxis(pixels[place], 0, -1).repeat(zoom, 0).repeat(zoom, 1)
        sheet[top + GAP : top + cell[0] - GAP, left + GAP : left + cell[1] - GAP] = image
    write_bytes(path, png(sheet))


def strips(
    pixels: Pixels, comparison: Comparison, swept: list[Swept], reference: Pixels | None
) -> dict[str, list[Strip]]:
    """Strips by section: the found ones rarest first, some of every other method, and the sweep of each control.

    ``pixels`` are those found, in the order in which they are to be shown.
    """
    shown: dict[str, list[Strip]] = {}
    count = min(_SHOWN, len(pixels))
    cuts = [pixels[i : i + count] for i in range(0, len(pixels), count)]
    titles = [f"{i * count + 1} to {i * count + len(part)}" for i, part in enumerate(cuts)]
    found = [
        Strip(title + (", rarest first" if not i else ""), _last(part))
        for i, (title, part) in enumerate(zip(titles, cuts, strict=True))
    ]
    if reference is not None:
        found.insert(0, Strip("The reference", _last(reference), "Real image; what its latent makes is beside it."))
    shown["found"] = found
    shown["beside"] = [Strip(tried.name, _last(_some(tried.pixels))) for tried in comparison.every if len(tried.pixels)]
    for control in dict.fromkeys(s.control for s in swept):
        shown[f"sweep_{control}"] = [
            Strip(f"{control} {s.value:g}", _last(s.pixels)) for s in swept if s.control == control
        ]
    return shown


def _some(pixels: Pixels) -> Pixels:
    """A few of all groups, evenly."""
    return pixels[np.linspace(0, len(pixels) - 1, min(_SHOWN, len(pixels))).round().astype(np.int64)]


def _last(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(np.moveaxis(pixels, 1, -1))

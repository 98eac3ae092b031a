"""A portrait as a PNG: the picture, enlarged, and the vector's code under it."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from vestige.fingerprint.portrait.code import VectorCode

SIDE, BORDER, LINE = 384, 24, 30
PAPER, INK, PALE = (250, 249, 246), (32, 32, 32), (120, 120, 120)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font of equal widths that comes with matplotlib, so that it is the same everywhere."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf", size)


def enlarged(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    """Pixels [c, h, w], grey or RGB, as a picture of ``side`` pixels, smoothly."""
    rows = np.broadcast_to(np.moveaxis(pixels, 0, -1), (*pixels.shape[1:], 3))
    return Image.fromarray(np.ascontiguousarray(rows)).resize((side, side), Image.Resampling.BICUBIC)


def plate(pixels: npt.NDArray[np.uint8], code: VectorCode, painter: str) -> bytes:
    """The PNG; its text fields hold both codes and the painter's digest."""
    sheet = Image.new("RGB", (SIDE + 2 * BORDER, SIDE + 3 * BORDER + 2 * LINE), PAPER)
    sheet.paste(enlarged(pixels, SIDE), (BORDER, BORDER))
    draw = ImageDraw.Draw(sheet)
    for line, (name, letters) in enumerate((("kin", code.kin), ("exact", code.exact))):
        height = SIDE + 2 * BORDER + line * LINE
        draw.text((BORDER, height), name, PALE, _font(18))
        draw.text((SIDE + BORDER, height), letters, INK, _font(22), anchor="ra")
    fields = PngInfo()
    for name, text in (("kin", code.kin), ("exact", code.exact), ("painter", painter)):
        fields.add_text(f"vestige:{name}", text)
    file = io.BytesIO()
    sheet.save(file, "PNG", pnginfo=fields)
    return file.getvalue()


def table(pictures: npt.NDArray[np.uint8], columns: list[str], rows: list[str], side: int = 96) -> Image.Image:
    """A contact sheet of pictures [rows, columns, c, h, w] with a heading over every column and beside every row."""
    margin, gap = 74, 6
    sheet = Image.new("RGB", (margin + len(columns) * (side + gap), LINE + len(rows) * (side + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(columns):
        draw.text((margin + place * (side + gap) + side // 2, LINE - 8), name, INK, _font(13), anchor="ms")
    for row, name in enumerate(rows):
        height = LINE + row * (side + gap)
        draw.text((margin - 8, height + side // 2), name, INK, _font(13), anchor="rm")
        for place in range(len(columns)):
            sheet.paste(enlarged(pictures[row, place], side), (margin + place * (side + gap), height))
    return sheet

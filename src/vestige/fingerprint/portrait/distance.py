"""How different two pictures look: colour differences at several sizes of detail."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.fingerprint.portrait.public import Doubles

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _TO_XYZ.sum(1)
_TO_OPPONENT = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
_COARSEST = 4


def lab(pixels: npt.NDArray[np.uint8]) -> Doubles:
    """CIE L*a*b* (D65) of sRGB images uint8 [n, 3 or 1, h, w], as [n, 3, h, w]; L* is 0 to 100."""
    values = np.broadcast_to(pixels, (len(pixels), 3, *pixels.shape[2:])).astype(np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    relative = np.einsum("ij,njhw->nihw", _TO_XYZ, linear) / _WHITE[:, None, None]
    bent = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    colours = np.einsum("ij,njhw->nihw", _TO_OPPONENT, bent)
    colours[:, 0] -= 16
    return colours


def _levels(colours: Doubles) -> Iterator[Doubles]:
    """The images, then those of half the side, down to 4 pixels, as rows at unit mean square a pixel."""
    while True:
        yield colours.reshape(len(colours), -1) / np.sqrt(colours.shape[2] * colours.shape[3])
        if min(colours.shape[2:]) < 2 * _COARSEST:
            return
        even = colours[:, :, : colours.shape[2] // 2 * 2, : colours.shape[3] // 2 * 2]
        colours = (even[:, :, ::2, ::2] + even[:, :, 1::2, ::2] + even[:, :, ::2, 1::2] + even[:, :, 1::2, 1::2]) / 4


def looks_apart(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> Doubles:
    """Distances [m, n] between how images [m, c, h, w] and [n, c, h, w] look, in units of Delta E (CIE 1976).

    The root mean square colour difference over the pixels, averaged over the images and all their halvings down to 4
    pixels: what differs in large areas counts at every size, what differs in fine detail at one. 2 is about the
    smallest difference that is seen side by side. A stand-in for a learned metric, in the spirit of S-CIELAB (Zhang and
    Wandell 1997): colours as the eye separates them, at the sizes at which it looks.

    Raises
    ------
    InvalidInput : they are no uint8 images of one size.
    """
    sound = all(
        pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.size and pixels.shape[1] in (1, 3)
        for pixels in (first, second)
    )
    if not sound or first.shape[1:] != second.shape[1:]:
        raise InvalidInput(
            f"Images of {first.dtype} {first.shape} and of {second.dtype} {second.shape} were to be compared.",
            expected="uint8 [n, 1 or 3, h, w], at least one each and all of one size.",
            remedy="pass the pixels of portraits by one painter.",
        )
    found, count = np.zeros((len(first), len(second))), 0
    for left, right in zip(_levels(lab(first)), _levels(lab(second)), strict=True):
        squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
        found, count = found + np.sqrt(np.maximum(squares, 0)), count + 1
    return found / count

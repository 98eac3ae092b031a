"""Rotary frequencies as settings describe them, stretched for longer texts or not.

Plain frequencies are f_i = base^(-2i / width) (Su et al. 2021, arXiv 2104.09864).
"""

from __future__ import annotations

from math import ceil, floor, log, pi, sqrt

import numpy as np
import numpy.typing as npt

from vestige.errors import Unsupported
from vestige.models.transformer.block import Rotary
from vestige.models.transformer.settings import Settings

Frequencies = npt.NDArray[np.float64]

KNOWN = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
_TRAINED = "original_max_position_embeddings"
_SHARES = ("partial_rotary_factor", "rotary_pct")
_BASES = ("rope_theta", "rotary_emb_base")


def rotary(settings: Settings, head_width: int, layer: str | None = None) -> Rotary:
    """Rotary embedding of a head from a configuration of transformers, old layout or new.

    Parameters
    ----------
    settings : with ``rope_parameters`` or ``rope_theta`` and ``rope_scaling``.
    head_width : entries of a head.
    layer : the kind of layer (``full_attention``, ``sliding_attention``) where kinds have parameters of their own.

    Dynamic scaling leaves texts within the trained length alone, and LongRoPE takes its short factors for them; both
    are read as of such a length. Raises CorruptFile or Unsupported.
    """
    given = settings.part("rope_parameters")
    if given is not None and layer is not None and given.has(layer):
        given = given.part(layer)
    given = given or settings.part("rope_scaling") or Settings({}, settings.origin)
    share = next((s.number(name) for s in (given, settings) for name in _SHARES if s.has(name)), 1.0)
    width = int(head_width * share)
    if width % 2 or not 0 < width <= head_width:
        raise settings.wrong("partial_rotary_factor", share, "a share of each head with an even number of entries")
    base = next((s.number(name) for s in (given, settings) for name in _BASES if s.has(name)), 10000.0)
    longest = settings.number("max_position_embeddings", default=2048)
    trained = next((s.number(_TRAINED) for s in (given, settings) if s.has(_TRAINED)), longest)
    return stretched(given, base, width, longest, trained)


def plain(base: float, width: int) -> Frequencies:
    """f_i [width / 2]."""
    return base ** (-np.arange(0, width, 2) / width)


def stretched(given: Settings, base: float, width: int, longest: float, trained: float) -> Rotary:
    """Rotary embedding of ``width`` entries, stretched as ``given`` says under ``rope_type``, or plain.

    ``longest`` and ``trained`` are lengths of texts, now and before stretching. Raises CorruptFile or Unsupported.
    """
    for name, value in (("the base of rotary embeddings", base), (_TRAINED, trained)):
        if value <= 1:
            raise given.wrong(name, value, "a number above 1")
    kind = given.text("rope_type", "type", default="default")
    if kind in ("default", "dynamic"):
        return Rotary(base, width)
    frequencies, magnitude = _scaled(kind, given, base, width, given.number_if("factor") or longest / trained, trained)
    return Rotary(base, width, frequencies=tuple(frequencies.tolist()), magnitude=magnitude)


def _scaled(
    kind: str, given: Settings, base: float, width: int, factor: float, trained: float
) -> tuple[Frequencies, float]:
    """Frequencies and magnitude of a stretched embedding."""
    frequencies = plain(base, width)
    if kind == "linear":
        return frequencies / given.number("factor"), 1.0
    if kind == "llama3":
        return _llama3(frequencies, given, trained), 1.0
    if kind == "yarn":
        return _yarn(frequencies, given, factor, trained, base), _yarn_magnitude(given, factor)
    if kind in ("longrope", "su"):
        short = np.array(given.numbers("short_factor") or ())
        if short.shape != frequencies.shape or not (short > 1e-9).all():
            raise given.wrong("short_factor", short.tolist(), f"{len(frequencies)} positive numbers")
        magnitude = sqrt(1 + log(factor) / log(trained)) if factor > 1 else 1.0
        return frequencies / short, given.number_if("attention_factor") or magnitude
    raise Unsupported(
        f"{given.origin} asks for rotary embeddings of the kind {kind[:60]!r}.",
        expected=f"one of {', '.join(KNOWN)}.",
        remedy="open a model of a known architecture.",
    )


def _llama3(frequencies: Frequencies, given: Settings, trained: float) -> Frequencies:
    """Waves that fit into the trained text fewer than ``low`` times are stretched, those that fit ``high`` times kept.

    Source: Llama 3.1's reference code, as its model card describes it.
    """
    low, high = given.number("low_freq_factor"), given.number("high_freq_factor")
    turns = trained * frequencies / (2 * pi)
    kept = np.clip((turns - low) / (high - low), 0, 1) if high > low else (turns >= low).astype(np.float64)
    return frequencies * (kept + (1 - kept) / given.number("factor"))


def _yarn(frequencies: Frequencies, given: Settings, factor: float, trained: float, base: float) -> Frequencies:
    """Pairs that turn often within the trained text are kept, the others stretched (arXiv 2309.00071)."""
    width = 2 * len(frequencies)

    def pair(turns: float) -> float:
        """The pair, as a fraction, that turns so often within the trained text."""
        return width * log(trained / (2 * pi * turns)) / (2 * log(base))

    low, high = pair(given.number("beta_fast", default=32.0)), pair(given.number("beta_slow", default=1.0))
    if given.flag("truncate", default=True):
        low, high = floor(low), ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    share = np.clip((np.arange(len(frequencies)) - low) / (high - low or 0.001), 0, 1)
    return frequencies * (1 - share + share / factor)


def _yarn_magnitude(given: Settings, factor: float) -> float:
    """0.1 log(factor) + 1, or what the settings say."""
    chosen = given.number_if("attention_factor")
    if chosen is not None:
        return chosen
    above, below = given.number_if("mscale"), given.number_if("mscale_all_dim")

    def magnitude(share: float) -> float:
        return 0.1 * share * log(factor) + 1 if factor > 1 else 1.0

    return magnitude(above) / magnitude(below) if above and below else magnitude(1.0)

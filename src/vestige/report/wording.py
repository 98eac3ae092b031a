"""Numbers, intervals, names and sizes as a reader should see them; shared by page and terminal."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from vestige.record import Estimate, Verdict

NOT_MEASURED = "not measured"

VERDICT_TITLE = {
    Verdict.PASS: "Pass",
    Verdict.FINDING: "Finding",
    Verdict.INCONCLUSIVE: "Inconclusive",
    Verdict.NONE: "No verdict",
}
VERDICT_MEANING = {
    Verdict.PASS: "Every check of the policy was met.",
    Verdict.FINDING: "At least one check of the policy was not met.",
    Verdict.INCONCLUSIVE: "The evidence cannot support a pass or a finding.",
    Verdict.NONE: "This run measures and does not judge.",
}

_ACRONYMS = frozenset(
    {"auc", "roc", "tpr", "fpr", "fnr", "fid", "kid", "mse", "rmse", "psnr", "ssim", "snr", "lid", "kl", "l2", "id"}
)
_MOST_GROUPS, _FIRST_GROUPS = 6, 4
_COMPARATORS = re.compile(r"(>=|<=|!=|=|>|<)")
_SYMBOL = {">=": "≥", "<=": "≤", "!=": "≠"}


def clean(text: str) -> str:
    """``text`` with control characters and lone surrogates replaced, so that a row name can neither steer
    a terminal nor break a document. Line feeds and tabs become spaces.
    """
    kept = (" " if c in "\n\t" else "\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    return "".join(kept)


def number(value: float | int | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits; integers exactly, thousands separated from 10,000 up.

    >>> number(0.12345), number(1234567), number(0.5), number(0.0000123), number(None)
    ('0.123', '1,234,567', '0.5', '1.23e-5', 'not measured')
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if isinstance(value, int):
        return _separated(str(int(value)))
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e9 or size < 1e-4:
        return _powers(value, digits)
    return _separated(_bare(f"{value:.{_decimals(size, digits)}f}"))


def together(values: Sequence[float | None], extra: int = 0) -> list[str]:
    """Several values of one quantity with the same number of decimals, so that they line up.

    The largest decides: it keeps three significant digits (plus ``extra``), and zeros that all of them end
    in are dropped. A value too small for those decimals is written on its own with two digits.

    >>> together([0.93, 0.9, 0.95]), together([0.0123, 0.00001, None])
    (['0.93', '0.90', '0.95'], ['0.0123', '1e-5', 'not measured'])
    """
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v != 0]
    if not sizes or max(sizes) >= 1e9:
        return [number(v) for v in values]
    if max(sizes) < 1e-3:
        return [_powers(v, 3) if v is not None and abs(v) in sizes else number(v) for v in values]
    # A rate of exactly 1 must not cost its interval a digit.
    decimals = (3 if max(sizes) == 1 else _decimals(max(sizes), 3)) + extra
    shared = {i: f"{v:.{decimals}f}" for i, v in enumerate(values) if _fits(v, decimals)}
    while decimals > 0 and all(s.endswith("0") for s in shared.values()):
        decimals -= 1
        shared = {i: s[:-1].rstrip(".") for i, s in shared.items()}
    return [_separated(shared[i]) if i in shared else number(v, 2) for i, v in enumerate(values)]


def reading(line: Estimate) -> tuple[str, str]:
    """Value and interval of a summary line: ``("0.93", "[0.90, 0.95]")``; an absent interval is empty."""
    value, low, high = (_bare_unit(v, s) for v, s in _pairs(line))
    if line.low is None and line.high is None:
        return (number(line.value) if line.value is not None else NOT_MEASURED), ""
    if line.high is None:
        return value, f"at least {low}"
    if line.low is None:
        return value, f"at most {high}"
    return value, f"[{low}, {high}]"


def sentence(line: Estimate) -> str:
    """A summary line in one phrase.

    >>> sentence(Estimate(name="auc", value=0.93, low=0.9, high=0.95, n=250))
    '0.93 [0.90, 0.95], n = 250'
    """
    value, interval = reading(line)
    spread = f" {interval}" if interval else ""
    unit = f" {clean(line.unit)}" if line.unit and line.value is not None else ""
    count = f", n = {number(line.n)}" if line.n is not None else ""
    note = f" ({clean(line.note)})" if line.value is None and line.note else ""
    return f"{value}{spread}{unit}{count}{note}"


def group_of(name: str) -> str:
    """The part of an estimate's name before the first slash; empty when there is none."""
    return name.partition("/")[0] if "/" in name else ""


def leading(names: Iterable[str]) -> set[str]:
    """The groups of numbers that open a report: all, or the first four where there are more than six."""
    found = list(dict.fromkeys(group_of(name) for name in names))
    return set(found if len(found) <= _MOST_GROUPS else found[:_FIRST_GROUPS])


def heading(name: str) -> str:
    """A name written for people.

    >>> heading("loss/tpr"), heading("FLIPD/others"), heading("nearest_neighbour"), heading("C_T")
    ('Loss · TPR', 'FLIPD · others', 'Nearest neighbour', 'C_T')
    """
    phrases = [_phrase(part) for part in clean(name).split("/") if part]
    text = " · ".join(phrases)
    first = phrases[0].split()[0] if phrases and phrases[0].split() else ""
    return text[0].upper() + text[1:] if first.islower() else text


def duration(seconds: float) -> str:
    """A span of time with its two leading units.

    >>> duration(0.25), duration(134), duration(7380)
    ('0.25 s', '2 min 14 s', '2 h 3 min')
    """
    if not math.isfinite(seconds) or seconds < 60:
        return f"{number(seconds)} s" if math.isfinite(seconds) else NOT_MEASURED
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def memory(size: int) -> str:
    """Bytes in binary units: ``memory(3 * 2**29) == "1.5 GiB"``."""
    scaled, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if scaled < 1024:
            break
        scaled, unit = scaled / 1024, larger
    return f"{number(scaled)} {unit}"


def moment(created: str) -> str:
    """An ISO 8601 time as "21 November 2025, 21:24 UTC"; anything else unchanged."""
    try:
        when = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return clean(created)
    when = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
    return f"{when.day} {_MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC"


# strftime("%B") follows the locale of the process; a report must not.
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _decimals(size: float, digits: int) -> int:
    return max(0, digits - 1 - math.floor(math.log10(size)))


def _powers(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{_bare(mantissa)}e{int(exponent)}"


def _bare(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _separated(text: str) -> str:
    whole, dot, rest = text.partition(".")
    if len(whole.lstrip("-")) < 5:
        return text
    return f"{int(whole):,}{dot}{rest}"


def _fits(value: float | None, decimals: int) -> bool:
    return value is not None and math.isfinite(value) and (value == 0 or round(value, decimals) != 0)


def _pairs(line: Estimate) -> list[tuple[float | None, str]]:
    values = [line.value, line.low, line.high]
    return list(zip(values, together(values), strict=True))


def _bare_unit(value: float | None, text: str) -> str:
    return str(int(value)) if value is not None and value in (0.0, 1.0) else text


def _phrase(part: str) -> str:
    """One part of a name: snake case and acronyms spelled, comparisons kept on one line."""
    pieces = (p.replace("_", " ") if p.islower() else p for p in _COMPARATORS.split(part.replace("@", " at ")))
    words = [[w.upper() if w.lower() in _ACRONYMS else w for w in piece.split()] for piece in pieces]
    # Comparators sit at the odd places of the split.
    joined = [f"\u00a0{_SYMBOL.get(w[0], w[0])}\u00a0" if i % 2 else " ".join(w) for i, w in enumerate(words)]
    return "".join(joined).strip()

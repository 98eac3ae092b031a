"""Turn a matplotlib canvas into an inline SVG whose colours and font are those of the page.

Matplotlib draws once with placeholder colours; here each placeholder becomes a CSS variable, so one drawing
serves light and dark. Identifiers get a prefix so that several drawings can share a page, fonts are inherited,
sizes come from ``viewBox``, and everything that names a time, a program or an address is dropped.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

SERIES_COLOURS = 6


class Ink(str, Enum):
    """Placeholder colour of each role; no other colour may reach the canvas."""

    TEXT = "#010101"
    SOFT = "#010102"
    GRID = "#010103"
    SERIES_1 = "#010111"
    SERIES_2 = "#010112"
    SERIES_3 = "#010113"
    SERIES_4 = "#010114"
    SERIES_5 = "#010115"
    SERIES_6 = "#010116"

    @property
    def css(self) -> str:
        """The CSS value that takes its place."""
        return f"var(--{self.name.lower().replace('_', '-')})"


def series_ink(index: int) -> Ink:
    """Colour of the ``index``-th series; colours repeat after six."""
    return Ink[f"SERIES_{index % SERIES_COLOURS + 1}"]


@contextmanager
def canvas(width: float, height: float) -> Generator[Canvas, None, None]:
    """A figure of ``width`` x ``height`` SVG units with the page's drawing settings.

    Settings that the process made for its own plots do not show, and are as they were afterwards.
    Not safe to use from several threads at once, as matplotlib's settings are global.
    """
    # Starting from the defaults matters: a user's style (dark background, LaTeX text) would survive otherwise.
    defaults: dict[Any, Any] = {k: v for k, v in mpl.rcParamsDefault.items() if not k.startswith("backend")}
    with warnings.catch_warnings():
        # The page's font draws the text; whether matplotlib's own font has a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        with mpl.rc_context({**defaults, **_settings()}):
            figure = Canvas(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
            FigureCanvasSVG(figure)
            yield figure


def markup(figure: Canvas, *, prefix: str, label: str) -> str:
    """Inline SVG of ``figure``; ``prefix`` must be unique on the page, ``label`` is read aloud."""
    for text in figure.findobj(Text):
        # A dollar sign in a name is a dollar sign.
        text.set_parse_math(False)
    buffer = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib has just written it
    _drop_foreign(root)
    box = root.attrib["viewBox"]
    for element in root.iter():
        _restyle(element, prefix)
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": label, "class": "chart"})
    return ElementTree.tostring(root, encoding="unicode")


def _settings() -> dict[Any, Any]:
    text, soft, grid = Ink.TEXT.value, Ink.SOFT.value, Ink.GRID.value
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "vestige",
        "font.size": 12.5,
        "axes.labelsize": 12.5,
        "axes.labelcolor": text,
        "text.color": text,
        "xtick.labelsize": 12,
        "ytick.labelsize": 12,
        "xtick.color": grid,
        "ytick.color": grid,
        "xtick.labelcolor": soft,
        "ytick.labelcolor": soft,
        "axes.edgecolor": grid,
        "axes.linewidth": 1.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-4, 6),
    }


def _drop_foreign(root: ElementTree.Element) -> None:
    """Remove metadata and the style sheet (it would apply to the whole page), and all namespaces."""
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
        if element.tag != "text":
            element.text = None
        element.tail = None


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _restyle(element: ElementTree.Element, prefix: str) -> None:
    attributes = element.attrib
    if element.tag == "g":
        attributes.pop("id", None)
    if "id" in attributes:
        attributes["id"] = f"{prefix}-{attributes['id']}"
    if attributes.get("href", "").startswith("#"):
        attributes["href"] = f"#{prefix}-{attributes['href'][1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = re.sub(r"url\(#", f"url(#{prefix}-", attributes["clip-path"])
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    if "style" in attributes:
        attributes["style"] = _style(attributes["style"])


def _style(style: str) -> str:
    """The style with page colours, and with the size of a font but not its family."""
    rules: list[str] = []
    for rule in filter(None, map(str.strip, style.split(";"))):
        size = re.search(r"[\d.]+px", rule)
        if rule.startswith("font:") and size:  # how matplotlib before 3.10 writes size and family
            rules.append(f"font-size: {size[0]}")
        elif not rule.startswith("font-family"):
            rules.append(rule)
    return _PLACEHOLDER.sub(lambda m: _CSS[m[0].lower()], "; ".join(rules))


_CSS = {ink.value: ink.css for ink in Ink}
_PLACEHOLDER = re.compile("|".join(_CSS), re.IGNORECASE)

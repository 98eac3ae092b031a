from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from importlib.resources import files
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from vestige.errors import InvalidInput
from vestige.record import Estimate, Figure, Match, NotDone, Record, Section, Series, Table, Verdict
from vestige.report.evidence import Evidence, Picture, Strip
from vestige.report.html import PAIRS_SHOWN, render

EVIL = '<script>alert(\'x\')</script>"&{{ 7*7 }}<img src="http://evil.example/a">'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects tags and text, and checks that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def evil_record(sample: ModuleType) -> Record:
    series = Series(name=EVIL, x=[EVIL, "b"], y=[1.0, 2.0])
    section = Section(
        name=EVIL,
        title=EVIL,
        text=[EVIL],
        tables=[Table(name=EVIL, title=EVIL, columns=[EVIL], rows=[[EVIL]], caption=EVIL)],
        figures=[Figure(name=EVIL, title=EVIL, kind="bars", series=[series], x_label=EVIL, y_label=EVIL, caption=EVIL)],
        matches=[Match(row=EVIL, generation=1, distance=0.1, picture=0)],
    )
    return sample.record().model_copy(
        update={
            "command": EVIL,
            "title": EVIL,
            "created": EVIL,
            "access": EVIL,
            "subject": {EVIL: EVIL, "digest": EVIL},
            "config": {EVIL: EVIL},
            "digests": {EVIL: EVIL},
            "seeds": {EVIL: 1},
            "reasons": [EVIL],
            "summary": [Estimate(name=f"{EVIL}", value=None, note=EVIL), Estimate(name=EVIL, value=1.0, unit=EVIL)],
            "sections": [section],
            "not_done": [NotDone(what=EVIL, reason=EVIL, remedy=EVIL)],
        }
    )


def images(page: Page) -> list[str]:
    return [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]


def test_every_text_is_escaped(sample: ModuleType) -> None:
    pixels = np.zeros((4, 4, 1), dtype=np.uint8)
    evidence = Evidence(
        pairs={0: Picture(pixels, pixels, EVIL)}, strips={EVIL: [Strip(EVIL, np.zeros((1, 4, 4, 1), np.uint8), EVIL)]}
    )
    for shown in (None, evidence):
        page = Page(render(evil_record(sample), shown))
        assert not [tag for tag, _ in page.tags if tag == "script"]
        assert all(src.startswith("data:image/png;base64,") for src in images(page))
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert EVIL in page.text


def test_the_page_fetches_nothing(pictured: str) -> None:
    page = Page(pictured)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("data:image/png;base64,", "#")), (tag, name)
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "http://" not in pictured
    assert "https://" not in pictured
    assert "@import" not in pictured
    assert "url(" not in re.sub(r'clip-path="url\(#[\w-]+\)"', "", pictured)
    policy = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_links_within_the_page_lead_somewhere_and_identifiers_are_unique(pictured: str) -> None:
    page = Page(pictured)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    targets = {(attributes["href"] or "")[1:] for _, attributes in page.tags if "href" in attributes}
    assert len(ids) == len(set(ids))
    assert targets <= set(ids)


def test_pictures_appear_only_when_they_are_passed(
    sample: ModuleType, small: Record, plain: str, pictured: str
) -> None:
    assert "<img" not in plain
    assert "data:image" not in plain
    assert "--show-images" in plain
    with_pictures = Page(pictured)
    strips = sum(len(s.images) for s in sample.evidence().strips["extraction"])
    assert len(images(with_pictures)) == 2 * sample.N_MATCHES + strips
    assert "--show-images" not in with_pictures.text
    assert "No pictures were kept" in render(small, Evidence())


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_embedded_pictures_are_the_pixels_that_were_passed(sample: ModuleType, channels: int) -> None:
    rng = np.random.default_rng(1)
    made, kept = (rng.integers(0, 256, (9, 7, channels), dtype=np.uint8) for _ in range(2))
    record = sample.record().model_copy(
        update={
            "sections": [Section(name="s", title="s", matches=[Match(row="r", generation=0, distance=0.1, picture=4)])]
        }
    )
    found = images(Page(render(record, Evidence(pairs={4: Picture(made, kept, "r")}))))
    for source, wanted in zip(found, (made, kept), strict=True):
        content = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(content).reshape(wanted.shape), wanted)


def test_large_pictures_are_reduced_and_their_number_is_bounded(sample: ModuleType) -> None:
    large = np.zeros((300, 600, 3), dtype=np.uint8)
    n = PAIRS_SHOWN + 3
    found = [Match(row=f"r{i}", generation=i, distance=0.1, picture=0) for i in range(n)]
    record = sample.record().model_copy(update={"sections": [Section(name="s", title="s", matches=found)]})
    page = Page(render(record, Evidence(pairs={0: Picture(large, large, "r")})))
    sources = images(page)
    assert len(sources) == 2 * PAIRS_SHOWN
    assert Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))).size == (256, 128)
    assert "3 more pairs" in page.text


def test_strips_of_an_unknown_section_are_refused(sample: ModuleType) -> None:
    strip = Strip("t", np.zeros((1, 2, 2, 1), np.uint8))
    with pytest.raises(InvalidInput, match="'elsewhere'"):
        render(sample.record(), Evidence(strips={"elsewhere": [strip]}))


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_verdict_is_said_in_words_with_its_reasons(small: Record, verdict: Verdict) -> None:
    page = Page(render(small.model_copy(update={"verdict": verdict})))
    title = {"pass": "Pass", "finding": "Finding", "inconclusive": "Inconclusive", "none": "No verdict"}[verdict.value]
    assert title in page.text
    assert f"verdict {verdict.value}" in [a.get("class") for _, a in page.tags]
    for reason in small.reasons:
        assert reason in page.text


def test_numbers_sections_and_omissions_are_all_there(sample: ModuleType, plain: str) -> None:
    record = sample.record()
    text = Page(plain).text
    for part in ("0.834", "[0.809, 0.858]", "not measured", "needs shadow models", "31 min 14 s", "412,600"):
        assert part in text
    for item in record.not_done:
        assert item.what in text
        assert item.remedy in text
    for digest in record.digests.values():
        assert digest in text
    order = [text.rindex(section.title) for section in record.sections]
    assert order == sorted(order)
    assert text.count("Numbers of this chart") == sum(len(s.figures) for s in record.sections)


def test_rendering_is_deterministic(sample: ModuleType, pictured: str) -> None:
    assert render(sample.record(), sample.evidence()) == pictured


def test_an_almost_empty_record_is_drawn(sample: ModuleType) -> None:
    empty = {"summary": [], "sections": [], "not_done": [], "reasons": [], "config": {}, "digests": {}, "seeds": {}}
    Page(render(sample.record().model_copy(update={**empty, "subject": {}})))


def _themes() -> list[dict[str, str]]:
    css = files("vestige.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    light, dark, _ = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)
    )
    return [light, {**light, **dark}]


def _contrast(a: str, b: str) -> float:
    """Contrast ratio of WCAG 2.2 between two sRGB colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", _themes(), ids=["light", "dark"])
def test_text_and_marks_have_enough_contrast(theme: dict[str, str]) -> None:
    for ink in ("text", "soft", "link"):
        for ground in ("page", "surface", "sunk"):
            assert _contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
    for verdict in Verdict:
        assert _contrast(theme[f"{verdict.value}-text"], theme[f"{verdict.value}-page"]) >= 4.5
        assert _contrast(theme[f"{verdict.value}-edge"], theme[f"{verdict.value}-page"]) >= 3
    for i in range(1, 7):
        assert _contrast(theme[f"series-{i}"], theme["surface"]) >= 3

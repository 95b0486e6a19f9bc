"""The page of a comparison as a reader sees it: opened in headless Chromium on a phone and on a desk, by day and by night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cictl.evaluation.scores import Score
from cictl.workflow.comparison_page import PageRow, render
from tests.chromium import Browser, Page, chromium

TITLES = (
    "pre-trained model", "Textual Inversion", "DreamBooth", "Custom Diffusion", "DisenBooth",
    "Contrastive Inversion, stage 1", "Contrastive Inversion, both stages",
)  # fmt: skip
FIGURES = {"dinov2": "DINOv2", "clip_i": "CLIP-I", "clip_t": "CLIP-T"}
PROMPTS = [f"a photo of S* on top of a purple rug in forest {number}" for number in range(25)]
FACTS = {"base": "stable-diffusion-v1-5/stable-diffusion-v1-5, " + "0123456789ab" * 8, "S*": ", ".join(TITLES)}
WIDTHS = (390, 1280)
LOADED = "Array.from(document.images, image => image.complete && image.naturalWidth > 0)"
LINE = 1.4  # a line of text is so much higher than its font


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page as large as DreamBench makes it."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    rows = []
    for title in TITLES:
        scores = {key: Score(float(rng.uniform()), 0.1, 25) for key in FIGURES}
        losses = [(step, float(rng.uniform())) for step in range(60)] if rows else []
        rows.append(PageRow(title, len(rows), True, scores, [picture] * len(PROMPTS), losses))
    best = rows[-1]
    rows.append(replace(best, title=f"{best.title}, best: 45 steps", last=False, losses=()))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render("my-teapot: methods compared", FACTS, FIGURES, [picture] * 6, PROMPTS, rows, [picture] * 6), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(
    params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=lambda one: f"{one[0]}-{one[1]}"
)
def page(request: pytest.FixtureRequest, browser: Browser, file: Path) -> Page:
    width, scheme = request.param
    return browser.open(file, width=width, scheme=scheme)


def test_every_picture_loads_nothing_is_asked_of_a_network_and_nothing_is_complained_of(page: Page, file: Path):
    loaded = page.value(LOADED)
    assert len(loaded) == 6 + (len(TITLES) + 1) * len(PROMPTS) + 2 * 6 and all(loaded)
    assert [url for url in page.requests if not url.startswith("data:")] == [file.as_uri()]
    assert page.complaints == []


def test_the_page_is_no_wider_than_its_window(page: Page):
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    assert page.value("innerWidth") in WIDTHS


def test_a_name_in_a_table_stands_beside_its_dot_and_is_not_cut(page: Page):
    fits = "Array.from(document.querySelectorAll('tbody th'), th => th.scrollWidth <= th.clientWidth)"
    assert all(page.value(fits))
    first = "const range = new Range(); range.selectNodeContents(th.lastChild); const text = range.getClientRects()[0];"
    beside = f"(th => {{ {first} return th.querySelector('i').getBoundingClientRect().right <= text.left; }})"
    assert all(page.value(f"Array.from(document.querySelectorAll('tbody th:has(i)'), {beside})"))


def test_text_in_a_figure_is_large_enough_to_be_read_and_none_lies_on_another(page: Page):
    corners = "[box.left, box.right, box.top, box.bottom, text.ownerSVGElement.getBoundingClientRect().top]"
    measure = f"text => {{ const box = text.getBoundingClientRect(); return {corners}; }}"
    boxes = page.value(f"Array.from(document.querySelectorAll('svg text'), {measure})")
    assert boxes
    for number, (left, right, top, bottom, figure) in enumerate(boxes):
        assert (bottom - top) / LINE > 8  # CSS pixels
        for other_left, other_right, other_top, other_bottom, other_figure in boxes[:number]:
            apart = right < other_left or other_right < left or bottom < other_top + 2 or other_bottom < top + 2
            assert figure != other_figure or apart


def test_text_stands_out_from_its_ground_by_day_and_by_night(browser: Browser, file: Path):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 at least."""
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.open(file, width=WIDTHS[0], scheme=scheme)
        style = "getComputedStyle(document.body)"
        text, ground = (page.value(f"{style}.{name}.match(/[0-9.]+/g).map(Number)") for name in ("color", "backgroundColor"))
        brighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (brighter + 0.05) / (darker + 0.05) >= 4.5
        grounds.append(luminance(ground))
    assert grounds[0] > 0.5 > grounds[1]


def luminance(colour: list[float]) -> float:
    """Relative luminance of an sRGB colour, as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_browser_notices_what_the_tests_look_for(browser: Browser, tmp_path: Path):
    """Otherwise they would prove nothing."""
    path = tmp_path / "bad.html"
    path.write_text(
        '<!doctype html><img src="missing.png"><div style="width: 2000px">wide</div>'
        '<script>console.warn("careful"); undefined.property;</script>',
        "utf-8",
    )
    page = browser.open(path, width=WIDTHS[0])
    assert page.value(LOADED) == [False]
    assert not page.value("document.documentElement.scrollWidth <= innerWidth") or page.value("innerWidth") > WIDTHS[0]
    assert path.with_name("missing.png").as_uri() in page.requests
    assert any("careful" in complaint for complaint in page.complaints)
    assert any("TypeError" in complaint for complaint in page.complaints)

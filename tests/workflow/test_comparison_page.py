"""The page of a comparison: whole without a network, and everything on it where the figures say."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from PIL import Image

from cictl.evaluation.scores import Score
from cictl.workflow.comparison_page import PageRow, _Axis, render

FIGURES = {"dinov2": "DINOv2", "clip_i": "CLIP-I", "clip_t": "CLIP-T", "fidelity": "fidelity", "alignment": "alignment"}
PROMPTS = ["a photo of S*", "S* <b>in</b> the snow"]
_VOID = ("meta", "img")


def page(keys=("dinov2", "clip_t"), losses=()) -> str:
    pictures = [Image.new("RGB", (300, 200), colour) for colour in ("red", "blue")]
    ours, base = ({key: Score(mean, 0.1, 4) for key in keys} for mean in (0.25, 0.75))
    rows = [PageRow("ours & theirs", 6, True, ours, pictures, losses), PageRow("base", 0, True, base, pictures, ())]
    return render("<teapot>", {"seed": "0"}, FIGURES, [Image.new("RGB", (64, 64))], PROMPTS, rows)


def svgs(text: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_the_page_asks_nobody_for_anything_and_its_pictures_are_in_it():
    text = page(losses=[(1, 0.5), (2, 0.4)])
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 1 + 2 * len(PROMPTS)
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert max(image.size) <= 128
    without = re.sub(r'src="[^"]*"', "", text)
    assert not re.findall(r"https?:|url\(|<script|<link|@import|href", without)


def test_every_tag_is_closed_in_order_and_no_text_is_taken_for_one():
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag not in ("b", "teapot")
            if tag not in _VOID:
                open_tags.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Reader().feed(page(losses=[(1, 0.5), (2, 0.4)]))
    assert open_tags == []


def test_a_point_stands_where_its_figures_are_between_its_intervals():
    [scatter] = svgs(page())
    ours, base = scatter.findall("g")
    for group in (ours, base):
        circle, (across, along) = group.find("circle"), group.findall("line")
        x, y = float(circle.get("cx")), float(circle.get("cy"))
        assert 0 < float(across.get("x1")) < x < float(across.get("x2")) < 640
        assert 400 > float(along.get("y1")) > y > float(along.get("y2")) > 0  # up is more
        # 1.96 standard errors of 0.1 over 4 prompts are 0.098; the two points are 0.5 apart.
        reach = (float(across.get("x2")) - float(across.get("x1"))) / 2
        apart = float(base.find("circle").get("cx")) - float(ours.find("circle").get("cx"))
        assert reach / apart == pytest.approx(0.098 / 0.5, abs=0.01)
    assert float(ours.find("circle").get("cy")) > float(base.find("circle").get("cy"))


def test_ground_truth_goes_before_networks_where_there_is_any_and_dinov2_before_clip():
    assert "<h2>CLIP-T against DINOv2</h2>" in page()
    assert "<h2>CLIP-T against DINOv2</h2>" in page(("clip_i", "dinov2", "clip_t"))
    assert "<h2>CLIP-T against CLIP-I</h2>" in page(("clip_i", "clip_t"))
    assert "<h2>alignment against fidelity</h2>" in page(tuple(FIGURES))
    assert "against" not in page(("clip_t",))


def test_the_table_has_means_and_deviations_of_the_figures_that_all_rows_have():
    text = page()
    assert text.count("0.250 <small>± 0.100</small>") == text.count("0.750 <small>± 0.100</small>") == 2
    assert "<th>DINOv2</th><th>CLIP-T</th>" in text and "<th>fidelity</th>" not in text


def test_the_page_says_how_to_read_its_table_and_that_the_best_is_flattered():
    text = page(tuple(FIGURES))
    assert "higher is better." in text and "no verdict about methods" in text
    assert "leakage" not in text and "flatters" not in text
    score, pictures = Score(0.25, 0.1, 4), [Image.new("RGB", (8, 8))] * len(PROMPTS)
    rows = [PageRow("ours", 6, last, {"clip_t": score, "leakage": score}, pictures, ()) for last in (True, False)]
    text = render("teapot", {}, {"clip_t": "CLIP-T", "leakage": "leakage"}, [], PROMPTS, rows)
    assert "of leakage less" in text and "which flatters it" in text


def test_a_photograph_stands_above_what_its_own_token_gives():
    colours = ("red", "lime", "blue")
    photographs = [Image.new("RGB", (8, 8), colour) for colour in colours]
    text = render("teapot", {}, FIGURES, photographs, [], [PageRow("ours", 6, True, {}, [], ())], photographs)
    above, below = re.findall(r"<tr>(.*?)</tr>", text.partition("of its own")[2])
    assert re.findall(r'src="([^"]*)"', above) == re.findall(r'src="([^"]*)"', below)
    assert len(set(re.findall(r'src="([^"]*)"', above))) == len(colours)
    assert "of its own" not in page()


def test_a_long_curve_is_averaged_and_falls_where_the_loss_falls():
    losses = [(step, 1 - step / 1000) for step in range(1, 1001)]
    _, curves = svgs(page(losses=losses))
    [line] = curves.findall("g/polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert len(points) == 20
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(points))


def test_without_losses_there_are_no_curves():
    assert len(svgs(page())) == 1 and "<h2>Losses</h2>" not in page()


@pytest.mark.parametrize("room", [0.001, 0.0799, 0.16, 0.4, 0.79, 0.8, 0.85, 0.999, 1.0, 3.0, 9.99, 250.0])
def test_an_axis_of_any_length_has_a_few_round_ticks_on_it(room):
    axis = _Axis(0.31, 0.31 + room, 0, 100)
    ticks = axis.ticks()
    assert 3 <= len(ticks) <= 9
    assert axis.low <= min(ticks) <= max(ticks) <= axis.high
    step = ticks[1] - ticks[0]
    assert f"{step:.0e}"[0] in "125"
    assert all(abs(tick / step - round(tick / step)) < 1e-6 for tick in ticks)

"""What is measured of photographs beside the limits of `cictl check`."""

from __future__ import annotations

import sys

from PIL import Image

from benchmarks import photographs
from cictl.workflow.check import _BLURRED, _PLAIN_BACKGROUND, _SAME_BACKGROUND, _SAME_PICTURE


def test_a_row_for_each_set_falls_under_the_limits_where_it_should(tmp_path, monkeypatch, capsys):
    (tmp_path / "grey").mkdir()
    for number in range(2):
        Image.new("RGB", (80, 80), (90, 90, 90 + number)).save(tmp_path / "grey" / f"{number}.png")
    monkeypatch.setattr(sys, "argv", ["photographs", str(tmp_path)])
    photographs.main()
    cells = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    rows = {name: [float(value) for value in values] for name, *values in cells}
    plain = {name for name, (varied, *_) in rows.items() if varied < _PLAIN_BACKGROUND}
    assert plain == {"grey", *(name for name in rows if name.startswith("plain-backgrounds"))}
    assert {name for name in rows if name.startswith("constant-background")} < {
        name for name, (_, rim, *_) in rows.items() if rim < _SAME_BACKGROUND
    }
    assert rows["grey"][2] < _SAME_PICTURE and rows["grey"][3] < _BLURRED / 1000

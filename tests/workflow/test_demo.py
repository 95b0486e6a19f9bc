"""The demo's own parts; its trainings are the ordinary commands, cut short here."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cictl.errors import StateError
from cictl.events import ignore
from cictl.workflow import demo, finetune, generate, init, invert


def test_the_whole_path_ends_in_one_sheet_and_a_second_run_is_all_done(tmp_path: Path):
    workspace = demo.prepare(tmp_path / "demo")
    assert len(list(workspace.images.iterdir())) == 5
    short = {"generate.count": demo.COUNT, "generate.steps": 2}
    for expected in ("run", "skip"):
        assert invert.run(workspace, ignore, overrides={"invert.steps": 2}).action == expected
        assert finetune.run(workspace, ignore, overrides={"finetune.steps": 2}).action == expected
        made = generate.run(workspace, demo.PROMPTS, ignore, overrides=short)
        workspace = demo.prepare(tmp_path / "demo")
    assert made.kept == len(made.pictures) == demo.COUNT * len(demo.PROMPTS)
    demo.write_sheet(workspace, [Path(picture["path"]) for picture in made.pictures])
    with Image.open(workspace.outputs / "demo.png") as picture:
        assert picture.width > picture.height * 0.5


def test_a_workspace_of_something_else_is_left_alone(tmp_path: Path):
    init.run(tmp_path / "mine")
    with pytest.raises(StateError):
        demo.prepare(tmp_path / "mine")

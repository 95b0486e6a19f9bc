"""Where no picture can be written, that is said before a model is loaded, with the words that writing one would end with."""

from __future__ import annotations

import shutil

import pytest

from cictl.data.png import require_writable
from cictl.errors import ResourceError
from cictl.workflow import attention, compare, evaluate, generate, preview_aux
from cictl.workflow.foreseen_pictures import foresee_attention, foresee_evaluation, foresee_pictures
from tests.support import silent

COMMANDS = {
    "generate": lambda workspace: generate.run(workspace, ["a photo of S*"], silent),
    "generate --out": lambda workspace: generate.run(workspace, ["a photo of S*"], silent, out=workspace.config_file / "out"),
    "generate --dry-run": lambda workspace: foresee_pictures(workspace, ["a photo of S*"], silent),
    "preview-aux": lambda workspace: preview_aux.run(workspace, silent),
    "attention": lambda workspace: attention.run(workspace, None, silent),
    "attention --dry-run": lambda workspace: foresee_attention(workspace, None, silent),
    "evaluate": lambda workspace: evaluate.run(workspace, silent, overrides=MEASURED),
    "evaluate --dry-run": lambda workspace: foresee_evaluation(workspace, silent, overrides=MEASURED),
    "compare": lambda workspace: compare.run(workspace, silent, methods=["textual-inversion"], overrides=MEASURED),
}
MEASURED = {"evaluate.dinov2": None, "evaluate.clip": "toybox", "evaluate.noun": "dog"}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_loaded_where_no_picture_can_be_written(copy_of_trained, monkeypatch, command: str):
    shutil.rmtree(copy_of_trained.outputs)
    copy_of_trained.outputs.touch()  # for the superuser every folder can be written

    def load(*of: object, **how: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("cictl.models.stable_diffusion.StableDiffusion.load", load)
    with pytest.raises(ResourceError, match="cannot be written: Not a directory") as raised:
        COMMANDS[command](copy_of_trained)
    assert raised.value.slug == "picture-not-written" and raised.value.exit_code == 5


def test_nothing_is_left_of_the_trial(tmp_path):
    require_writable(tmp_path / "out" / "further" / "picture.png")
    assert not list(tmp_path.iterdir())

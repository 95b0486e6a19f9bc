"""`cictl compare` as it is typed: what it trains, what it measures on equal noise, and what it keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.config import METHODS, group_of
from cictl.workflow.rows import ROWS, choose_rows
from cictl.workspace import Workspace
from tests.evaluation_models import make_clip, make_dinov2

QUICK = [f"--set={group_of(method)}.steps=1" for method in METHODS]
QUICK += ["--set=custom_diffusion.class_pictures=2", "--set=custom_diffusion.views=2", "--set=generate.steps=2"]


@pytest.fixture(scope="module")
def common(tmp_path_factory, base) -> list[str]:
    """Networks that measure, two prompts, quick settings."""
    folder = tmp_path_factory.mktemp("measuring")
    dinov2, clip = make_dinov2(folder / "dinov2"), make_clip(folder / "clip", base)
    (folder / "prompts.txt").write_text("a photo of S*\na red S* on the beach\n")
    networks = [f"--set=evaluate.dinov2={dinov2}", f"--set=evaluate.clip={clip}"]
    return [*networks, *QUICK, "--noun=dog", f"--prompts={folder / 'prompts.txt'}", "-n", "2"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, trained, common) -> tuple[Workspace, str]:
    """A workspace with every row, and what was printed."""
    workspace = Workspace(shutil.copytree(trained.root, tmp_path_factory.mktemp("compared") / "my-teapot"))
    code, shown, errors = cictl(workspace, *common)
    assert code == 0, errors
    return workspace, shown


def cictl(workspace: Workspace, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["compare", "-C", str(workspace.root), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def table(workspace: Workspace) -> dict:
    return json.loads((workspace.outputs / "compare" / "results.json").read_text("utf-8"))


def files(folder: Path, pattern: str) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


def test_the_table_has_the_figures_of_every_methods_own_evaluation(compared):
    workspace, shown = compared
    found = table(workspace)
    assert [row["method"] for row in found["rows"]] == list(ROWS)
    for row in found["rows"]:
        own = json.loads((workspace.outputs / "compare" / row["method"] / "results.json").read_text("utf-8"))
        assert row["overall"] == own["overall"] and own["stage"] == row["method"]
        line = next(line for line in shown.splitlines() if line.startswith(row["title"]))
        for score in row["overall"].values():
            assert f"{score['mean']:.3f} ± {score['std']:.3f}" in line
    assert "best epoch" in found["chosen"] and "best epoch" in shown


def test_every_method_draws_the_same_prompts_from_the_same_seeds_with_the_same_settings(compared):
    workspace, _ = compared
    measured = [json.loads((workspace.outputs / "compare" / row / "results.json").read_text("utf-8")) for row in ROWS]
    for key in ("sampling", "seed", "count", "prompt_set", "dinov2", "clip", "base", "noun", "photographs"):
        assert len({json.dumps(one[key], sort_keys=True) for one in measured}) == 1, key
    asked = [[(prompt["prompt"], prompt["text"], [p["seed"] for p in prompt["pictures"]]) for prompt in one["prompts"]]
             for one in measured]  # fmt: skip
    assert all(one == asked[0] for one in asked)
    figures = {json.dumps(row["overall"], sort_keys=True) for row in table(workspace)["rows"]}
    assert len(figures) == len(ROWS)


def test_the_table_says_what_stood_for_s_and_how_long_each_was_trained(compared):
    rows = {row["method"]: (row["words"], row["steps"]) for row in table(compared[0])["rows"]}
    ours = "<my-teapot> <my-teapot>_1"
    assert rows == {
        "base": ("dog", 0), "textual-inversion": ("<my-teapot>", 1), "dreambooth": ("sks dog", 1),
        "custom-diffusion": ("<my-teapot> dog", 1), "disenbooth": ("sks dog", 1), "invert": (ours, 8), "finetune": (ours, 6),
    }  # fmt: skip


def test_the_page_has_every_row_with_a_picture_of_every_prompt_and_of_every_auxiliary_token(compared):
    workspace, shown = compared
    page = (workspace.outputs / "compare" / "report.html").read_text("utf-8")
    assert page.count("<img ") == 3 + 2 * len(ROWS) + 2 * 3
    assert all(page.count(row["title"]) >= 3 for row in table(workspace)["rows"])
    assert "report.html" in shown and page.count("<polyline ") == 2  # the others were trained for one step


def test_the_same_command_again_trains_and_draws_nothing(compared, common):
    workspace, shown = compared
    before = files(workspace.root, "*.safetensors") | files(workspace.root, "*.png")
    code, again, _ = cictl(workspace, *common)
    assert code == 0 and again == shown
    after = files(workspace.root, "*.safetensors") | files(workspace.root, "*.png")
    assert {path for path in before if before[path] != after.get(path)} <= set(workspace.root.rglob("sheet.png"))
    assert before.keys() == after.keys()


def test_whatever_the_rows_each_network_is_loaded_once_and_every_figure_is_that_of_evaluate_alone(
    compared, common, tmp_path, monkeypatch
):
    from transformers import CLIPModel, Dinov2Model

    from cictl.models.stable_diffusion import StableDiffusion

    workspace = Workspace(shutil.copytree(compared[0].root, tmp_path / "my-teapot"))
    shutil.rmtree(workspace.outputs)
    loads: list[str] = []

    def count(kind, name):
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *args, **named: [loads.append(kind.__name__), real(*args, **named)][1])

    count(StableDiffusion, "load")
    count(Dinov2Model, "from_pretrained")
    count(CLIPModel, "from_pretrained")
    assert cictl(workspace, *common)[0] == 0
    assert loads == ["StableDiffusion", "Dinov2Model", "CLIPModel"]
    measured = sorted((workspace.outputs / "compare").rglob("*/results.json"))
    assert len(measured) > len(ROWS)
    for path in measured[::2]:
        found = json.loads(path.read_text("utf-8"))
        step = ["--step", str(found["steps"])] if path.parent.name.startswith("step-") else []
        own = tmp_path / "own"
        sampling = [argument for argument in common if argument not in QUICK] + ["--set=generate.steps=2"]
        arguments = ["evaluate", "-C", str(workspace.root), "--stage", found["stage"], "--out", str(own), *step, *sampling]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert json.loads((own / "results.json").read_text("utf-8")) == found
        for picture in (path.parent / "pictures").iterdir():
            assert (own / "pictures" / picture.name).read_bytes() == picture.read_bytes()
        shutil.rmtree(own)


def test_a_dry_run_says_what_is_done_and_counts_the_pictures_that_there_are(compared, common):
    workspace, _ = compared
    before = files(workspace.root, "*")
    code, shown, _ = cictl(workspace, *common, "--dry-run")
    assert code == 0 and shown.count("is already done") == len(ROWS) - 1 and "steps of cictl" not in shown
    drawn = len(files(workspace.outputs / "compare", "pictures/*.png")) + len(files(workspace.outputs / "preview-aux", "*.png"))
    assert f"{drawn} pictures would be drawn" in shown
    assert files(workspace.root, "*") == before


def test_a_dry_run_before_any_training_estimates_each_that_a_row_needs(make_workspace, common):
    workspace = make_workspace()
    code, shown, _ = cictl(workspace, *common, "--methods", "base,custom-diffusion,finetune", "--json", "--dry-run")
    would = json.loads(shown.splitlines()[-1])
    assert code == 0 and files(workspace.root, "*.png") == files(workspace.images, "*.png")
    assert [(one["stage"], one["action"], one["steps"]) for one in would["trainings"]] == [
        ("custom-diffusion", "run", 1), ("invert", "run", 8), ("finetune", "run", 6),
    ]  # fmt: skip
    assert [one["steps"] for one in would["estimates"].values()] == [1, 8, 6]
    assert would["estimates"]["custom-diffusion"]["class_pictures"] == 2
    assert would["pictures"] == (3 + 3) * 2 * 2 + 1 + 3  # three rows, finetune's three snapshots, and what each photograph has
    assert cictl(workspace, *QUICK, "--dry-run")[0] == 2  # no noun


def test_some_methods_alone_train_what_they_need_and_no_more(make_workspace, common):
    workspace = make_workspace()
    assert cictl(workspace, *common, "--methods", "finetune, textual-inversion")[0] == 0
    assert [row["method"] for row in table(workspace)["rows"]] == ["textual-inversion", "finetune"]
    trained = {path.name for path in workspace.checkpoints.iterdir() if path.is_dir()}
    assert trained == {"textual-inversion", "invert", "finetune"}


def test_our_own_stages_alone_need_no_noun_and_are_not_told_one(make_workspace, common):
    workspace = make_workspace()
    without = [argument for argument in common if argument != "--noun=dog"]
    assert cictl(workspace, *without, "--methods", "invert")[0] == 0
    assert table(workspace)["noun"] is None


def test_without_auxiliary_tokens_the_page_shows_none(make_workspace, common):
    workspace = make_workspace(invert__auxiliary_vectors=0)
    assert cictl(workspace, *common, "--methods", "base,invert")[0] == 0
    page = (workspace.outputs / "compare" / "report.html").read_text("utf-8")
    assert page.count("<img ") == 3 + 2 * 2 and "of its own" not in page


def test_networks_that_cannot_be_had_are_missed_before_anything_is_trained(make_workspace):
    workspace = make_workspace()
    code, _, errors = cictl(workspace, *QUICK, "--noun=dog", "--set=evaluate.dinov2=./nowhere")
    assert code == 4 and "nowhere" in errors
    assert not workspace.checkpoints.exists() or not any(path.is_dir() for path in workspace.checkpoints.iterdir())


def test_rows_stand_in_the_order_of_the_table_however_they_are_asked_for():
    assert choose_rows([]) == list(ROWS)
    assert choose_rows(["finetune", "base"]) == ["base", "finetune"]

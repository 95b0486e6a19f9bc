"""`cictl compare` as it is typed: what it trains, what it measures on equal noise, and what it keeps."""

from __future__ import annotations

import html
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.config import METHODS, group_of
from cictl.data.png import write_png
from cictl.errors import Interrupted, ModelAccessError, ResourceError, StateError, UsageError
from cictl.toybox import judge
from cictl.toybox.concepts import demo_concept
from cictl.workflow import baseline, evaluate, init, invert
from cictl.workflow.rows import ROWS, choose_rows
from cictl.workspace import Workspace
from tests.evaluation_models import make_clip, make_dinov2
from tests.support import silent, write_settings

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
        own = json.loads((workspace.outputs / "compare" / row["results"]).read_text("utf-8"))
        assert row["overall"] == own["overall"] and own["stage"] == row["method"]
        assert [one["stage"] for one in own["trained"]] == {"base": [], "finetune": ["invert", "finetune"]}.get(
            row["method"], [row["method"]]
        )
        assert all(one["photographs"] == own["photographs_sha256"] for one in own["trained"])
        assert (workspace.outputs / "compare" / row["sheet"]).is_file()
        line = next(line for line in shown.splitlines() if line.startswith(row["title"]))
        for score in row["overall"].values():
            assert f"{score['mean']:.3f} ± {score['std']:.3f}" in line
    assert found["unlike"] == []
    assert "best epoch" in found["chosen"] and "best epoch" in shown
    assert found["std"].endswith("over the means of the prompts") and "last row" not in found["std"]


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


def test_of_more_prompts_than_the_page_can_hold_it_says_how_many_it_shows(make_workspace, common, monkeypatch):
    monkeypatch.setattr("cictl.workflow.compare._PROMPTS_ON_THE_PAGE", 1)
    workspace = make_workspace()
    assert cictl(workspace, *common, "--methods", "base")[0] == 0
    page = (workspace.outputs / "compare" / "report.html").read_text("utf-8")
    assert "The first 1 of 2 prompts; the figures are of all." in page
    assert page.count("<img") == len(list(workspace.images.iterdir())) + 1


def test_the_same_command_again_trains_and_draws_nothing(compared, common):
    workspace, shown = compared
    before = files(workspace.root, "*.safetensors") | files(workspace.root, "*.png")
    code, again, _ = cictl(workspace, *common)
    assert code == 0 and again == shown
    after = files(workspace.root, "*.safetensors") | files(workspace.root, "*.png")
    assert {path for path in before if before[path] != after.get(path)} <= set(workspace.root.rglob("sheet.png"))
    assert before.keys() == after.keys()


def count_loads(monkeypatch, *kinds: type) -> list[str]:
    """The names of the networks that are loaded from here on, in that order."""
    loads: list[str] = []

    def count(owner, name: str, said: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **named: [loads.append(said), real(*args, **named)][1])

    for kind in kinds:
        count(kind, "load" if kind.__name__ == "StableDiffusion" else "from_pretrained", kind.__name__)
    count(judge, "load_judge", "Judge")
    return loads


def test_whatever_the_rows_each_network_is_loaded_once_and_every_figure_is_that_of_evaluate_alone(
    compared, common, tmp_path, monkeypatch
):
    from transformers import CLIPModel, Dinov2Model

    from cictl.models.stable_diffusion import StableDiffusion

    workspace = Workspace(shutil.copytree(compared[0].root, tmp_path / "my-teapot"))
    shutil.rmtree(workspace.outputs)
    loads = count_loads(monkeypatch, StableDiffusion, Dinov2Model, CLIPModel)
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


def test_on_the_toybox_the_judge_is_loaded_once_for_all_rows_and_what_they_kept(tmp_path, monkeypatch):
    from transformers import CLIPModel

    from cictl.models.stable_diffusion import StableDiffusion

    workspace = init.run(tmp_path / "my-teapot", model="toybox", name="my-teapot")
    for number, pixels in enumerate(demo_concept().photographs(), 1):
        write_png(workspace.images / f"teapot-{number}.png", pixels)
    quick = {"invert.steps": 4, "checkpoint.snapshots": 2, "invert.auxiliary_vectors": 0, "generate.steps": 1}
    write_settings(workspace, quick)
    invert.run(workspace, silent)
    loads = count_loads(monkeypatch, StableDiffusion, CLIPModel)
    code, _, errors = cictl(workspace, "--noun=teapot", "-n", "1", "--methods", "base,invert")
    assert code == 0, errors
    assert loads == ["StableDiffusion", "CLIPModel", "Judge"]
    assert "drawing: Contrastive Inversion, stage 1 after 1 steps" in errors
    [base, *_] = table(workspace)["rows"]
    assert base["overall"].keys() >= {"clip_i", "clip_t", "fidelity", "alignment", "leakage"}
    assert table(workspace)["known_as"] == "my-teapot"
    (tmp_path / "others.txt").write_text("S* on the moon\n")  # of which the judge does not know what it must show
    code, shown, errors = cictl(workspace, "--noun=teapot", "--methods=base", f"--prompts={tmp_path / 'others.txt'}")
    assert code == 0 and "judge:" not in shown, errors
    assert table(workspace)["known_as"] is None and "fidelity" not in table(workspace)["rows"][0]["overall"]


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


def test_methods_that_were_trained_on_different_base_models_are_not_compared(make_workspace, common, base, tmp_path):
    workspace, other = make_workspace(), shutil.copytree(base, tmp_path / "other")
    (other / "notes.json").write_text("{}")  # what tells the two apart
    given = {"textual_inversion.steps": 1, "evaluate.noun": "dog", "model.id": str(other)}
    baseline.run(workspace, "textual-inversion", silent, overrides=given)
    code, _, errors = cictl(workspace, *common, "--methods", "base,textual-inversion")
    assert code == 3 and "learned on another base model" in errors


def test_trainings_that_differ_in_what_all_share_are_compared_and_it_is_said(make_workspace, common):
    workspace = make_workspace()
    baseline.run(
        workspace, "textual-inversion", silent, overrides={"textual_inversion.steps": 1, "evaluate.noun": "dog", "seed": 5}
    )
    code, shown, errors = cictl(workspace, *common, "--set=invert.steps=1", "--methods=textual-inversion,invert")
    assert code == 0, errors
    assert table(workspace)["unlike"] == ["seed: 5 (textual-inversion), 0 (invert)"]
    page = (workspace.outputs / "compare" / "report.html").read_text("utf-8")
    said = "the trainings differ in seed: 5 (textual-inversion), 0 (invert)"
    assert said in " ".join(shown.split()) and said in page


def test_a_seed_is_that_of_the_pictures_and_trains_nothing_anew(make_workspace, common):
    workspace = make_workspace()
    rows = (*common, "--methods=textual-inversion")
    assert cictl(workspace, *rows)[0] == 0
    before, first = files(workspace.checkpoints, "*/**/*"), table(workspace)
    code, shown, errors = cictl(workspace, *rows, "--seed", "7")
    assert code == 0 and "seeds from 7 on" in shown, errors
    assert files(workspace.checkpoints, "*/**/*") == before and table(workspace)["seed"] == 7
    assert table(workspace)["rows"][0]["overall"] != first["rows"][0]["overall"]
    own = json.loads((workspace.outputs / "compare" / table(workspace)["rows"][0]["results"]).read_text("utf-8"))
    assert [picture["seed"] for picture in own["prompts"][0]["pictures"]] == [7, 8]


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


def fails(monkeypatch, method: str, kind: type[Exception], *words: object, **slug: str) -> list[weakref.ref]:
    """Let the training of ``method`` raise a new error with its model in memory; of each such model a reference."""
    models = []

    def prepare(bench):
        model = bench.open(bench.find_base())
        models.append(weakref.ref(model.unet))
        raise kind(*words, **slug)

    monkeypatch.setitem(baseline._PREPARE, method, prepare)
    return models


def test_a_method_that_does_not_fit_is_left_out_and_the_others_are_measured_until_it_does(make_workspace, common, monkeypatch):
    workspace = make_workspace()
    arguments = (*common, "--methods", "base,dreambooth,disenbooth,invert")
    with monkeypatch.context() as tight:
        models = fails(tight, "dreambooth", MemoryError)
        held, own = [], baseline._PREPARE["disenbooth"]
        tight.setitem(baseline._PREPARE, "disenbooth", lambda bench: [held.extend(one() for one in models), own(bench)][1])
        code, shown, errors = cictl(workspace, *arguments)
    assert code == ResourceError.exit_code
    assert held == [None]  # DreamBooth's model is gone when the next one is loaded
    found = table(workspace)
    assert [row["method"] for row in found["rows"]] == ["base", "disenbooth", "invert"]
    [failed] = found["failed"]
    assert (failed["method"], failed["slug"], failed["exit_code"]) == ("dreambooth", "memory-full", 5)
    page = (workspace.outputs / "compare" / "report.html").read_text("utf-8")
    said = f"DreamBooth: {failed['message']}"
    assert said in page and f"failed:   {said}" in shown
    assert "DreamBooth left out" in errors and "--methods base,disenbooth,invert goes without" in errors
    before = files(workspace.checkpoints / "disenbooth", "*")
    assert cictl(workspace, *arguments)[0] == 0
    assert [row["method"] for row in table(workspace)["rows"]] == ["base", "dreambooth", "disenbooth", "invert"]
    assert not table(workspace)["failed"] and files(workspace.checkpoints / "disenbooth", "*") == before


@pytest.mark.parametrize("blank", ["textual-inversion", "both"])
def test_a_method_whose_every_picture_is_blanked_is_left_out_and_said(make_workspace, common, monkeypatch, blank):
    """All that it drew at its end, and all that it drew along the way."""
    real = evaluate.draw_pictures

    def draw(config, base, concept, *others, **named):
        drawn = real(config, base, concept, *others, **named)
        return replace(drawn, blanked=drawn.paths) if blank in (concept.source, "both") else drawn

    monkeypatch.setattr(evaluate, "draw_pictures", draw)
    workspace = make_workspace()
    code, shown, errors = cictl(workspace, *common, "--methods", "base,textual-inversion", "--set=textual_inversion.steps=2")
    assert code == 1 and "Textual Inversion is not in the comparison: the base model's safety checker blanked all" in errors
    assert "tries again" not in errors  # the same pictures would be blanked again
    if blank == "both":
        assert not shown and "pre-trained model is not in the comparison" in errors
        assert errors.count("left out, the others go on") == 1
        return
    found = table(workspace)
    assert [row["method"] for row in found["rows"]] == ["base"]
    [failed] = found["failed"]
    assert (failed["method"], failed["slug"]) == ("textual-inversion", "evaluation-all-blanked")
    page, said = (workspace.outputs / "compare" / "report.html").read_text("utf-8"), f"Textual Inversion: {failed['message']}"
    assert f"failed:   {said}" in shown and html.escape(said) in page
    assert "--methods base goes without" in errors


def test_without_stage_1_there_is_no_stage_2_and_it_is_tried_once(make_workspace, common, monkeypatch):
    tried = []

    def no_memory(*given, **named):
        tried.append(given)
        raise MemoryError

    monkeypatch.setattr("cictl.workflow.base_model.encode_photographs", no_memory)
    workspace = make_workspace()
    code, shown, _ = cictl(workspace, *common, "--methods", "base,invert,finetune", "--json")
    outcome, error = (json.loads(line) for line in shown.splitlines()[-2:])
    assert code == 5 == error["exit_code"] and error["slug"] == "memory-full"
    assert [row["method"] for row in outcome["rows"]] == ["base"] and len(tried) == 1
    assert [one["method"] for one in outcome["failed"]] == ["invert", "finetune"]


def test_where_every_row_fails_the_comparison_does(make_workspace, common, monkeypatch):
    fails(monkeypatch, "dreambooth", MemoryError)
    workspace = make_workspace()
    code, shown, errors = cictl(workspace, *common, "--methods", "dreambooth")
    assert code == 5 and not shown and "DreamBooth is not in the comparison" in errors
    assert not (workspace.outputs / "compare").exists()


@pytest.mark.parametrize(
    ("kind", "slug", "code"),
    [
        (UsageError, "settings-invalid", 2), (StateError, "training-changed", 3), (ModelAccessError, "model-incomplete", 4),
        (ResourceError, "checkpoint-not-written", 5),
    ],
)  # fmt: skip
def test_what_concerns_all_methods_ends_a_comparison_at_once(make_workspace, common, monkeypatch, kind, slug, code):
    fails(monkeypatch, "textual-inversion", kind, "nothing goes", "do something", slug=slug)
    workspace = make_workspace()
    ended, _, errors = cictl(workspace, *common, "--methods", "textual-inversion,disenbooth")
    assert ended == code and "error: nothing goes" in errors
    assert not (workspace.checkpoints / "disenbooth").exists() and not (workspace.outputs / "compare").exists()


def test_ctrl_c_in_a_training_ends_a_comparison(make_workspace, common, monkeypatch):
    fails(monkeypatch, "textual-inversion", Interrupted, 2, "stopped", "again")
    workspace = make_workspace()
    assert cictl(workspace, *common, "--methods", "textual-inversion,disenbooth")[0] == 130
    assert not (workspace.checkpoints / "disenbooth").exists()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_does_not_fit_into_the_free_memory_is_said_before_training(make_workspace, common, monkeypatch, dry):
    workspace = make_workspace()
    methods = ("--methods", "base,textual-inversion,dreambooth")
    whole = cictl(workspace, *common, *methods, "--json", "--dry-run")[1]
    needed = {stage: one["memory"] for stage, one in json.loads(whole.splitlines()[-1])["estimates"].items()}
    assert needed["dreambooth"] > needed["textual-inversion"]
    monkeypatch.setattr("cictl.workflow.fitting.free_memory", lambda device: needed["dreambooth"] - 1)
    _, _, errors = cictl(workspace, *common, *methods, *dry)
    [warning] = [line for line in errors.splitlines() if "more memory is needed" in line]
    assert "DreamBooth about" in warning and "Textual" not in warning
    assert "--methods base,textual-inversion goes without" in warning
    if dry:
        return
    assert "more memory" not in cictl(workspace, *common, *methods)[2]  # all is trained by now


def test_rows_stand_in_the_order_of_the_table_however_they_are_asked_for():
    assert choose_rows([]) == list(ROWS)
    assert choose_rows(["finetune", "base"]) == ["base", "finetune"]


def test_what_is_drawn_otherwise_than_usual_is_said_of_the_methods_that_it_changes(compared, copy_of_trained, common):
    assert "drawn:" not in compared[1]
    ways = ["--set=generate.strength=0.9", "--set=generate.avoid=0.5", "--methods=base,invert,finetune", "--last"]
    code, shown, errors = cictl(copy_of_trained, *common, "-n", "1", *ways)
    assert code == 0, errors
    told = "invert with avoid 0.5; finetune with strength 0.9, avoid 0.5"
    assert [line.split(":", 1)[1].strip() for line in shown.splitlines() if line.startswith("drawn:")] == [told]
    assert told in (copy_of_trained.outputs / "compare" / "report.html").read_text("utf-8")
    assert [row["sampling"] for row in table(copy_of_trained)["rows"]] == [
        {"strength": 1.0, "avoid": 0.0}, {"strength": 1.0, "avoid": 0.5}, {"strength": 0.9, "avoid": 0.5},
    ]  # fmt: skip

"""`cictl evaluate` as it is typed: its table, its files, what it draws again, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.config import Stage
from cictl.data.photographs import fingerprints
from cictl.records import latest_checkpoint
from cictl.workflow import baseline, generate
from cictl.workspace import Workspace
from tests.evaluation_models import make_clip, make_dinov2
from tests.support import silent
from tests.tiny import make_photographs

PROMPTS = ["a photo of S*", "a red S* on the beach", "a cube shaped S* in the snow"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory, base) -> list[str]:
    folder = tmp_path_factory.mktemp("measuring")
    dinov2, clip = make_dinov2(folder / "dinov2"), make_clip(folder / "clip", base)
    return ["--set", f"evaluate.dinov2={dinov2}", "--set", f"evaluate.clip={clip}"]


@pytest.fixture
def prompts(tmp_path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("# three\n\n" + "\n".join([*PROMPTS, PROMPTS[0]]) + "\n")
    return str(path)


def cictl(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def results_in(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text("utf-8"))


def read_manifest(workspace: Workspace, stage: Stage) -> dict:
    checkpoint, _ = latest_checkpoint(workspace.stage_folder(stage))
    assert checkpoint is not None
    return dict(checkpoint.manifest)


def picture_files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "pictures").glob("*.png")}


# -- the figures ------------------------------------------------------------------------------------


def test_the_table_and_the_files_hold_the_figures_of_every_prompt(trained, tmp_path, networks, prompts):
    out = tmp_path / "out"
    code, shown, errors = cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "3", *networks)
    assert code == 0, errors
    found = results_in(out)
    assert [one["prompt"] for one in found["prompts"]] == PROMPTS
    assert found["stage"] == "finetune" and found["seed"] == 0 and found["count"] == 3
    assert found["photographs"] == ["photo-0.png", "photo-1.png", "photo-2.png"]
    assert found["photographs_sha256"] == fingerprints(trained.images)
    manifests = [read_manifest(trained, stage) for stage in ("invert", "finetune")]
    for one, manifest in zip(found["trained"], manifests, strict=True):
        assert (one["stage"], one["steps"], one["settings"]) == (
            manifest["stage"],
            manifest["step"],
            manifest["fingerprint"]["fields"],
        )
        assert one["circumstances"] == manifest["circumstances"] and one["photographs"] == found["photographs_sha256"]
    assert found["circumstances"].items() >= {"device": "cpu", "dtype": "fp32", "torch": version("torch")}.items()
    assert found["sampling"]["safety_checker"] == ""
    for figure in ("dinov2", "clip_i", "clip_t"):
        means = []
        for one in found["prompts"]:
            values = [picture["figures"][figure] for picture in one["pictures"]]
            score = one["figures"][figure]
            assert len(values) == score["count"] == 3 and all(-1 <= value <= 1 for value in values)
            assert score["mean"] == pytest.approx(statistics.mean(values))
            assert score["std"] == pytest.approx(statistics.stdev(values))
            means.append(score["mean"])
            assert f"{score['mean']:.3f} ± {score['std']:.3f}" in shown
        overall = found["overall"][figure]
        assert (overall["mean"], overall["std"]) == pytest.approx((statistics.mean(means), statistics.stdev(means)))
        assert f"{overall['mean']:.3f} ± {overall['std']:.3f}" in shown
    assert "over its pictures" in found["std"] and "over the means of the prompts" in found["std"]
    assert all((out / picture["path"]).is_file() for one in found["prompts"] for picture in one["pictures"])
    assert "\x1b" not in shown
    with Image.open(out / "sheet.png") as image:
        assert image.height > 4 * 192 and 3 * 192 < image.width < 4 * 192


def test_the_sheet_parts_a_prompt_from_its_figures(trained, tmp_path, networks, prompts, monkeypatch):
    headings = []

    def sheet(rows):
        headings.extend(" ".join(row.heading.split()) for row in rows)  # as it is drawn
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("cictl.workflow.evaluation_files.sheet", sheet)
    out = tmp_path / "out"
    assert cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1", *networks)[0] == 0
    one = results_in(out)["prompts"][0]
    dinov2, clip_i, clip_t = (one["figures"][key]["mean"] for key in ("dinov2", "clip_i", "clip_t"))
    assert headings[:2] == ["the photographs", f"{PROMPTS[0]}: DINOv2 {dinov2:.3f}, CLIP-I {clip_i:.3f}, CLIP-T {clip_t:.3f}"]


def test_of_more_prompts_than_a_sheet_can_hold_it_says_how_many_it_shows(trained, tmp_path, networks, prompts, monkeypatch):
    seen = []
    monkeypatch.setattr("cictl.workflow.evaluation_files._PROMPTS_ON_THE_SHEET", 2)
    monkeypatch.setattr("cictl.workflow.evaluation_files.sheet", lambda rows: seen.extend(rows) or Image.new("RGB", (8, 8)))
    out = tmp_path / "out"
    assert cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1", *networks)[0] == 0
    assert seen[0].heading == "the photographs, and below them the first 2 of 3 prompts" and len(seen) == 3
    assert len(results_in(out)["prompts"]) == 3


def test_image_similarity_is_dinov2s_against_all_photographs_whole(trained, tmp_path, networks, prompts):
    from transformers import AutoImageProcessor, Dinov2Model

    out = tmp_path / "out"
    assert cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1", *networks)[0] == 0
    folder = networks[1].partition("=")[2]
    processor, network = AutoImageProcessor.from_pretrained(folder, backend="pil"), Dinov2Model.from_pretrained(folder).eval()

    @torch.no_grad()
    def embedding(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            pixels = processor(images=image.convert("RGB"), return_tensors="pt").pixel_values
        return network(pixels).last_hidden_state[0, 0].numpy().astype(float)

    photographs = [embedding(path) for path in sorted(trained.images.iterdir())]
    for one in results_in(out)["prompts"]:
        own = embedding(out / one["pictures"][0]["path"])
        cosines = [own @ other / math.sqrt((own @ own) * (other @ other)) for other in photographs]
        assert one["pictures"][0]["figures"]["dinov2"] == pytest.approx(statistics.mean(cosines), abs=1e-5)


def test_text_similarity_is_clips_of_each_picture_and_its_own_prompt(trained, tmp_path, networks, prompts):
    from transformers import AutoImageProcessor, CLIPModel, CLIPTokenizer

    out = tmp_path / "out"
    arguments = ["--prompts", prompts, "-n", "2", "--noun", "dog", "--set", "evaluate.dinov2=null"]
    assert cictl("-C", str(trained.root), "--out", str(out), *networks, *arguments)[0] == 0
    folder = networks[3].partition("=")[2]
    network, tokenizer = CLIPModel.from_pretrained(folder).eval(), CLIPTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    for one in results_in(out)["prompts"]:
        pictures = [Image.open(out / picture["path"]) for picture in one["pictures"]]
        pixels = processor(images=pictures, return_tensors="pt").pixel_values
        with torch.no_grad():
            found = network(tokenizer(one["prompt"].replace("S*", "dog"), return_tensors="pt").input_ids, pixels)
        cosines = torch.nn.functional.cosine_similarity(found.image_embeds, found.text_embeds).tolist()
        assert [picture["figures"]["clip_t"] for picture in one["pictures"]] == pytest.approx(cosines, abs=1e-5)


def test_the_noun_stands_for_the_concept_where_clip_reads_and_nowhere_else(trained, tmp_path, networks, prompts):
    common = ["-C", str(trained.root), "--out", str(tmp_path / "out"), "--prompts", prompts, "-n", "1", *networks]
    _, shown, _ = cictl(*common)
    without = results_in(tmp_path / "out")
    assert [one["text"] for one in without["prompts"]] == ["a photo of", "a red on the beach", "a cube shaped in the snow"]
    assert "left out where CLIP reads a prompt" in shown
    drawn = picture_files(tmp_path / "out")
    _, shown, _ = cictl(*common, "--noun", "dog")
    with_noun = results_in(tmp_path / "out")
    assert [one["text"] for one in with_noun["prompts"]] == [
        "a photo of dog",
        "a red dog on the beach",
        "a cube shaped dog in the snow",
    ]
    assert "read by CLIP as 'dog'" in shown
    assert picture_files(tmp_path / "out") == drawn  # the pictures do not depend on it
    for one, other in zip(without["prompts"], with_noun["prompts"], strict=True):
        assert one["figures"]["dinov2"] == other["figures"]["dinov2"]
        assert one["figures"]["clip_t"]["mean"] != pytest.approx(other["figures"]["clip_t"]["mean"], abs=1e-6)


# -- the pictures -----------------------------------------------------------------------------------


def test_what_is_there_is_not_drawn_again_and_what_is_missing_is(trained, tmp_path, networks, prompts):
    out = tmp_path / "out"
    common = ["-C", str(trained.root), "--out", str(out), "--prompts", prompts, *networks]
    cictl(*common, "-n", "2")
    first, drawn = results_in(out), picture_files(out)
    assert len(drawn) == 6
    code, _, errors = cictl(*common, "-n", "2")
    assert code == 0 and "6 there already" in errors and "loading the libraries" not in errors
    assert picture_files(out) == drawn and results_in(out) == first
    gone = out / first["prompts"][1]["pictures"][0]["path"]
    gone.unlink()
    code, _, errors = cictl(*common, "-n", "2")
    assert code == 0 and "5 there already" in errors
    again = picture_files(out)
    assert {name: time for name, time in again.items() if name != gone.name} == {
        name: time for name, time in drawn.items() if name != gone.name
    }
    for one, other in zip(results_in(out)["prompts"], first["prompts"], strict=True):
        assert one["figures"]["dinov2"]["mean"] == pytest.approx(other["figures"]["dinov2"]["mean"], abs=0.01)
    cictl(*common, "-n", "3")
    assert len(picture_files(out)) == 9


def test_pictures_are_those_of_generate_with_the_same_seeds(trained, tmp_path, networks, prompts):
    out = tmp_path / "out"
    cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "2", "--seed", "5", *networks)
    generate.run(trained, PROMPTS, silent, overrides={"generate.count": 2, "seed": 5}, out=tmp_path / "generated")
    ours, theirs = out / "pictures", tmp_path / "generated"
    assert sorted(picture_files(out)) == sorted(path.name for path in theirs.glob("*.png"))
    for path in theirs.glob("*.png"):
        one, other = (np.asarray(Image.open(folder / path.name)).astype(int) for folder in (ours, theirs))
        assert np.abs(one - other).max() <= 1


def test_stages_are_compared_on_equal_noise_and_the_base_draws_the_noun(trained, tmp_path, networks, prompts):
    names = {}
    for stage in ("finetune", "invert", "base"):
        out = tmp_path / stage
        arguments = ["-C", str(trained.root), "--stage", stage, "--noun", "dog", "--out", str(out), "--prompts", prompts]
        code, _, errors = cictl(*arguments, "-n", "2", *networks)
        assert code == 0, errors
        found = results_in(out)
        assert found["stage"] == stage
        names[stage] = [[picture["seed"] for picture in one["pictures"]] for one in found["prompts"]]
        with Image.open(out / found["prompts"][1]["pictures"][0]["path"]) as image:
            drawn_of = json.loads(image.text["cictl"])["prompt"]
        assert drawn_of == ("a red dog on the beach" if stage == "base" else "a red S* on the beach")
    assert names["finetune"] == names["invert"] == names["base"] == [[0, 1]] * 3


def test_a_figure_that_is_switched_off_is_left_out(trained, tmp_path, networks, prompts):
    out = tmp_path / "out"
    common = ["-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1"]
    _, shown, _ = cictl(*common, *networks, "--set", "evaluate.dinov2=null")
    assert list(results_in(out)["overall"]) == ["clip_i", "clip_t"] and results_in(out)["dinov2"] is None
    _, shown, _ = cictl(*common, *networks, "--set", "evaluate.clip=null")
    assert list(results_in(out)["overall"]) == ["dinov2"]
    assert "CLIP-T" not in shown
    code, _, errors = cictl(*common, "--set", "evaluate.dinov2=null", "--set", "evaluate.clip=null")
    assert code == 2 and "nothing to measure with" in errors


def test_photographs_of_another_day_are_warned_of(copy_of_trained, tmp_path, networks, prompts):
    make_photographs(tmp_path / "more", count=4)
    (copy_of_trained.images / "another.png").write_bytes((tmp_path / "more" / "photo-3.png").read_bytes())
    common = ["-C", str(copy_of_trained.root), "--prompts", prompts, "-n", "1", *networks]
    code, _, errors = cictl(*common)
    assert code == 0 and "the photographs are not those that stage 1 was trained with" in errors
    assert len(results_in(copy_of_trained.outputs / "evaluation")["photographs"]) == 4


def blank(count: int, monkeypatch) -> None:
    """As if a safety checker had blanked the first ``count`` pictures."""
    from cictl.workflow import evaluate, pictures

    def draw(*arguments, **keywords):
        drawn = pictures.draw_pictures(*arguments, **keywords)
        return pictures.Drawn(drawn.paths, drawn.kept, drawn.paths[:count])

    monkeypatch.setattr(evaluate, "draw_pictures", draw)


def test_blanked_pictures_count_nowhere(trained, tmp_path, networks, prompts, monkeypatch):
    out = tmp_path / "out"
    common = ["-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "2", *networks]
    cictl(*common)
    whole = results_in(out)["prompts"]
    blank(3, monkeypatch)
    code, shown, _ = cictl(*common)
    found = results_in(out)
    assert code == 0
    assert found["prompts"][0]["figures"]["dinov2"] == {"mean": None, "std": None, "count": 0}
    assert all(picture["figures"] == {} for picture in found["prompts"][0]["pictures"])
    second, rest = found["prompts"][1]["figures"], found["prompts"][2]["figures"]
    for name in ("dinov2", "clip_i", "clip_t"):
        assert second[name]["mean"] == pytest.approx(whole[1]["pictures"][1]["figures"][name])
        assert rest[name]["mean"] == pytest.approx(whole[2]["figures"][name]["mean"])
        assert found["overall"][name]["mean"] == pytest.approx((second[name]["mean"] + rest[name]["mean"]) / 2)
        assert found["overall"][name]["count"] == 2
    [line] = [line for line in shown.splitlines() if line.startswith(PROMPTS[0])]
    assert line.split()[-3:] == ["-"] * 3


def test_nothing_is_measured_where_all_pictures_are_blanked(trained, tmp_path, networks, prompts, monkeypatch):
    blank(3, monkeypatch)
    out = tmp_path / "out"
    code, _, errors = cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1", *networks)
    assert code == 1 and "blanked all 3 pictures" in errors
    assert not (out / "results.json").exists()


# -- where it lies ----------------------------------------------------------------------------------


def test_another_stage_or_step_takes_the_place_of_no_other_and_draws_no_picture_twice(
    copy_of_trained, tmp_path, networks, prompts
):
    folder = copy_of_trained.outputs / "evaluation"
    common = ["-C", str(copy_of_trained.root), "--prompts", prompts, "-n", "1", "--noun", "dog", *networks]
    asked = {
        ".": [], "step-0000003": ["--step", "3"], "invert": ["--stage", "invert"],
        "invert/step-0000004": ["--stage", "invert", "--step", "4"], "base": ["--stage", "base"],
    }  # fmt: skip
    found = {}
    for place, arguments in asked.items():
        code, shown, errors = cictl(*common, *arguments)
        assert code == 0, errors
        assert copy_of_trained.shown(folder / place / "results.json") in shown
        assert all((folder / one / "results.json").read_bytes() == content for one, content in found.items())
        found[place] = (folder / place / "results.json").read_bytes()
        for one in json.loads(found[place])["prompts"]:
            assert all((folder / place / picture["path"]).is_file() for picture in one["pictures"])
    assert sorted(path.parent for path in folder.rglob("sheet.png")) == sorted(folder / place for place in asked)
    measured = [json.loads(content) for content in found.values()]
    assert [(one["stage"], one["steps"]) for one in measured] == [
        ("finetune", 6), ("finetune", 3), ("invert", 8), ("invert", 4), ("base", 0),
    ]  # fmt: skip
    drawn = picture_files(folder)
    assert len(drawn) == 5 * 3 and not list(folder.glob("*/**/pictures"))

    last = ["--stage", "finetune", "--step", "6"]  # another name of the first
    code, _, errors = cictl(*common, *last)
    assert code == 0 and "3 there already" in errors and picture_files(folder) == drawn
    assert {path.parent for path in folder.rglob("results.json")} == {folder / place for place in asked}
    code, _, errors = cictl(*common, "--step", "3")
    assert code == 0 and "3 there already" in errors and picture_files(folder) == drawn


def test_before_stage_2_the_first_one_is_the_furthest(copy_of_trained, networks, prompts):
    shutil.rmtree(copy_of_trained.stage_folder("finetune"))
    common = ["-C", str(copy_of_trained.root), "--prompts", prompts, "-n", "1", *networks]
    for arguments in ([], ["--stage", "invert"]):
        assert cictl(*common, *arguments)[0] == 0
    assert [path.parent.name for path in copy_of_trained.outputs.rglob("results.json")] == ["evaluation"]


# -- how it is shown --------------------------------------------------------------------------------


def test_json_is_one_object_with_all_figures(trained, tmp_path, networks, prompts):
    out = tmp_path / "out"
    code, shown, _ = cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1", "--json", *networks)
    result = json.loads(shown.splitlines()[-1])
    assert code == 0 and result["event"] == "Result"
    assert result["measured"] == results_in(out)
    assert Path(result["results"]).name == "results.json" and Path(result["sheet"]).name == "sheet.png"


def test_one_picture_has_no_standard_deviation(trained, tmp_path, networks, prompts):
    out = tmp_path / "out"
    _, shown, _ = cictl("-C", str(trained.root), "--out", str(out), "--prompts", prompts, "-n", "1", *networks)
    assert all(score["std"] is None for one in results_in(out)["prompts"] for score in one["figures"].values())
    assert results_in(out)["overall"]["dinov2"]["std"] is not None
    [line] = [line for line in shown.splitlines() if line.startswith(PROMPTS[0])]
    assert "±" not in line


# -- what is refused --------------------------------------------------------------------------------


def test_before_any_training_the_next_command_is_said(make_workspace, networks):
    code, _, errors = cictl("-C", str(make_workspace().root), *networks)
    assert code == 3
    assert "stage 1 has not been run" in errors and "cictl invert" in errors


def test_the_default_networks_without_a_network_are_asked_for_before_anything_is_drawn(trained, tmp_path):
    code, _, errors = cictl("-C", str(trained.root), "--out", str(tmp_path / "out"))
    assert code == 4
    assert "facebook/dinov2-base (evaluate.dinov2) is not on this machine" in errors
    assert "to null to go without it" in " ".join(errors.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    (["--prompts", "dreambench"], "there is no prompt set 'dreambench', and no file of that name"),
    (["--prompts", "toybox"], "these photographs are not of one"),
    (["--prompts", "EMPTY"], "holds no prompt"),
    (["--prompts", "WITHOUT"], "'a dog in the snow' does not mention S*"),
    (["--prompts", "NEARLY"], "did you mean S* where it says s*?"),
    (["--prompts", "LATIN"], "is not UTF-8"),
    (["--stage", "base"], "does not know S*"),
    (["-n", "0"], "evaluate.count"),
])  # fmt: skip
def test_what_cannot_be_evaluated_is_said(trained, tmp_path, networks, arguments, said):
    files = {"EMPTY": b"# nothing\n\n", "WITHOUT": b"S*\na dog in the snow\n", "NEARLY": b"a s* here\n", "LATIN": b"S* \xe9\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    arguments = [str(tmp_path / one) if one in files else one for one in arguments]
    code, _, errors = cictl("-C", str(trained.root), "--out", str(tmp_path / "out"), *networks, *arguments)
    assert code == 2
    assert said in " ".join(errors.split())
    assert not (tmp_path / "out").exists()


def test_an_unknown_set_names_those_that_there_are(trained):
    _, _, errors = cictl("-C", str(trained.root), "--prompts", "nothing")
    for name in ("dreambench-object", "dreambench-live", "object", "style", "pose"):
        assert name in errors


@pytest.mark.parametrize(
    ("stage", "told"), [("finetune", ["strength 0.9, avoid 0.5"]), ("invert", ["avoid 0.5"]), ("textual-inversion", [])]
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_what_is_drawn_otherwise_than_usual_is_said_where_it_has_an_effect(copy_of_trained, networks, prompts, stage, told, more):
    if stage == "textual-inversion":
        baseline.run(copy_of_trained, stage, silent, overrides={"textual_inversion.steps": 1, "evaluate.noun": "dog"})
    ways = ["--set=generate.strength=0.9", "--set=generate.avoid=0.5", "--set=generate.steps=1", "-n", "1", *more]
    code, shown, errors = cictl("-C", str(copy_of_trained.root), "--stage", stage, "--prompts", prompts, *networks, *ways)
    assert code == 0, errors
    assert [line.split(":", 1)[1].strip() for line in shown.splitlines() if line.startswith("drawn:")] == told

"""The paper's Table 1 over subjects: two tiny ones, a thing and an animal, from photographs to the table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.table1 import __main__ as command
from benchmarks.table1 import jobs, report
from benchmarks.table1.dreambench import NOUNS, DreamBench, Subject, find, read_nouns
from cictl.config import Sources, commented_yaml, initial_config, load_config
from cictl.config.templates import templates_folder
from cictl.data.prompts import read_prompts
from cictl.errors import Interrupted, StateError, UsageError
from cictl.events import ignore
from cictl.workflow import evaluate, invert
from cictl.workflow.rows import ROWS
from cictl.workspace import Workspace
from tests.evaluation_models import make_clip, make_dinov2
from tests.support import quick
from tests.tiny import make_photographs

LIST = """Classes

subject_name,class
old_cat,cat
duck_toy,stuffed animal
gone,vase

Prompts
"""


@pytest.fixture(scope="module")
def dreambench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with two subjects of three."""
    folder = tmp_path_factory.mktemp("dreambooth")
    for name in ("old_cat", "duck_toy"):
        (folder / "dataset" / name).mkdir(parents=True)
        make_photographs(folder / "dataset" / name)
    (folder / "dataset" / "prompts_and_classes.txt").write_text(LIST)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, base: Path) -> list[str]:
    """A tiny base and networks that measure, and settings under which a job takes seconds."""
    folder = tmp_path_factory.mktemp("measuring")
    settings: dict[str, Any] = {
        **quick(base), "evaluate.dinov2": make_dinov2(folder / "dinov2"), "evaluate.clip": make_clip(folder / "clip", base),
        "invert.steps": 4, "finetune.steps": 2, "textual_inversion.steps": 2, "textual_inversion.start": "toy",
        "generate.steps": 1, "evaluate.count": 1, "checkpoint.interval": 2, "checkpoint.snapshots": 1,
    }  # fmt: skip
    return ["--model", str(base), *(f"--set={key}={value}" for key, value in settings.items())]


@pytest.fixture
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two prompts in place of 25."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a photo of S*\na red S* on the beach\n")
    return f"--set=evaluate.prompts={path}"


@pytest.fixture
def table1(dreambench: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command in ``work``; its exit code and what it printed."""

    def run(work: Path, *arguments: str) -> tuple[int, str]:
        code = command.main(["--dreambench", str(dreambench), "--work", str(work), *tiny, *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".safetensors", ".png", ".json")}


# -- the whole of it ------------------------------------------------------------------------------------


def test_jobs_leave_a_table_and_are_then_done(tmp_path: Path, table1, few: str):
    rows = ("base", "invert", "finetune")
    code, printed = table1(tmp_path, few, "--methods", *rows)
    assert code == 0, printed
    assert "4 jobs, 0 of them done" in printed  # both stages are one
    found = json.loads((tmp_path / "table1.json").read_text())
    for row in rows:
        results = {
            name: json.loads((tmp_path / "results" / row / f"{name}.json").read_text()) for name in ("old_cat", "duck_toy")
        }
        steps = {"base": ["0"], "invert": ["2", "4"], "finetune": ["1", "2"]}[row]
        assert list(found["rows"][row]["steps"]) == steps and found["rows"][row]["last"] == int(steps[-1])
        assert found["rows"][row]["best"] in ([int(step) for step in steps] if row != "base" else [None])
        for step, shown in found["rows"][row]["steps"].items():
            for figure in report.FIGURES:
                mean, low, high = shown["figures"][figure]
                own = [result["figures"][step][figure]["mean"] for result in results.values()]
                assert mean == pytest.approx(sum(own) / 2)
                assert (low, high) == pytest.approx((min(own), max(own)))  # all that two subjects can say
                in_table = f"{mean:.3f} ({low:.3f}-{high:.3f})" in (tmp_path / "table1.md").read_text()
                assert in_table or int(step) not in (found["rows"][row]["last"], found["rows"][row]["best"])
        assert found["rows"][row]["paper"] == report.PAPER[row]
    assert found["missing"] == ["gone"] and "2 of 3 subjects of DreamBench; the photographs of gone are not there." in printed
    assert found["command"].startswith("python -m benchmarks.table1 --dreambench ")
    assert {"device", "cictl", "torch", "diffusers"} <= found["circumstances"][0].keys()

    before = files(tmp_path)
    code, printed = table1(tmp_path, few, "--methods", *rows)
    assert code == 0 and "4 jobs, 4 of them done" in printed
    assert {path.name for path, time in files(tmp_path).items() if before.get(path) != time} == {"table1.json"}


def test_along_the_way_is_measured_as_evaluate_measures_it_and_from_the_same_noise(tmp_path: Path, table1, few: str):
    arguments = (few, "--subjects", "old_cat", "--methods", "invert")
    code, printed = table1(tmp_path, *arguments, "--last")
    assert code == 0 and "stage 1 (last) | 1 |" in printed and "best:" not in printed
    result = tmp_path / "results" / "invert" / "old_cat.json"
    alone = json.loads(result.read_text())
    pictures = {path: time for path, time in files(tmp_path).items() if path.parent.name == "pictures"}
    assert list(alone["figures"]) == ["4"] and len(pictures) == 2

    code, printed = table1(tmp_path, *arguments)  # the last alone is not all that is wanted now, but half of it
    assert code == 0 and "1 jobs, 0 of them done" in printed
    assert "for all subjects, 0.5 or 1, whichever" in printed
    both = json.loads(result.read_text())
    assert set(both["figures"]) == {"2", "4"} and both["figures"]["4"] == alone["figures"]["4"]
    assert both["identity"] == alone["identity"]
    assert {path: files(tmp_path)[path] for path in pictures} == pictures
    workspace = Workspace(tmp_path / "old_cat" / jobs.OURS)
    own = evaluate.run(workspace, ignore, source="invert", step=2, out=tmp_path / "own").measured
    assert {name: asdict(score) for name, score in own.overall.items()} == both["figures"]["2"]

    code, printed = table1(tmp_path, *arguments, "--last")
    assert code == 0 and "1 jobs, 1 of them done" in printed and "best:" not in printed
    assert json.loads(result.read_text()) == both
    assert list(json.loads((tmp_path / "table1.json").read_text())["rows"]["invert"]["steps"]) == ["4"]


def test_each_subject_has_its_noun_and_the_prompts_of_its_kind_on_equal_noise(tmp_path: Path, table1):
    assert table1(tmp_path, "--last", "--methods", "base", "textual-inversion")[0] == 0
    for name, noun, prompts in (("old_cat", "cat", "dreambench-live"), ("duck_toy", "stuffed animal", "dreambench-object")):
        asked = read_prompts(templates_folder() / "prompts" / f"{prompts}.txt")
        seeds = []
        for row in ("base", "textual-inversion"):
            measured = json.loads((tmp_path / name / row / "outputs" / "table1" / row / "results.json").read_text())
            assert (measured["noun"], measured["prompt_set"], measured["stage"]) == (noun, prompts, row)
            assert [one["prompt"] for one in measured["prompts"]] == asked
            assert all(noun in one["text"] for one in measured["prompts"])
            seeds.append([picture["seed"] for one in measured["prompts"] for picture in one["pictures"]])
        assert seeds[0] == seeds[1]


def test_a_job_that_was_stopped_goes_on_and_finds_the_same_figures(
    tmp_path: Path, table1, few: str, monkeypatch: pytest.MonkeyPatch
):
    arguments = (few, "--subjects", "old_cat", "--methods", "invert,finetune")

    def fails(*_: Any, **__: Any) -> Any:
        raise StateError("the machine is gone", "go on", slug="gone")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "run_all", fails)
        code, printed = table1(tmp_path / "stopped", *arguments)
        assert code == 1 and "the machine is gone" in printed and "Failed: old_cat/contrastive-inversion." in printed
        assert "not measured" in (tmp_path / "stopped" / "table1.md").read_text()
    trained = {path: time for path, time in files(tmp_path / "stopped").items() if "invert" in path.parts}
    assert trained
    with monkeypatch.context() as patch:
        actions = []
        real = invert.run
        patch.setattr(invert, "run", lambda *args, **named: [outcome := real(*args, **named), actions.append(outcome.action)][0])
        assert table1(tmp_path / "stopped", *arguments)[0] == 0
    assert set(actions) == {"skip"}
    assert {path: files(tmp_path / "stopped")[path] for path in trained} == trained
    assert table1(tmp_path / "whole", *arguments)[0] == 0
    for row in ("invert", "finetune"):
        one, other = (
            json.loads((tmp_path / name / "results" / row / "old_cat.json").read_text()) for name in ("stopped", "whole")
        )
        assert one == other


def test_one_failure_stops_no_other_job_and_other_settings_are_other_results(tmp_path: Path, table1, few: str):
    assert table1(tmp_path, few, "--last", "--subjects", "old_cat", "--methods", "invert")[0] == 0
    code, printed = table1(tmp_path, few, "--last", "--methods", "invert", "--set=invert.temperature=0.5")
    assert code == 1
    assert "old_cat/contrastive-inversion  what cictl invert was trained with has changed" in printed
    assert "duck_toy/contrastive-inversion  done" in printed
    assert json.loads((tmp_path / "table1.json").read_text())["rows"]["invert"]["subjects"] == ["duck_toy"]
    code, printed = table1(tmp_path, few, "--subjects", "old_cat", "--methods", "invert", "--set=invert.steps=2")
    assert code == 1 and "4 steps, not for 2" in printed


def test_a_signal_stops_all_jobs(tmp_path: Path, table1, few: str, monkeypatch: pytest.MonkeyPatch):
    def stopped(*_: Any, **__: Any) -> Any:
        raise Interrupted(15, "stopped after a step", "cictl invert goes on from there")

    monkeypatch.setattr(invert, "run", stopped)
    code, printed = table1(tmp_path, few, "--methods", "invert")
    assert code == 143 and "the same command goes on" in printed
    assert not (tmp_path / "duck_toy").exists()


def test_what_cannot_be_is_said_at_once(tmp_path: Path, table1, dreambench: Path):
    code, printed = table1(tmp_path, "--subjects", "gone")
    assert code == 2 and "no photographs of gone" in printed and "old_cat, duck_toy" in printed
    assert table1(tmp_path, "--set=invert.stepz=1")[0] == 2
    assert table1(tmp_path, "--methods", "magic")[0] == 2
    assert command.main(["--dreambench", str(tmp_path), "--work", str(tmp_path / "new")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_jobs_on_ray_end_as_jobs_here_do(tmp_path: Path, table1, few: str):
    pytest.importorskip("ray")
    arguments = (few, "--subjects", "old_cat", "--methods", "base", "invert", "--last")
    code, printed = table1(tmp_path / "ray", *arguments, "--ray", "local", "--gpus", "0")
    assert code == 0, printed
    assert table1(tmp_path / "here", *arguments)[0] == 0
    for row in ("base", "invert"):
        one, other = (json.loads((tmp_path / name / "results" / row / "old_cat.json").read_text()) for name in ("ray", "here"))
        assert one["identity"] == other["identity"]
        for figure in report.FIGURES:
            [mine], [theirs] = ([figures[figure]["mean"] for figures in result["figures"].values()] for result in (one, other))
            assert mine == pytest.approx(theirs, abs=1e-5)


# -- its parts ------------------------------------------------------------------------------------------


def test_dreambench_has_thirty_subjects_of_which_nine_are_alive():
    subjects = [Subject(name, noun, Path(name)) for name, noun in NOUNS.items()]
    assert len(subjects) == 30
    live = {subject.name for subject in subjects if subject.prompt_set == "dreambench-live"}
    assert live == {"cat", "cat2", *(f"dog{number}" for number in ("", 2, 3, 5, 6, 7, 8))}


def test_nouns_are_those_of_the_list_or_else_of_ours(dreambench: Path, tmp_path: Path):
    assert read_nouns(LIST) == {"old_cat": "cat", "duck_toy": "stuffed animal", "gone": "vase"}
    assert [subject.noun for subject in find(dreambench).subjects] == ["cat", "stuffed animal"]
    (tmp_path / "teapot").mkdir()
    [teapot] = find(tmp_path).subjects
    assert (teapot.noun, len(find(tmp_path).missing)) == ("teapot", 29)


def test_textual_inversion_starts_as_a_single_word(dreambench: Path, tmp_path: Path):
    config = jobs.settings(jobs.Job(tmp_path, find(dreambench).subjects[1], ("textual-inversion",)))
    assert (config.evaluate.noun, config.textual_inversion.start) == ("stuffed animal", "animal")


def test_our_two_stages_are_one_job_and_every_job_has_a_workspace_of_its_own(dreambench: Path, tmp_path: Path):
    planned = jobs.plan(tmp_path, find(dreambench).subjects, ROWS)
    assert len(planned) == 2 * (len(ROWS) - 1) == len({job.workspace.root for job in planned})
    assert {job.rows for job in planned if len(job.rows) > 1} == {("invert", "finetune")}


def test_settings_of_an_earlier_run_leave_no_trace_in_the_workspace(dreambench: Path, tmp_path: Path):
    subject = find(dreambench).subjects[0]
    short = jobs.Job(tmp_path, subject, ("base",), overrides={"generate.steps": 1})
    plain = jobs.Job(tmp_path, subject, ("base",))
    assert jobs.identity(short, "base") != jobs.identity(plain, "base")
    texts = [jobs._prepare(job).config_file.read_text() for job in (plain, short, plain)]
    assert texts[0] == texts[2] != texts[1]


def test_other_photographs_are_noticed(dreambench: Path, tmp_path: Path):
    subject = find(dreambench).subjects[0]
    job = jobs.Job(tmp_path, subject, ("base",))
    workspace: Workspace = jobs._prepare(job)
    next(path for path in workspace.images.iterdir()).unlink()
    assert "no longer those" in jobs.attempt(job)


def test_settings_are_those_of_a_new_workspace_but_for_what_was_given(dreambench: Path, tmp_path: Path):
    subject = find(dreambench).subjects[0]
    for model in (None, "toybox"):
        job = jobs.Job(tmp_path, subject, ("base",), model=model, overrides={"invert.steps": 3})
        file = tmp_path / "ci.yaml"
        file.write_text(commented_yaml(initial_config(name="old-cat", model=model)))
        given = {"evaluate.noun": "cat", "evaluate.prompts": "dreambench-live", "invert.steps": 3}
        assert jobs.settings(job) == load_config(Sources(file, overrides=given))


def outcome(rows: Mapping[Any, Mapping[str, Mapping[int, tuple[float | None, float]]]], *names: str) -> report.Outcome:
    """Of DINOv2 and CLIP-T, by row, subject and steps, of which the last are all."""
    model = {"id": "base", "identity": "0" * 64}

    def result(steps: Mapping[int, tuple[float | None, float]]) -> dict[str, Any]:
        figures = {
            str(step): {name: {"mean": mean, "std": None, "count": 1} for name, mean in zip(report.FIGURES, pair, strict=True)}
            for step, pair in steps.items()
        }
        models = {"base": model, "dinov2": None, "clip": model}
        identity = {"prompts": ["S*"] * 25}
        own = {"steps": max(steps), "figures": figures, "models": models}
        return {**own, "identity": identity, "count": 4, "circumstances": {}}

    results = {row: {name: result(steps) for name, steps in own.items()} for row, own in rows.items()}
    dreambench = DreamBench(tuple(Subject(name, "vase", Path(name)) for name in names), ())
    return report.Outcome(dreambench, list(rows), results, {"two/invert": "why"}, {})


def test_the_best_is_one_share_for_all_subjects_by_the_harmonic_mean_of_the_columns():
    rows: dict[Any, Any] = {
        "base": {"one": {0: (0.3, 0.4)}, "two": {0: (0.3, 0.4)}},
        # Of subject one 2 is the best, of subject two 6; of their means, which are (0.5, 0.25), (0.4, 0.4), (0.7, 0.2), it is 4.
        "invert": {
            "one": {2: (0.9, 0.45), 4: (0.4, 0.4), 6: (0.5, 0.1), 8: (0.2, 0.3)},
            "two": {2: (0.1, 0.05), 4: (0.4, 0.4), 6: (0.9, 0.3), 8: (0.4, 0.3)},
        },
        "dreambooth": {"one": {2: (0.3, 0.3), 4: (0.5, 0.5)}, "two": {2: (0.3, 0.3), 4: (0.5, 0.5)}},
        "finetune": {"one": {1: (0.3, 0.3), 2: (0.3, 0.3)}, "two": {2: (0.3, 0.3)}},
        "disenbooth": {"one": {2: (0.3, 0.3), 4: (0.3, 0.3)}, "two": {2: (0.3, 0.3), 4: (0.3, 0.3)}},
    }
    table = outcome(rows, "one", "two")
    assert {row: table.chosen(row) for row in rows} == {
        "base": [("", 0)], "invert": [("last", 8), ("best", 4)], "dreambooth": [("last and best", 4)],
        "finetune": [("last", 2)],  # since of one subject there is nothing else
        "disenbooth": [("last and best", 4)],  # of equal ones the last
    }  # fmt: skip
    text = report.markdown(table)
    assert re.search(r"stage 1 \(last\) \| 1 \| 0\.300 .*\n\| .*stage 1 \(best\) \| 0\.5 \| 0\.400 ", text)
    assert re.search(r"pre-trained model \|  \| 0\.300", text)
    assert "for all subjects, 0.25 or 0.5 or 0.75 or 1, whichever has the highest harmonic mean of DINOv2 and CLIP-T" in text
    said = report.summary(table)["rows"]["invert"]
    assert (said["last"], said["best"]) == (8, 4) and list(said["steps"]) == ["2", "4", "6", "8"]
    assert said["steps"]["4"]["harmonic_mean"] == pytest.approx(0.4) and said["steps"]["4"]["share"] == 0.5
    alone = replace(table, last_alone=True)
    assert alone.chosen("invert") == [("last", 8)] and "best:" not in report.markdown(alone)


def test_the_caption_counts_the_subjects_that_were_asked_for():
    rows: dict[Any, Any] = {row: {"one": {0: (0.3, 0.4)}} for row in ("base", "invert")}
    text = report.markdown(outcome(rows, "one", "two", "three"))
    assert "1 of 3 subjects of DreamBench." in text and "not to be compared" not in text
    rows["invert"] = {"two": {0: (0.3, 0.4)}}
    assert "2 of 3 subjects" in (text := report.markdown(outcome(rows, "one", "two", "three"))) and "not to be compared" in text


def test_the_caption_says_where_not_all_results_were_made_alike():
    made = outcome({"base": {"one": {0: (0.3, 0.4)}}, "invert": {"one": {2: (0.3, 0.4)}}}, "one")
    made.results["base"]["one"]["circumstances"] = {"device": "H100", "dtype": "bf16", "torch": "2"}
    made.results["invert"]["one"]["circumstances"] = {"device": "H100", "dtype": "fp32", "torch": "2"}
    assert "Not all were made alike: dtype bf16 or fp32.\n" in report.markdown(made)
    made.results["invert"]["one"]["circumstances"]["dtype"] = "bf16"
    assert "made alike" not in report.markdown(made)


def test_the_table_says_which_rows_lack_what():
    one, two = {0: (None, 0.2)}, {0: (None, 0.4)}
    rows = {"base": {"one": one, "two": two}, "invert": {"one": {2: (None, 0.5), 4: (None, 0.3)}}, "finetune": {}}
    lines = report.markdown(outcome(rows, "one", "two", "three")).splitlines()
    assert re.search(r"\| not measured \| 0\.300 \(0\.200-0\.400\) \| 2 \| 0\.314 \| 0\.329 \|$", lines[2])
    assert re.search(r"\(last\) \| 1 \| not measured \| 0\.300 \| 1 \|", lines[3])  # of one figure alone there is no best
    assert re.search(r"\| not measured \| not measured \| 0 \|", lines[4])
    text = "\n".join(lines[5:])
    assert "not to be compared" in text and "two/invert" in text and "25 prompts for each subject, 4 of each" in text
    assert "best:" not in text
    with pytest.raises(UsageError):
        command._chosen(DreamBench((), ("one",)), [])

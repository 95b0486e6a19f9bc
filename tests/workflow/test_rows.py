"""What of each method is drawn and measured in a comparison, and how much is read for it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from cictl import records
from cictl.events import Note, Warned
from cictl.records import RESULT, SNAPSHOTS, step_folder
from cictl.workflow import baseline, compare, evaluate, invert
from cictl.workflow.rows import draw_and_measure, kept_along_the_way
from cictl.workflow.stage import configure
from tests.evaluation_models import make_clip
from tests.support import Recorder, silent
from tests.workflow.test_concept import flip


@pytest.fixture
def quick(tmp_path, base) -> dict[str, object]:
    """One picture of one step, and a network that measures it."""
    (tmp_path / "prompts.txt").write_text("a photo of S*\n")
    return {
        "evaluate.dinov2": None, "evaluate.clip": str(make_clip(tmp_path / "clip", base)), "evaluate.count": 1,
        "evaluate.prompts": str(tmp_path / "prompts.txt"), "generate.steps": 1,
    }  # fmt: skip


def test_of_each_result_the_hash_is_computed_once_and_of_what_is_not_drawn_never(copy_of_trained, quick, monkeypatch):
    hashed: Counter[str] = Counter()
    sha256_file, root = records.sha256_file, copy_of_trained.checkpoints

    def count(path):
        hashed[path.relative_to(root).as_posix()] += 1
        return sha256_file(path)

    monkeypatch.setattr(records, "sha256_file", count)
    monkeypatch.setattr("cictl.workflow.compare.train", lambda *given: [])  # which looks at states, too
    compare.run(copy_of_trained, silent, methods=["invert", "finetune"], overrides=quick)
    steps = {"invert": (2, 4, 6), "finetune": (2, 3, 4)}
    drawn = {f"{row}/{SNAPSHOTS}/{step_folder(step)}/{RESULT}": 1 for row, kept in steps.items() for step in kept}
    # The tokens of stage 1 are a part of each of stage 2, and those of each photograph are drawn, too.
    assert hashed == {**drawn, f"finetune/{step_folder(6)}/{RESULT}": 1, f"invert/{step_folder(8)}/{RESULT}": 1 + 4 + 1}


def test_a_precision_a_device_a_size_or_a_seed_that_set_gave_one_training_alone_draws_none_of_its_rows(
    copy_of_trained, quick, monkeypatch
):
    given = {"model.dtype": "bf16", "model.device": "cpu", "data.resolution": 128, "seed": 5}
    baseline.run(copy_of_trained, "textual-inversion", silent, overrides={**given, "textual_inversion.steps": 1})
    kept = configure(copy_of_trained, {}, upto="textual-inversion")
    assert (kept.model.dtype, kept.model.device, kept.picture_size, kept.seed) == ("bf16", "cpu", (128, 128), 5)
    devices, real = [], evaluate.draw_pictures

    def draw(config, *others, **named):
        devices.append(config.model.device)
        return real(config, *others, **named)

    monkeypatch.setattr(evaluate, "draw_pictures", draw)
    compare.run(copy_of_trained, silent, methods=["textual-inversion", "invert"], overrides=quick, last_alone=True)
    found = [json.loads(path.read_text("utf-8")) for path in (copy_of_trained.outputs / "compare").rglob("*/results.json")]
    assert {one["stage"] for one in found} == {"textual-inversion", "invert"}
    drawn = [(one["seed"], *(one["sampling"][key] for key in ("dtype", "width", "height"))) for one in found]
    assert drawn == [(0, "auto", 64, 64)] * 2 and devices == ["auto"] * 2


def test_ways_to_draw_shape_the_rows_that_they_can_and_of_the_others_it_is_said_once(copy_of_trained, quick):
    recorder, ways = Recorder(), {"generate.strength": 0.5, "generate.avoid": 0.25}
    overrides = {**quick, **ways, "evaluate.noun": "dog"}
    compare.run(copy_of_trained, recorder, methods=["base", "invert", "finetune"], overrides=overrides)
    folder = copy_of_trained.outputs / "compare"
    found = [json.loads(path.read_text("utf-8")) for path in folder.rglob("*/results.json")]
    drawn = {one["stage"]: (one["sampling"]["strength"], one["sampling"]["avoid"]) for one in found}
    assert drawn == {"base": (1, 0), "invert": (1, 0.25), "finetune": (0.5, 0.25)}
    asked = json.loads((folder / "results.json").read_text("utf-8"))["sampling"]
    assert (asked["strength"], asked["avoid"]) == (0.5, 0.25)
    notes = [text for text in recorder.texts(Note) if "makes no difference" in text]
    assert len(notes) == len(set(notes)) == 3  # strength for the base and stage 1, and avoid for the base


def test_a_damaged_snapshot_is_left_out_and_named(copy_of_trained, quick, tmp_path):
    recorder = Recorder()
    flip(copy_of_trained.stage_folder("invert") / SNAPSHOTS / step_folder(4) / RESULT)
    found = draw_and_measure(copy_of_trained, ["invert"], recorder, out=tmp_path / "out", overrides=quick)
    [warning] = recorder.texts(Warned)
    assert warning.startswith(f"the snapshot invert/{SNAPSHOTS}/{step_folder(4)} is passed over: {RESULT} is damaged")
    assert [one.measured.steps for one in found["invert"]] == [8, 2, 6]


def test_a_snapshot_whose_every_picture_is_blanked_is_left_out_and_named_and_its_row_stays(
    copy_of_trained, quick, tmp_path, monkeypatch
):
    real = evaluate.draw_pictures

    def draw(config, base, concept, *others, **named):
        drawn = real(config, base, concept, *others, **named)
        return replace(drawn, blanked=drawn.paths) if concept.steps == 4 else drawn

    monkeypatch.setattr(evaluate, "draw_pictures", draw)
    recorder, rows = Recorder(), []
    found = draw_and_measure(
        copy_of_trained, ["invert"], recorder, out=tmp_path, overrides=quick, on_blank=lambda row, error: rows.append(row)
    )
    assert [one.measured.steps for one in found["invert"]] == [8, 2, 6] and not rows
    [warning] = recorder.texts(Warned)
    assert "stage 1 after 4 steps is left out: the base model's safety checker blanked all" in warning


def test_an_early_end_at_a_snapshots_step_is_drawn_once(make_workspace):
    workspace = make_workspace()
    rule = {"invert.stop_every": 2, "invert.stop_window": 4, "invert.stop_ratio": 0.999}
    ended = invert.run(workspace, silent, overrides={**rule, "invert.steps": 16, "checkpoint.snapshots": 7})
    snapshots = [one.step for one in records.snapshots(workspace.stage_folder("invert"))]
    assert ended.ended_early and snapshots[-1] == ended.steps
    assert [one.step for one in kept_along_the_way(workspace, "invert")] == snapshots[:-1]

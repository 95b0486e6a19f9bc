"""logs/<stage>.jsonl."""

from __future__ import annotations

import json

from cictl.events import CheckpointSaved, Memory, Note, Progress, StepCompleted
from cictl.workflow.event_log import EventLog, read_losses
from tests.support import Recorder, silent


def write(path, keep_steps, *events, observe=silent) -> None:
    log = EventLog(path, keep_steps, observe)
    for event in events:
        log(event)
    log.close()


def test_steps_hold_no_time_and_everything_is_passed_on(tmp_path):
    path, recorder = tmp_path / "logs" / "invert.jsonl", Recorder()
    events = [
        Note("x"),
        StepCompleted(1, {"diffusion": 0.1}),
        Progress(1, 2, {}, 0.1, Memory("cpu", 1, 1, 1)),
        CheckpointSaved(1, path),
    ]
    write(path, None, *events, observe=recorder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert recorder.events == events
    assert [line["event"] for line in lines] == ["Note", "StepCompleted", "Progress", "CheckpointSaved"]
    assert lines[1] == {"event": "StepCompleted", "step": 1, "losses": {"diffusion": 0.1}}
    assert "time" in lines[0]


def test_losses_read_back_bit_for_bit(tmp_path):
    losses = [(step, {"a": 0.1 * step, "b": 1 / 3 / step}) for step in range(1, 20)]
    write(tmp_path / "x.jsonl", None, *(StepCompleted(step, terms) for step, terms in losses))
    assert read_losses(tmp_path / "x.jsonl") == losses


def test_later_steps_are_cut_off_and_a_torn_or_foreign_line_is_passed_over(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, None, Note("begin"), *(StepCompleted(step, {"a": step}) for step in range(1, 8)), CheckpointSaved(6, path))
    with path.open("ab") as file:
        file.write(b'[1, 2]\n\xff\xfe\n{"event": "StepComp')
    assert [step for step, _ in read_losses(path)] == list(range(1, 8))
    write(path, 5, StepCompleted(6, {"a": 60}))
    assert read_losses(path) == [*((step, {"a": step}) for step in range(1, 6)), (6, {"a": 60})]
    names = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert names == ["Note", *["StepCompleted"] * 6]


def test_a_new_run_starts_a_new_log(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, None, StepCompleted(1, {}))
    write(path, None, StepCompleted(2, {}))
    assert [step for step, _ in read_losses(path)] == [2]

"""One command in several processes: the same bits as in one, one writer, and an end for all when one ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cictl import processes
from cictl.cli.app import main
from cictl.config import group_of
from cictl.errors import ProcessLost
from cictl.events import Warned
from cictl.processes import join
from cictl.records import latest_checkpoint
from cictl.workflow import baseline, finetune, generate, invert
from cictl.workspace import Workspace
from tests.several import Together, run_together, start_together
from tests.support import Recorder, assert_left_the_same, left_by, silent

RUN = {"invert": invert.run, "finetune": finetune.run}
ENDLESS = ("--set=invert.steps=100000", "--set=checkpoint.interval=4")


def wait_for_checkpoint(workspace: Workspace, together: Together) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert all(process.exitcode is None for process in together.processes), together.end(0)
        found, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
        if found and found.step:
            return
        time.sleep(0.02)
    raise AssertionError(together.end(0))


# -- the same bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "accumulation"), [(2, 1), (2, 2), (4, 1)])
def test_processes_leave_the_bits_and_the_losses_of_one_that_accumulates(make_workspace, tmp_path, count, accumulation):
    """Whoever computes a part of a batch: gradients and losses are summed in the order of the parts."""
    several, one = make_workspace("several"), make_workspace("one")
    for stage, run in RUN.items():
        parts = f"--set={stage}.accumulation={accumulation}"
        ended = run_together(count, tmp_path / stage, stage, "-C", str(several.root), "--steps=4", parts)
        assert ended.codes == [0] * count, ended
        run(one, silent, overrides={f"{stage}.steps": 4, f"{stage}.accumulation": count * accumulation})
        assert_left_the_same(left_by(several, stage), left_by(one, stage))


def test_a_batch_in_another_number_of_parts_is_told_of_whoever_computes_them(make_workspace, tmp_path):
    """Its sums have other last bits."""
    workspace = make_workspace()
    assert run_together(2, tmp_path / "two", "invert", "-C", str(workspace.root), "--steps=2").codes == [0, 0]
    alike, other = Recorder(), Recorder()
    invert.run(workspace, alike, overrides={"invert.steps": 3, "invert.accumulation": 2})
    invert.run(workspace, other, overrides={"invert.steps": 4, "invert.accumulation": 1})
    assert not [text for text in alike.texts(Warned) if "circumstances" in text]
    assert [text.rpartition(": ")[2] for text in other.texts(Warned)] == ["parts of a batch 2 -> 1"]


@pytest.mark.parametrize("method", ["dreambooth", "custom-diffusion"])
def test_clipped_gradients_and_class_pictures_are_those_of_one_process(make_workspace, tmp_path, method):
    settings = {f"{group_of(method)}.{key}": value for key, value in
                {"steps": 3, "gradient_clip": 0.01, "prior_weight": 1.0, "class_pictures": 3}.items()}  # fmt: skip
    settings |= {"evaluate.noun": "dog", "custom_diffusion.views": 3}
    several, one = make_workspace("several"), make_workspace("one")
    arguments = [f"--set={key}={value}" for key, value in settings.items()]
    ended = run_together(2, tmp_path / "processes", "baseline", method, "-C", str(several.root), *arguments)
    assert ended.codes == [0, 0], ended
    baseline.run(one, method, silent, overrides={**settings, f"{group_of(method)}.accumulation": 2})
    assert_left_the_same(left_by(several, method), left_by(one, method))


def test_pictures_of_several_processes_are_those_of_one_byte_for_byte(copy_of_trained, tmp_path):
    prompts = ["S*", "a photo of S* in the snow", "a red S*"]  # five batches for two processes: the last round has one
    settings = {"generate.count": 3, "generate.batch_size": 2}
    arguments = [*prompts, "--grid", *(f"--set={key}={value}" for key, value in settings.items())]
    ended = run_together(2, tmp_path / "several", "generate", "-C", str(copy_of_trained.root), *arguments)
    assert ended.codes == [0, 0], ended
    made = {path.name: path.read_bytes() for path in copy_of_trained.outputs.glob("*.png")}
    shutil.rmtree(copy_of_trained.outputs)
    generate.run(copy_of_trained, prompts, silent, overrides=settings, grid=True)
    assert made == {path.name: path.read_bytes() for path in copy_of_trained.outputs.glob("*.png")}
    assert len(made) == 9 + 1
    assert [ended.err[0].count(f"picture {number}/9 ") for number in range(1, 10)] == [1] * 9
    assert ended.out[1] == ended.err[1] == ""


def test_pictures_that_are_there_are_not_made_again_by_any_process(copy_of_trained, tmp_path):
    command = ("generate", "-C", str(copy_of_trained.root), "S*", "--json")
    generate.run(copy_of_trained, ["S*"], silent)
    ended = run_together(2, tmp_path / "again", *command)
    assert ended.codes == [0, 0], ended
    assert json.loads(ended.out[0].splitlines()[-1])["kept"] == 2
    assert ended.out[1] == ""


# -- one writes, one shows, one decides -------------------------------------------------------------


def test_the_first_process_alone_writes_and_shows(make_workspace, tmp_path):
    workspace = make_workspace()
    changes = [f"--set=preview.{key}" for key in ("interval=4", "steps=2")]

    def noting_what_is_written(rank: int) -> None:
        def note(event: str, arguments: tuple[object, ...]) -> None:
            written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if (written or event in ("os.mkdir", "os.rename", "os.remove")) and str(workspace.root) in str(arguments[0]):
                sys.__stdout__.write(f"wrote {arguments[0]}\n")

        sys.__stdout__ = sys.stdout
        sys.addaudithook(note)
        main()

    ended = start_together(2, tmp_path / "run", "invert", "-C", str(workspace.root), *changes, work=noting_what_is_written).end()
    assert ended.codes == [0, 0], ended
    for name in ("manifest.json", "invert.jsonl", ".lock-holder.json", "invert-step-0000008.png"):
        assert name in ended.out[0]  # so that the hook does see what is written
    assert ended.out[1] == ended.err[1] == ""
    assert "stage 1 is done: 8 steps" in ended.out[0]
    log = [json.loads(line) for line in (workspace.logs / "invert.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["event"] == "StepCompleted"] == list(range(1, 9))
    assert len([line for line in log if line["event"] == "PreviewSaved"]) == 2


@pytest.mark.parametrize(("batch", "fits"), [(1, 2), (3, 4), (5, 6)])
def test_the_batch_that_is_proposed_is_the_next_one_that_divides(copy_of_trained, tmp_path, batch, fits):
    ended = run_together(
        2, tmp_path / "run", "invert", "-C", str(copy_of_trained.root), f"--set=invert.batch_size={batch}", "--restart"
    )
    assert ended.codes == [2, 2] and f"--set invert.batch_size={fits}" in ended.err[0], ended


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ([], 0, "already done"),
        (["--set=seed=5"], 3, "has changed since"),
        (["--set=invert.batch_size=3", "--restart"], 2, "invert.batch_size is 3, which 2 processes"),
        (["--set=invert.rate=3"], 2, "invert.rate"),
        (["--dry-run"], 2, "this is for one process"),
    ],
)
def test_what_the_first_process_decides_holds_for_all_and_is_said_once(copy_of_trained, tmp_path, changes, code, said):
    ended = run_together(2, tmp_path / "run", "invert", "-C", str(copy_of_trained.root), *changes)
    assert ended.codes == [code, code], ended
    assert said in ended.out[0] + ended.err[0]
    assert ended.out[1] == ended.err[1] == ""


def test_a_workspace_that_is_being_written_to_is_busy_for_all(make_workspace, tmp_path):
    workspace = make_workspace()
    with workspace.lock("cictl invert"):
        ended = run_together(2, tmp_path / "run", "invert", "-C", str(workspace.root))
    assert ended.codes == [75, 75], ended
    assert "is being written to" in ended.err[0]
    assert ended.err[1] == ""


def test_a_command_that_cannot_be_shared_says_so(copy_of_trained, tmp_path):
    ended = run_together(2, tmp_path / "run", "export", "-C", str(copy_of_trained.root))
    assert ended.codes == [2, 2]
    assert "this is for one process" in ended.err[0]
    assert ended.err[1] == ""
    assert not (copy_of_trained.outputs / "export").exists()


@pytest.mark.parametrize(("rank", "count"), [("2", "2"), ("one", "2"), ("0", "two")])
def test_an_environment_that_contradicts_itself_is_named(monkeypatch, rank, count, capsys):
    from cictl.cli.options import Common
    from cictl.cli.session import exit_codes

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    import typer

    with pytest.raises(typer.Exit) as caught, exit_codes(Common(), shared=True):
        raise AssertionError("it went on")
    assert caught.value.exit_code == 2
    assert f"process {rank} of {count}" in capsys.readouterr().err


# -- which one each is on its machine ---------------------------------------------------------------


@pytest.mark.parametrize(("launcher", "numbers"), [(None, "0101"), ("3", "3333")])
def test_without_a_launchers_word_each_is_numbered_on_its_own_machine(monkeypatch, tmp_path, launcher, numbers):
    def say(rank: int) -> None:
        os.environ.pop("LOCAL_RANK")
        if launcher:
            os.environ["LOCAL_RANK"] = launcher
        monkeypatch.setattr(socket, "gethostname", lambda: "machine-" + "aabb"[rank])
        sys.stdout.write(f"{join().local_rank}\n")
        sys.stdout.flush()

    ended = start_together(4, tmp_path / "run", work=say).end()
    assert [said.strip() for said in ended.out] == list(numbers), ended


# -- an end for all ---------------------------------------------------------------------------------


def test_one_that_fails_leaves_at_once_and_waits_in_no_farewell_for_the_others(make_workspace, tmp_path, monkeypatch):
    """What NCCL does at the usual end of a process waits for the others, who wait for this one."""
    workspace = make_workspace()

    def fail(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def work(rank: int) -> None:
        if rank:
            monkeypatch.setattr("cictl.engine.training.Gradient.__call__", fail)
        try:
            main()
        finally:
            time.sleep(600)

    ended = start_together(2, tmp_path / "run", "invert", "-C", str(workspace.root), work=work).end(30)
    assert ended.codes == [1, 5], ended
    assert "the memory of the device is not enough" in ended.err[1]
    assert "another of the 2 processes has ended" in ended.err[0]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", torch.OutOfMemoryError, "CUDA out of memory"),
        ("Timed out waiting 1800000ms for recv operation to complete", ProcessLost, "has not answered for 30 minutes"),
        ("Connection closed by peer", ProcessLost, "has ended"),
    ],
)
def test_what_keeps_processes_from_talking_is_told_apart(monkeypatch, said, kind, words):
    def fail(*arguments: object) -> None:
        raise (torch.OutOfMemoryError if kind is torch.OutOfMemoryError else RuntimeError)(said)

    monkeypatch.setattr(torch.distributed, "all_gather", fail)
    with pytest.raises(kind, match=words):
        processes._Group(0, 2, 0).gather(torch.ones(1))


def test_where_there_is_no_nccl_gloo_carries_a_gpus_tensors_too(monkeypatch):
    asked: list[str] = []
    for key, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **options: asked.append(backend))
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda machines, machine: None)
    monkeypatch.setattr("atexit.register", lambda function: function)
    for available in (False, True):
        monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda available=available: available)
        processes.join.__wrapped__()
    assert asked == ["gloo", "cpu:gloo,cuda:nccl"]


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_the_run_goes_on_to_the_same_bits(make_workspace, tmp_path, killed):
    workspace, uninterrupted = make_workspace(), make_workspace("uninterrupted")
    together = start_together(2, tmp_path / "run", "invert", "-C", str(workspace.root), *ENDLESS)
    wait_for_checkpoint(workspace, together)
    together.send(signal.SIGKILL, killed)
    ended = together.end(30)  # far below the patience with one that is silent; one that has not ended then is killed
    assert ended.codes[killed] == -signal.SIGKILL
    assert ended.codes[1 - killed] == 1, ended
    said, step = ended.err[1 - killed], left_by(workspace, "invert").step
    assert "another of the 2 processes has ended" in said
    assert f"the same command goes on from step {step}" in said
    assert "Traceback" not in said
    again = run_together(2, tmp_path / "again", "invert", "-C", str(workspace.root), f"--set=invert.steps={step + 3}")
    assert again.codes == [0, 0], again
    invert.run(uninterrupted, silent, overrides={"invert.steps": step + 3, "invert.accumulation": 2})
    assert_left_the_same(left_by(workspace, "invert"), left_by(uninterrupted, "invert"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_one_process_stops_all_after_the_same_step_with_a_checkpoint(make_workspace, tmp_path, number, code):
    workspace = make_workspace()
    together = start_together(2, tmp_path / "run", "invert", "-C", str(workspace.root), *ENDLESS)
    wait_for_checkpoint(workspace, together)
    together.send(number, 1)
    ended = together.end()
    assert ended.codes == [code, code], ended
    assert f"stopped after {left_by(workspace, 'invert').step} of 100000 steps" in " ".join(ended.err[0].split())
    assert ended.err[1] == ""


def start_drawing(workspace: Workspace, folder: Path) -> Together:
    """A hundred pictures in two processes, and waits until the first is there."""
    settings = [f"--set=generate.{key}" for key in ("batch_size=1", "count=100", "steps=5")]
    together = start_together(2, folder, "generate", "-C", str(workspace.root), "S*", *settings)
    end = time.monotonic() + 60
    while not list(workspace.outputs.glob("*.png")):
        assert time.monotonic() < end and all(process.exitcode is None for process in together.processes), together.end(0)
        time.sleep(0.02)
    return together


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_that_draws_is_killed_the_other_ends_and_what_is_finished_is_kept(copy_of_trained, tmp_path, killed):
    together = start_drawing(copy_of_trained, tmp_path / "run")
    together.send(signal.SIGKILL, killed)
    ended = together.end(30)
    assert ended.codes[killed] == -signal.SIGKILL
    assert ended.codes[1 - killed] == 1, ended
    assert "another of the 2 processes has ended" in ended.err[1 - killed]
    made = len(list(copy_of_trained.outputs.glob("*.png")))
    assert 1 <= made < 100
    settings = {"generate.batch_size": 1, "generate.count": made, "generate.steps": 5}
    assert generate.run(copy_of_trained, ["S*"], silent, overrides=settings).kept == made


def test_a_signal_to_all_that_draw_ends_all_with_its_code(copy_of_trained, tmp_path):
    together = start_drawing(copy_of_trained, tmp_path / "run")
    together.send(signal.SIGTERM, 0, 1)
    ended = together.end(30)
    assert ended.codes == [143, 143], ended
    assert "the pictures that are finished are saved" in ended.err[0]
    assert ended.err[1] == ""


# -- by accelerate's own launcher -------------------------------------------------------------------


def test_accelerate_launch_starts_processes_that_train_together(make_workspace):
    workspace, one = make_workspace(), make_workspace("one")
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "-m", "cictl", "invert", "-C", str(workspace.root), "--set", "model.device=cpu", "--steps", "2",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stage 1 is done: 2 steps") == 1
    invert.run(one, silent, overrides={"invert.steps": 2, "invert.accumulation": 2})
    assert_left_the_same(left_by(workspace, "invert"), left_by(one, "invert"))

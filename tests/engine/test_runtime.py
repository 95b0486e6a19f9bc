"""Signals and devices."""

from __future__ import annotations

import math
import os
import pty
import signal
import threading
import time

import pytest
import torch
from accelerate.state import AcceleratorState

from cictl.config.schema import ModelConfig
from cictl.engine import runtime as runtime_module
from cictl.engine.runtime import Runtime, graceful_stop
from cictl.errors import UsageError
from cictl.processes import Processes
from cictl.stops import stops_told
from tests.pretended_gpu import pretended_gpus


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_first_signal_is_remembered_and_becomes_the_exit_code(number, code):
    before = signal.getsignal(number)
    with graceful_stop() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.interruption("stopped", "").stopped_with == code
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGTERM, signal.SIGTERM, 143), (signal.SIGINT, signal.SIGTERM, 143)],
)
def test_a_second_signal_leaves_at_once(first, second, code):
    child = os.fork()
    if child == 0:
        with graceful_stop():
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)
            os._exit(99)  # not at once
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == code


def test_a_terminal_that_closes_is_a_first_signal_and_what_is_shown_afterwards_goes_nowhere(tmp_path):
    done = tmp_path / "done"
    child, terminal = pty.fork()
    if child == 0:
        signal.alarm(60)  # whatever goes wrong
        with graceful_stop() as stop:
            os.write(2, b"begun")
            while not stop:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGHUP)  # as the shell sends it beside the kernel
            os.write(2, b"saving")
            done.write_text(str(stop.interruption("stopped", "").stopped_with))
            os._exit(0)
    assert b"begun" in os.read(terminal, 99)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert (os.waitstatus_to_exitcode(status), done.read_text()) == (0, "129")


def test_a_terminal_that_is_still_there_after_sighup_is_written_to(capfd):
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.write(2, b"saving")
    assert stop and capfd.readouterr().err == "saving"


def test_sighup_stays_ignored_where_nohup_has_it_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_both_signals_are_told_the_second_one_before_the_end():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = stops_told(asked=lambda: os.write(writing, b"asked "), leaving=lambda number: os.write(writing, b"%d " % number))
        with stops_told(leaving=lambda number: os.write(writing, b"last")), told, graceful_stop():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"asked 15 last"


class TwoProcesses(Processes):
    count = 2


@pytest.mark.parametrize(("pause", "code"), [(0.0, 98), (0.2, 130)])
def test_of_several_processes_a_signal_that_the_launcher_repeats_at_once_is_no_second_one(monkeypatch, pause, code):
    monkeypatch.setattr(runtime_module, "_ECHO_SECONDS", 0.1)
    child = os.fork()
    if child == 0:
        with graceful_stop(TwoProcesses()) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(98 if stop else 99)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == code


@pytest.fixture
def two_gpus(monkeypatch):
    with pretended_gpus(monkeypatch, 2) as where:
        yield where


def test_several_processes_take_no_single_gpu(two_gpus):
    with pytest.raises(UsageError, match=r"model\.device is cuda:1 for 2 processes"):
        Runtime.create("cuda:1", processes=TwoProcesses())


class ThirdOfSixOnItsMachine(Processes):
    rank, count, local_rank = 5, 6, 2


class SecondOfTwo(TwoProcesses):
    rank, local_rank = 1, 1


def test_each_of_several_processes_takes_a_gpu_of_its_own(two_gpus):
    assert Runtime.create(processes=SecondOfTwo()).device == torch.device("cuda:1") == two_gpus.current
    with pytest.raises(UsageError, match="more processes on this machine than GPUs, of which it has 2"):
        Runtime.create(processes=ThirdOfSixOnItsMachine())


def test_on_a_second_machine_it_is_the_number_there_that_counts(monkeypatch):
    with pretended_gpus(monkeypatch, 3):
        assert Runtime.create(processes=ThirdOfSixOnItsMachine()).device == torch.device("cuda:2")


@pytest.mark.parametrize("per_task", ["1", "h100:1"])
def test_a_task_of_slurm_that_sees_one_gpu_alone_takes_it(monkeypatch, per_task):
    tasks = {"SLURM_JOB_ID": "7", "SLURM_GPUS_PER_TASK": per_task, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    with pretended_gpus(monkeypatch, 1):
        for key, value in tasks.items():
            monkeypatch.setenv(key, value)
        assert Runtime.create(processes=SecondOfTwo()).device == torch.device("cuda:0")


@pytest.mark.parametrize(
    "other", [{"SLURM_PROCID": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_GPUS_PER_TASK": ""}, {"SLURM_GPUS_PER_TASK": "2"}]
)
def test_processes_of_another_launcher_in_a_task_of_slurm_share_no_gpu(monkeypatch, other):
    tasks = {"SLURM_JOB_ID": "7", "SLURM_GPUS_PER_TASK": "1", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    with pretended_gpus(monkeypatch, 1):
        for key, value in {**tasks, **other}.items():
            monkeypatch.setenv(key, value)
        with pytest.raises(UsageError, match="more processes on this machine than GPUs, of which it has 1") as refused:
            Runtime.create(processes=SecondOfTwo())
    assert "--gpus-per-node" in refused.value.hint


def test_each_runtime_has_the_device_that_it_is_asked_for_whatever_there_was_before(two_gpus):
    before = dict(os.environ)
    for asked, device in (("auto", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu"), ("auto", "cuda:0"), ("cuda", "cuda:0")):
        assert Runtime.create(asked).device == torch.device(device)
        assert device in ("cpu", str(two_gpus.current))
    assert os.environ == before
    with pytest.raises(UsageError, match="there is cuda:0 to cuda:1"):
        Runtime.create("cuda:2")


def test_a_tracker_before_it_changes_no_device(two_gpus):
    """Accelerate, which starts trackers, chooses a device for the whole process."""
    from accelerate import Accelerator

    try:
        Accelerator()
        assert Runtime.create("cpu").device == torch.device("cpu")
        assert Runtime.create("cuda:1").device == torch.device("cuda:1")
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("bf16", [True, False])
def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch, bf16):
    with pretended_gpus(monkeypatch, bf16=bf16):
        runtime = Runtime.create()
        assert runtime.dtype_name == ("bf16" if bf16 else "fp16")
        assert bool(runtime.scaler_state()) != bf16


def test_a_gpu_that_cannot_be_used_is_said(two_gpus, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(UsageError, match=r"cuda:0 is there and cannot be used: CUDA error: no kernel image is .* the device$"):
        Runtime.create()


def test_a_gpu_that_torch_does_not_use_is_told_of_unless_it_was_hidden(monkeypatch):
    monkeypatch.setattr("cictl.engine.devices.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert Runtime.create().overlooked == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "the installed torch is one without CUDA" in Runtime.create().overlooked
    assert Runtime.create("cpu").overlooked == ""


def test_handlers_come_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), graceful_stop():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_there_is_refused(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match=f"model.device is {device}"):
        Runtime.create(device)


@pytest.mark.parametrize(("dtype", "name"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
def test_a_cpu_computes_in_fp32_unless_told_otherwise(dtype, name):
    runtime = Runtime.create("cpu", dtype)
    assert runtime.dtype_name == name
    assert runtime.device.type == "cpu"
    assert not runtime.scaler_state()
    assert 0 < runtime.memory().allocated <= runtime.memory().peak <= runtime.memory().total


def test_the_most_memory_that_was_in_use_stays_the_most(monkeypatch):
    used = iter([100, 700, 300])
    monkeypatch.setattr("psutil.Process.memory_info", lambda self: type("Info", (), {"rss": next(used)}))
    runtime = Runtime.create("cpu")
    assert [(now.allocated, now.peak) for now in (runtime.memory() for _ in range(3))] == [(100, 100), (700, 700), (300, 700)]


def test_work_in_another_thread_has_no_handlers_and_needs_none():
    ended: list[bool] = []

    def work() -> None:
        with graceful_stop() as stop:
            ended.append(not stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]


# -- a step -----------------------------------------------------------------------------------------

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("dtype", "processes", "graphs", "records"),
    [
        (torch.bfloat16, Processes(), True, True),
        (torch.bfloat16, Processes(), False, False),
        (torch.float16, Processes(), True, False),  # a step may be skipped
        (torch.bfloat16, TwoProcesses(), True, False),  # gradients are added in between
    ],
)
def test_steps_are_recorded_where_each_does_the_same_work(dtype, processes, graphs, records):
    runtime = Runtime(CPU, dtype, processes, graphs=graphs)
    assert runtime.records == records == runtime.recorded(dict).record


def test_the_memory_of_all_recordings_is_let_go():
    runtime = Runtime(CPU, torch.bfloat16, graphs=True)
    recorded = [runtime.recorded(dict) for _ in range(2)]
    for one in recorded:
        one.held = 5
    runtime.release()
    assert [one.held for one in recorded] == [0, 0]


@pytest.mark.parametrize("settings", [{"cuda_graph": True, "fused": False}, {"cuda_graph": False, "fused": True}])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_works_as_the_settings_say(monkeypatch, settings, deterministic):
    asked: list[bool] = []
    monkeypatch.setattr(runtime_module, "_repeat_bits", asked.append)
    with pretended_gpus(monkeypatch):
        runtime = Runtime.configured(ModelConfig(**settings, deterministic=deterministic))
    assert {"cuda_graph": runtime.graphs, "fused": runtime.fused} == settings
    assert asked == [deterministic]
    on_a_cpu = Runtime.configured(ModelConfig(device="cpu", **settings, deterministic=deterministic))
    assert not on_a_cpu.graphs and not on_a_cpu.fused and len(asked) == 1


class BothHave(TwoProcesses):
    """Two processes with the same gradients."""

    asked = 0

    def gather(self, tensor):
        self.asked += 1
        return [tensor, tensor]


def test_of_several_processes_what_has_no_gradient_is_not_asked_for():
    processes = BothHave()
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    for total in (6.0, 12.0):
        Runtime(CPU, torch.float32, processes).backward((3 * used).sum(), [used, unused])
        assert used.grad.tolist() == [total] * 2
    assert unused.grad is None and processes.asked == 2


@pytest.mark.parametrize("records", [True, False])
def test_after_a_step_gradients_are_gone_or_zero_where_they_were_if_it_is_recorded(records):
    runtime = Runtime(CPU, torch.bfloat16, graphs=records)
    parameter = torch.nn.Parameter(torch.ones(2))
    runtime.backward(parameter.sum(), [parameter])
    gradient = parameter.grad
    runtime.step(torch.optim.SGD([parameter], lr=0.1))
    assert parameter.tolist() == pytest.approx([0.9, 0.9])
    assert parameter.grad is (gradient if records else None) and (not records or not gradient.any())


def fp16() -> tuple[Runtime, torch.nn.Parameter, torch.optim.Optimizer]:
    parameter = torch.nn.Parameter(torch.ones(1))
    return Runtime(CPU, torch.float16), parameter, torch.optim.SGD([parameter], lr=0.1)


@pytest.mark.parametrize(("limit", "after"), [(None, 0.7), (1.0, 0.9), (9.0, 0.7)])
def test_in_fp16_the_limit_is_on_the_gradient_and_not_on_what_it_is_scaled_to(limit, after):
    runtime, parameter, optimizer = fp16()
    runtime.backward((3 * parameter).sum(), [parameter])
    assert parameter.grad.item() > 1000
    runtime.step(optimizer, limit)
    assert parameter.item() == pytest.approx(after, rel=1e-4)


def test_in_fp16_a_step_without_numbers_is_skipped_and_the_next_scale_is_smaller_also_of_a_run_that_goes_on():
    runtime, parameter, optimizer = fp16()
    before = runtime.scaler_state()
    runtime.backward((math.inf * parameter).sum(), [parameter])
    runtime.step(optimizer)
    assert parameter.item() == 1
    after = runtime.scaler_state()
    assert after["scale"] == before["scale"] / 2
    other, *_ = fp16()
    other.restore_scaler(after)
    assert other.scaler_state() == after
    plain = Runtime(CPU, torch.float32)
    plain.restore_scaler(after)  # what a run in fp16 left
    assert plain.scaler_state() == {}

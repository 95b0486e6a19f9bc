"""Signals and devices."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch

from cictl.engine import runtime as runtime_module
from cictl.engine.runtime import Runtime, graceful_stop
from cictl.errors import UsageError
from cictl.processes import Processes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
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


def test_several_processes_take_no_single_gpu(monkeypatch):
    monkeypatch.setattr(runtime_module, "_require_device", lambda device: None)  # as if it were there
    with pytest.raises(UsageError, match=r"model\.device is cuda:1 for 2 processes"):
        Runtime.create("cuda:1", processes=TwoProcesses())


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

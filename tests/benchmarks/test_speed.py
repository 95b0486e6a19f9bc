"""The benchmarks of speed: who takes turns how, what is counted, and the one command for a GPU, tried out on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from benchmarks.side_by_side import machine, turns
from benchmarks.side_by_side.gate import Ended, flop_counter
from benchmarks.side_by_side.tables import summaries, table
from benchmarks.side_by_side.turns import Program, Timed, paired_ratio, quantile, take_turns
from benchmarks.steps import torchvision_stand_in
from benchmarks.steps.gradient import Begun, reference_gradient, relative_errors
from benchmarks.steps.programs import run_cictl
from benchmarks.steps.settings import SCRIPTS
from cictl.data import draws
from cictl.workflow import init
from tests.benchmarks.speed_programs import PEER, hangs, multiplies
from tests.tiny import make_base, make_photographs

ROOT = Path(__file__).parents[2]
SIDE = 64


def peers(folder: Path) -> Path:
    folder.mkdir()
    for script in SCRIPTS.values():
        (folder / script).write_text(PEER)
    return folder


def test_quantiles_are_numpys():
    values = [3.0, 1.0, 7.0, 2.0, 9.0]
    for share in (0.0, 0.1, 0.5, 0.77, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))


def test_the_ratio_is_taken_round_by_round():
    """A machine that is ten times slower in one round changes nothing."""
    ours, other = Timed("a", "fp32", seconds=[1.0, 10.0, 1.0]), Timed("b", "fp32", seconds=[2.0, 20.0, 2.0])
    assert paired_ratio(ours, other) == 2.0
    assert paired_ratio(ours, Timed("c", "fp32", error="it ended")) is None


def test_programs_take_turns_and_the_first_of_a_round_changes(tmp_path: Path):
    diary = tmp_path / "diary"
    programs = [
        Program(name, multiplies, {"diary": diary, "name": name, "side": SIDE, "blocks": blocks}, "fp32")
        for name, blocks in (("a", 99), ("b", 99), ("x", 2))
    ]
    timed = take_turns(programs, device="cpu", rounds=3, block=2, limit=60, logs=tmp_path / "logs")
    # All warm up at once; then the rounds abx, (x ends) ba, ab; then operations are counted.
    assert sorted(diary.read_text()[:3]) == ["a", "b", "x"]
    assert diary.read_text()[3:] == "abx" + "ba" + "ab" + "ab"
    ours, other, ended = timed
    assert len(ours.seconds) == len(other.seconds) == 3
    assert ours.flops == other.flops == 2 * SIDE**3 / 2  # a product is two steps here
    assert "there is no more work" in ended.error
    assert len(ended.seconds) == 1
    rows = summaries(timed)
    assert rows[1]["times_ours"] == paired_ratio(ours, other)
    assert rows[0]["mfu"] == pytest.approx(ours.flops / (rows[0]["median_ms"] / 1e3) / ours.product_flops)
    lines = table(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "ended by itself" in lines[-1]


def test_attention_on_a_cpu_is_counted():
    """Two products forward, of which each needs two backward, and the scores once more."""
    query, key, value = (torch.randn(2, 4, 16, 8, requires_grad=True) for _ in range(3))
    product = 2 * (2 * 4) * 16 * 16 * 8
    with flop_counter() as counter:
        result = F.scaled_dot_product_attention(query, key, value)
    assert counter.get_total_flops() == 2 * product
    with flop_counter() as counter:
        result.sum().backward()
    assert counter.get_total_flops() == 5 * product


def test_no_round_begins_when_the_time_is_up(tmp_path: Path):
    program = Program("a", multiplies, {"diary": tmp_path / "diary", "name": "a", "side": SIDE, "blocks": 99}, "fp32")
    [timed] = take_turns([program], device="cpu", rounds=5, block=1, limit=0, logs=tmp_path)
    assert len(timed.seconds) == 1


def test_a_program_that_hangs_holds_up_no_other_and_all_rounds_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    works = {"diary": tmp_path / "diary", "name": "a", "side": SIDE, "blocks": 99}
    programs = [
        Program("a", multiplies, works, "fp32"),
        Program("b", hangs, {"blocks": 2}, "fp32"),  # to warm up, and in the first round
    ]
    told, begun = [], []

    def awaited(runner: Any, result: Timed) -> None:
        await_first_block(runner, result)
        begun.append(result.name)

    def warmed_up(runner: Any, result: Timed, device: str) -> None:
        warm_up(runner, result, device)
        begun.append(f"product of {result.name}")

    await_first_block, warm_up = turns._await_first_block, turns._warm_up
    monkeypatch.setattr(turns, "_await_first_block", awaited)
    monkeypatch.setattr(turns, "_warm_up", warmed_up)

    def tell(timed: list[Timed]) -> None:
        told.append([len(one.seconds) for one in timed])

    take = partial(take_turns, device="cpu", rounds=3, block=1, limit=60, logs=tmp_path / "logs")
    timed = take(programs, patience=20, count=False, tell=tell)
    assert begun == ["a", "b", "product of a", "product of b"]  # no product while another is at work
    assert told == [[1, 1], [2, 1], [3, 1], [3, 1]]
    assert timed[1].error == "not done within 20 s"
    ours, hung = rows = summaries(timed)
    assert ours["flops"] is ours["mfu"] is ours["calls"] is None and ours["peak_bytes"] > 0
    assert hung["median_ms"] > 0 and hung["times_ours"] and hung["blocks it had"] == 2
    assert "not done within 20 s" in table(rows)


def test_a_program_that_cannot_be_counted_keeps_its_times(tmp_path: Path):
    works = {"diary": tmp_path / "diary", "name": "a", "side": SIDE, "blocks": 3}
    [timed] = take_turns(
        [Program("a", multiplies, works, "fp32")], device="cpu", rounds=2, block=1, limit=60, logs=tmp_path / "logs"
    )
    [row] = summaries([timed])
    assert row["blocks"] == 2 and row["flops"] is None and "there is no more work" in row["error"]


def test_the_code_is_named_by_its_own_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = machine.code()
    assert here["commit"] is None or len(here["commit"]) == 40
    for part in ("cictl", "benchmarks"):
        (tmp_path / part).mkdir()
    (tmp_path / "cictl" / "one.py").write_text("1")
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    empty = {"commit": None, "changed": None}
    first = machine.code()
    assert first == empty | {"sha256": first["sha256"]}
    (tmp_path / "benchmarks" / "two.py").write_text("2")
    assert machine.code()["sha256"] != first["sha256"]


class OneBlock:
    """A gate that lets nothing through."""

    def arrive(self) -> None:
        raise Ended

    def note(self, message: str) -> None:
        pass

    def loading(self):
        raise AssertionError("only the first step is asked for")


def test_the_first_gradient_is_that_of_the_equations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    base = make_base(tmp_path / "base")
    workspace = tmp_path / "teapot"
    init.run(workspace, model=str(base), images=make_photographs(tmp_path / "photographs"), name="teapot")
    settings = {
        "model.clip": str(base / "clip"), "model.device": "cpu", "data.resolution": 64, "concept.vectors": 2,
        "invert.auxiliary_vectors": 2, "invert.temperature": 0.3, "tracking.interval": 1,
    }  # fmt: skip
    monkeypatch.setattr(draws, "draw_batch", draws.draw_batch)  # so that it is put back
    monkeypatch.setattr(OneBlock, "loading", lambda self: torch.no_grad())
    with pytest.raises(Ended):
        run_cictl(OneBlock(), workspace, "invert", settings, tmp_path / "gradient")  # type: ignore[arg-type]
    ours = load_file(tmp_path / "gradient")
    assert ours["concept"].shape == (2, 32) and ours["auxiliary"].shape == (3, 2, 32)
    begun = Begun.read(workspace)
    for precision, tolerance in ((torch.float32, 1e-5), (torch.float64, 2e-6)):
        reference = reference_gradient(base, base / "clip", begun, precision, "cpu")
        assert max(relative_errors(ours, reference).values()) < tolerance


def test_the_stand_in_mirrors_and_refuses_the_rest(monkeypatch: pytest.MonkeyPatch):
    for name in ("torchvision", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, None)  # so that it is put back
    torchvision_stand_in.install()
    from torchvision import transforms  # type: ignore[import-not-found]

    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    assert np.array_equal(np.asarray(transforms.RandomHorizontalFlip(p=1.0)(picture)), np.asarray(picture)[:, ::-1])
    assert transforms.RandomHorizontalFlip(p=0.0)(picture) is picture
    with pytest.raises(NotImplementedError, match="Resize"):
        transforms.Resize(8, interpolation=transforms.InterpolationMode.BILINEAR)(picture)


# -- the commands ---------------------------------------------------------------------------------------


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_missing_script_is_named_with_where_to_get_it(tmp_path: Path):
    done = run_script("--device", "cpu", "--tiny", "--work", str(tmp_path), "--out", str(tmp_path / "out.json"))
    assert done.returncode == 2
    assert "examples/textual_inversion/textual_inversion.py" in done.stderr
    assert "examples/custom_diffusion/train_custom_diffusion.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert run_script("--peer").returncode == 2


STUB = """#!/usr/bin/env bash
echo "$@" >> {calls}
[[ "$*" != *{fails}* ]] || exit {code}
"""


@pytest.mark.parametrize(
    ("fails", "code", "parts", "left"),
    [("--peers", 1, 6, 1), ("--best", 139, 6, 1), ("generate", 124, 6, 1), ("nothing", 0, 6, 0), ("--peers", 2, 1, 2)],
)
def test_a_part_that_fails_takes_none_of_the_others_along(tmp_path: Path, monkeypatch, fails, code, parts, left):
    calls, stub = tmp_path / "calls", tmp_path / "bin" / "python"
    stub.parent.mkdir()
    stub.write_text(STUB.format(calls=calls, fails=fails, code=code))
    stub.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHON": "bin/python"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "--device", "cpu", "--out", "out.json", "--work", "work"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == left
    assert len(calls.read_text().splitlines()) == parts
    assert str(tmp_path / "out.json") in calls.read_text()


def test_what_is_worth_most_is_measured_first_and_what_has_no_time_is_named(tmp_path: Path):
    calls, stub = tmp_path / "calls", tmp_path / "python"
    stub.write_text(STUB.format(calls=calls, fails="nothing", code=0))
    stub.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stub)}
    command = [
        "bash",
        str(ROOT / "benchmarks" / "gpu.sh"),
        "--device",
        "cpu",
        "--work",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]

    def run(*options: str) -> tuple[int, str, list[str]]:
        calls.unlink(missing_ok=True)
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []

    _, _, all_of_it = run()
    assert "benchmarks.steps" in all_of_it[0] and "--best" in all_of_it[0]
    assert all("--others" in line for line in all_of_it[-2:]) and "--others" not in "".join(all_of_it[:-2])
    code, message, none = run("--seconds", "39")
    assert code == 1 and none == [] and "--only 'best pictures ways compiled documented'" in message
    (tmp_path / "o").write_text("{}")
    code, _, two = run("--only", "pictures documented")
    assert code == 0 and [line.split()[1] for line in two] == ["benchmarks.generate", "benchmarks.steps", "benchmarks.generate"]
    assert (tmp_path / "o").exists()
    assert run("--only", "picture")[0] == 2


def test_without_a_gpu_nothing_is_begun(tmp_path: Path):
    done = run_script("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.json"))
    assert done.returncode == 1
    assert "torch finds no GPU" in done.stderr and "Traceback" not in done.stderr
    assert not any((tmp_path / "work").iterdir())


def test_the_one_command_for_a_gpu_writes_one_json(tmp_path: Path):
    out = tmp_path / "out.json"
    shared = ["--device", "cpu", "--tiny", "--work", str(tmp_path), "--out", str(out)]
    done = run_script("--peers", str(peers(tmp_path / "peers")), "--only", "best pictures", *shared)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "benchmarks.ways", *shared, "--rounds", "1", "--no-compiled", "--groups"]
    subprocess.run([*command, "pictures-compiled", "stage-2"], cwd=ROOT, check=True)
    result = json.loads(out.read_text())
    assert list(result) == ["steps", "generate", "ways-pictures-compiled", "ways-stage-2"]
    assert all(len(part["code"]["sha256"]) == 64 and part["versions"]["torch"] and part["machine"] for part in result.values())
    for stage, [rows] in result["steps"]["stages"].items():
        assert rows[0]["name"] == f"cictl {stage}" and "resized" in rows[1]["name"]
        for row in rows:
            assert row["median_ms"] > 0 and row["flops"] > 0 and 0 < row["mfu"] < 5
            assert row["loader_ms"] < row["median_ms"]
        assert all(row["times_ours"] > 0 for row in rows[1:])
    assert max(result["steps"]["gradient_error"].values()) < 2e-6
    assert len(result["steps"]["scripts_sha256"]) == 2
    ours, pipeline = result["generate"]["programs"]
    assert ours["flops"] == pytest.approx(pipeline["flops"], rel=0.05)
    assert ours["first_block_after_s"] > ours["median_ms"] / 1e3
    [picture], [stage_2] = (result[part]["ways"] for part in ("ways-pictures-compiled", "ways-stage-2"))
    assert picture["median_ms"] > 0 and stage_2["median_ms"] > 0 and stage_2["same_bits"]
    assert str(tmp_path) not in out.read_text()

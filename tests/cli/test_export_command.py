"""`cictl export` as it is typed: its table, its flags, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.exporters.registry import FORMATS


def cictl(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["export", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_list_shows_every_format_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which is no workspace
    code, shown, _ = cictl("--list", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(shown)["formats"]] == [one.name for one in FORMATS]


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_in_the_list_no_line_is_folded_whatever_the_width(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, shown, _ = cictl("--list")
    assert code == 0
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= width
    for one in FORMATS:
        whole = [one.holds, one.readers, one.fidelity, one.size]
        assert all(any(text in line for line in lines) for text in whole)
        assert any(line.startswith(f"{one.name} ") for line in lines)


def test_formats_may_be_repeated_and_the_default_is_safetensors(trained, tmp_path):
    code, shown, _ = cictl(
        "-C", str(trained.root), "--out", str(tmp_path / "one"), "--format", "lora", "--format", "embedding", "--json"
    )
    assert code == 0
    assert {file["format"] for file in json.loads(shown.splitlines()[-1])["files"]} == {"lora", "embedding"}
    code, shown, _ = cictl("-C", str(trained.root), "--out", str(tmp_path / "two"), "--json")
    assert {file["format"] for file in json.loads(shown.splitlines()[-1])["files"]} == {"safetensors"}
    assert (tmp_path / "two" / "embeddings" / "my-teapot.safetensors").is_file()


def test_what_was_measured_and_what_to_type_is_printed(trained, tmp_path):
    code, shown, _ = cictl("-C", str(trained.root), "--out", str(tmp_path), "--format", "lora", "--rank", "2", "--dtype", "fp16")
    assert code == 0
    assert "lora: rank 2 in 8 modules" in shown and "relative error" in shown
    assert "A1111 / Forge: my-teapot <lora:my-teapot:1>" in shown
    assert "pipe.load_lora_weights(" in shown
    code, shown, _ = cictl("-C", str(trained.root), "--out", str(tmp_path), "--format", "lora", "--rank", "2", "--dtype", "fp16")
    assert code == 0 and "already done" in shown


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["--format", "ckpt"], 2, "there is no format 'ckpt'"),
    (["--format", "lora", "--rank", "0"], 2, "a LoRA cannot have rank 0"),
    (["--format", "lora", "--rank", "many"], 2, "--rank many is no rank"),
    (["--dtype", "fp8"], 2, "fp8"),
    (["--stage", "base"], 2, "base"),
    (["--name", "../up"], 2, "cannot be the name of a concept"),
    (["--name", "con"], 2, "Windows keeps it for a device"),
    (["--step", "5"], 3, "but of: 2, 3, 4, 6"),
    (["--format", "pipeline", "--stage", "invert"], 3, "pipeline cannot be exported"),
    (["--out", "FILE"], 5, "cannot be written"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_with_the_right_code(trained, tmp_path, arguments, code, said):
    (tmp_path / "file").write_text("a file, not a folder")
    arguments = [str(tmp_path / "file") if one == "FILE" else one for one in arguments]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    got, _, errors = cictl("-C", str(trained.root), *out, *arguments)
    assert got == code
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_all_leaves_out_in_one_line_each_what_stage_1_cannot_give(copy_of_trained, tmp_path):
    code, shown, _ = cictl("-C", str(copy_of_trained.root), "--all", "--stage", "invert", "--out", str(tmp_path / "out"))
    assert code == 0
    lines = [line for line in shown.splitlines() if line.startswith("left out: ")]
    assert len(lines) == sum(one.needs == "finetune" for one in FORMATS)
    assert all("stage 2 has not been run" in line for line in lines)
    assert not list(Path(tmp_path / "out").rglob("*lora*"))


def test_all_makes_the_others_where_one_is_in_the_way_and_then_says_which(trained, tmp_path):
    common = ["-C", str(trained.root), "--out", str(tmp_path)]
    assert cictl(*common, "--format", "lora", "--rank", "2")[0] == 0
    held = {path: path.read_bytes() for path in (tmp_path / "lora").rglob("*") if path.is_file()}
    code, shown, errors = cictl(*common, "--all", "--rank", "3")
    assert code == 3 and "lora was not exported" in errors and "holds another export" in errors and "--force" in errors
    assert {path: path.read_bytes() for path in held} == held
    assert "embedding" in shown and (tmp_path / "embedding").is_dir() and "already done" not in shown
    code, shown, _ = cictl(*common, "--all", "--rank", "3", "--json")
    done, refused = (json.loads(line) for line in shown.splitlines()[-2:])
    assert code == 3 and list(done["in_the_way"]) == ["lora"] and refused["slug"] == "exports-exist"
    assert all(file["kept"] for file in done["files"]) and not done["already_done"]
    assert {file["format"] for file in done["files"]} == {one.name for one in FORMATS} - {"lora", *done["left_out"]}
    assert cictl(*common, "--all", "--rank", "3", "--force")[0] == 0


def test_status_says_in_a_line_what_was_exported(copy_of_trained):
    def shown() -> str:
        output = CliRunner().invoke(app, ["status", "-C", str(copy_of_trained.root)]).stdout
        return next(line for line in output.splitlines() if line.strip().startswith("exports")).split(maxsplit=1)[1].strip()

    assert shown() == "none"
    cictl("-C", str(copy_of_trained.root))
    assert shown() == "export/embeddings/my-teapot.safetensors, export/loras/my-teapot.safetensors; of finetune after 6 steps"
    (copy_of_trained.outputs / "export" / ".exporting-x-1").mkdir()
    (copy_of_trained.outputs / "export" / ".exporting-x-1" / "part.safetensors").write_bytes(b"")
    cictl("-C", str(copy_of_trained.root), "--format", "lora", "--format", "bundle")
    assert shown() == "5 files: bundle, lora, safetensors; of finetune after 6 steps"
    cictl("-C", str(copy_of_trained.root), "--format", "embedding", "--stage", "invert")
    assert shown() == "6 files: bundle, embedding, lora, safetensors; of finetune after 6 steps and invert after 8 steps"


def test_an_export_says_of_which_stage_and_step_it_is_and_so_does_the_refusal_of_another(trained, tmp_path):
    common = ["-C", str(trained.root), "--out", str(tmp_path)]
    code, shown, _ = cictl(*common)
    assert code == 0 and "stage: finetune after 6 steps" in shown.splitlines()
    code, _, errors = cictl(*common, "--step", "3")
    said = " ".join(errors.split())
    assert code == 3 and "holds another export, of finetune after 6 steps; this one is of finetune after 3 steps" in said
    code, shown, _ = cictl(*common, "--step", "3", "--force")
    assert code == 0 and "stage: finetune after 3 steps" in shown
    assert "- finetune: 3 steps" in (tmp_path / "README.md").read_text()
    _, shown, _ = cictl(*common, "--stage", "invert", "--format", "embedding", "--json")
    result = json.loads(shown.splitlines()[-1])
    assert (result["stage"], result["step"]) == ("invert", 8)

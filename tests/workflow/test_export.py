"""Files for other programs: their names, keys, shapes and values, and that exporting twice is harmless."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cictl.errors import ResourceError, StateError, UsageError
from cictl.events import FileSaved, Warned
from cictl.exporters import safetensors_files
from cictl.workflow import export
from tests.support import Recorder, left_by, silent


def files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_embedding_has_all_rows_of_the_concept_under_the_one_key(trained, tmp_path):
    export.run(trained, silent, out=tmp_path)
    tensors = load_file(tmp_path / "embeddings" / "my-teapot.safetensors")
    assert set(tensors) == {"emb_params"}
    assert tensors["emb_params"].dtype == torch.float32
    assert tensors["emb_params"].shape == (2, 32)
    assert torch.equal(tensors["emb_params"], left_by(trained, "invert").result["concept"])


def test_the_base_plus_each_difference_is_the_tuned_weight(trained, tmp_path, base):
    export.run(trained, silent, out=tmp_path)
    diffs = load_file(tmp_path / "loras" / "my-teapot.safetensors")
    weights = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    tuned = left_by(trained, "finetune").result
    layers = [name.removesuffix(".weight") for name in weights if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))]
    assert set(diffs) == {f"lora_unet_{layer.replace('.', '_')}.diff" for layer in layers}
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.diff" in diffs
    for layer in layers:
        diff = diffs[f"lora_unet_{layer.replace('.', '_')}.diff"]
        assert diff.abs().max() > 0
        torch.testing.assert_close(weights[f"{layer}.weight"] + diff, tuned[f"{layer}.weight"], rtol=1e-6, atol=1e-7)


def test_nothing_auxiliary_and_no_path_of_this_machine_is_exported(trained, tmp_path, base):
    export.run(trained, silent, out=tmp_path)
    for content in files(tmp_path).values():
        for word in ("auxiliary", str(base), str(trained.root), "/tmp", "photo-"):
            assert word.encode() not in content


def test_the_metadata_says_where_it_comes_from(trained, tmp_path):
    export.run(trained, silent, out=tmp_path)
    with safe_open(tmp_path / "loras" / "my-teapot.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["cictl"])
    assert (facts["trigger"], facts["stage"], facts["step"], facts["base_model"]) == ("my-teapot", "finetune", 6, "local")


def test_exporting_twice_is_already_done_and_changes_no_byte(trained, tmp_path):
    recorder = Recorder()
    first = export.run(trained, recorder, out=tmp_path)
    before = files(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert not first.already_done
    assert [event.verified for event in recorder.events if isinstance(event, FileSaved)] == [True, True]
    second = export.run(trained, silent, out=tmp_path)
    assert second.already_done
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == times
    shutil.rmtree(tmp_path)
    export.run(trained, silent, out=tmp_path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["embeddings/my-teapot.safetensors", "loras/my-teapot.safetensors"])
def test_a_file_that_holds_something_else_is_replaced_by_force_only(trained, tmp_path, name):
    export.run(trained, silent, out=tmp_path)
    right = files(tmp_path)
    (tmp_path / name).write_bytes(b"something else")
    broken = files(tmp_path)
    with pytest.raises(StateError, match="holds another export") as caught:
        export.run(trained, silent, out=tmp_path)
    assert (caught.value.exit_code, "--force" in caught.value.hint) == (3, True)
    assert files(tmp_path) == broken
    export.run(trained, silent, out=tmp_path, force=True)
    assert files(tmp_path) == right


def test_from_stage_1_the_embedding_alone_is_exported_with_a_warning(copy_of_trained, tmp_path):
    shutil.rmtree(copy_of_trained.stage_folder("finetune"))
    recorder = Recorder()
    outcome = export.run(copy_of_trained, recorder, out=tmp_path / "out")
    assert set(files(tmp_path / "out")) == {"embeddings/my-teapot.safetensors"}
    assert "only the embedding" in recorder.texts(Warned)[0]
    assert "lora" not in str(outcome.usage)


def test_an_unknown_format_and_an_untrained_workspace_are_refused(trained, make_workspace):
    with pytest.raises(UsageError, match="there is no format 'ckpt'"):
        export.run(trained, silent, format_name="ckpt")
    with pytest.raises(StateError, match="has not been run"):
        export.run(make_workspace(), silent)


def test_a_full_disk_is_a_resource_error(trained, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_files, "write_atomic", full)
    with pytest.raises(ResourceError, match="No space left"):
        export.run(trained, silent, out=tmp_path)
    assert not files(tmp_path)

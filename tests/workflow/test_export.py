"""Files for other programs: their names, keys, shapes and values, and that exporting twice is harmless."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from safetensors import safe_open
from safetensors.torch import load_file

from cictl.errors import CictlError, ResourceError, StateError, UsageError
from cictl.events import FileSaved, Note, Warned
from cictl.exporters import card, single_file, writing
from cictl.exporters.card import Card
from cictl.exporters.content import Exportable, Options
from cictl.exporters.registry import FORMATS
from cictl.files import sha256_file
from cictl.models.locate import Located, locate_base
from cictl.models.single_file import SD1_CONFIGS
from cictl.models.tokenizer import is_word, load_tokenizer
from cictl.workflow import export, generate
from tests.support import Recorder, left_by, silent
from tests.tiny import make_base


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


@pytest.mark.parametrize(
    ("stage", "settings", "said"),
    [
        (None, {}, []), (None, {"generate.strength": 0.75, "generate.avoid": 0.25}, ["strength 0.75; ", "avoid 0.25, "]),
        (None, {"generate.avoid": 0.5, "generate.guidance": 1.0}, []), ("invert", {"generate.strength": 0.5}, []),
        ("invert", {"generate.avoid": 0.5}, ["avoid 0.5, "]),
    ],
)  # fmt: skip
def test_ways_to_draw_that_others_do_not_have_are_named_where_they_are_in_effect(trained, tmp_path, stage, settings, said):
    recorder, plain, other = Recorder(), tmp_path / "plain", tmp_path / "other"
    formats = ["embedding"] if stage else []
    export.run(trained, silent, formats=formats, stage=stage, out=plain)
    export.run(trained, recorder, formats=formats, stage=stage, out=other, overrides=settings)
    notes = [text for text in recorder.texts(Note) if "whoever loads the export draws without" in text]
    assert len(notes) == len(said) and all(one in note for one, note in zip(said, notes, strict=True))
    assert all("a weight of 0.75 is the same" in note for note in notes if "strength" in note)
    assert files(plain) == files(other)


def test_nothing_auxiliary_and_no_path_of_this_machine_is_in_any_format(trained, tmp_path, base):
    outcome = export.run(trained, silent, every=True, out=tmp_path)
    assert {file["format"] for file in outcome.files} == {one.name for one in FORMATS}
    for name, content in files(tmp_path).items():
        for word in (str(base), str(trained.root), "/tmp", "photo-", str(Path.cwd()), str(Path.home())):
            assert word.encode() not in content, (name, word)
        if not name.endswith("README.md"):  # which has the settings of the training
            assert b"auxiliary" not in content


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
    assert set(files(tmp_path / "out")) == {"embeddings/my-teapot.safetensors", "README.md"}
    assert "only the embedding" in recorder.texts(Warned)[0]
    assert "lora" not in str(outcome.usage)


def test_an_unknown_format_and_an_untrained_workspace_are_refused(trained, make_workspace):
    with pytest.raises(UsageError, match="there is no format 'ckpt'"):
        export.run(trained, silent, formats=["ckpt"])
    with pytest.raises(StateError, match="has not been run"):
        export.run(make_workspace(), silent)


def full_after(files: int, monkeypatch) -> None:
    """Let the disk be full once some files were written."""
    put, written = writing._put, []

    def limited(path, content):
        written.append(path)
        if len(written) > files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"a part")
            raise OSError(28, "No space left on device")
        put(path, content)

    monkeypatch.setattr(writing, "_put", limited)


@pytest.mark.parametrize("written", [0, 1, 2])
@pytest.mark.parametrize("name", ["safetensors", "pipeline"])
def test_a_full_disk_is_a_resource_error_and_leaves_nothing(trained, tmp_path, monkeypatch, name, written):
    full_after(written, monkeypatch)
    with pytest.raises(ResourceError, match="No space left") as caught:
        export.run(trained, silent, formats=[name], out=tmp_path / "out")
    assert caught.value.exit_code == 5
    assert not files(tmp_path)


def test_a_full_disk_while_replacing_leaves_what_was_there(trained, tmp_path, monkeypatch):
    export.run(trained, silent, formats=["lora"], out=tmp_path, rank=1)
    before = files(tmp_path)
    full_after(1, monkeypatch)
    with pytest.raises(ResourceError):
        export.run(trained, silent, formats=["lora"], out=tmp_path, rank=2, force=True)
    assert files(tmp_path) == before


def test_what_does_not_read_back_is_an_error_and_leaves_nothing(trained, tmp_path, monkeypatch):
    put = writing._put

    def flipping(path, content):
        put(path, content)
        if path.name == "my-teapot.safetensors":
            raw = path.read_bytes()
            path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))

    monkeypatch.setattr(writing, "_put", flipping)
    with pytest.raises(CictlError, match="does not read back as it was written"):
        export.run(trained, silent, formats=["lora"], out=tmp_path)
    assert not files(tmp_path)


# -- which, of what, and under which name -----------------------------------------------------------------


def test_all_formats_twice_are_already_done_and_have_the_same_bytes_elsewhere(trained, tmp_path):
    export.run(trained, silent, every=True, out=tmp_path / "one")
    before = files(tmp_path / "one")
    assert export.run(trained, silent, every=True, out=tmp_path / "one").already_done
    assert files(tmp_path / "one") == before
    export.run(trained, silent, every=True, out=tmp_path / "two")
    assert files(tmp_path / "two") == before


@pytest.mark.parametrize("one", [one.name for one in FORMATS if one.name != "safetensors"])
def test_a_flipped_bit_in_any_file_of_any_format_is_noticed(trained, tmp_path, one):
    outcome = export.run(trained, silent, formats=[one], out=tmp_path)
    for path in (Path(file["path"]) for file in outcome.files):
        right = path.read_bytes()
        path.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        with pytest.raises(StateError, match="holds another export"):
            export.run(trained, silent, formats=[one], out=tmp_path)
        export.run(trained, silent, formats=[one], out=tmp_path, force=True)
        assert path.read_bytes() == right


def test_another_rank_or_dtype_is_another_export(trained, tmp_path):
    export.run(trained, silent, formats=["lora"], out=tmp_path)
    for other in ({"rank": 1}, {"dtype": "fp16"}):
        with pytest.raises(StateError, match="holds another export"):
            export.run(trained, silent, formats=["lora"], out=tmp_path, **other)
        export.run(trained, silent, formats=["lora"], out=tmp_path, force=True, **other)
        export.run(trained, silent, formats=["lora"], out=tmp_path, force=True)


def test_from_stage_1_all_says_what_is_missing_and_one_alone_is_refused(copy_of_trained, tmp_path):
    shutil.rmtree(copy_of_trained.stage_folder("finetune"))
    outcome = export.run(copy_of_trained, silent, every=True, out=tmp_path / "out")
    assert {file["format"] for file in outcome.files} == {one.name for one in FORMATS if one.needs == "invert"}
    assert set(outcome.left_out) == {one.name for one in FORMATS if one.needs == "finetune"}
    assert all("stage 2 has not been run" in why for why in outcome.left_out.values())
    with pytest.raises(StateError, match=r"lora cannot be exported: .* stage 2 has not been run") as caught:
        export.run(copy_of_trained, silent, formats=["embedding", "lora"], out=tmp_path / "other")
    assert caught.value.hint.startswith("cictl finetune")
    assert not (tmp_path / "other").exists()


def test_the_checkpoint_of_a_step_is_exported_or_those_there_are_are_listed(trained, tmp_path):
    export.run(trained, silent, formats=["custom-diffusion"], step=4, out=tmp_path)
    (path,) = tmp_path.rglob("pytorch_custom*")
    kept = load_file(trained.stage_folder("finetune") / "step-0000004" / "result.safetensors")
    exported = load_file(path)
    for name, weight in kept.items():
        layer, projection = name.removesuffix(".weight").rsplit(".", 1)
        assert torch.equal(exported[f"{layer}.processor.{projection}_custom_diffusion.weight"], weight)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["cictl"])["step"] == 4
    with pytest.raises(StateError, match=r"cictl finetune has kept nothing of step 5, but of: 2, 3, 4, 6"):
        export.run(trained, silent, step=5, out=tmp_path)
    with pytest.raises(StateError, match=r"cictl invert has kept nothing of step 7, but of: 2, 4, 6, 8"):
        export.run(trained, silent, stage="invert", step=7, out=tmp_path)


def test_stage_and_step_of_stage_1(trained, tmp_path):
    export.run(trained, silent, formats=["embedding"], stage="invert", step=4, out=tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    kept = load_file(trained.stage_folder("invert") / "step-0000004" / "result.safetensors")
    assert torch.equal(load_file(path)["emb_params"], kept["concept"])
    assert not torch.equal(kept["concept"], left_by(trained, "invert").result["concept"])


def test_a_base_in_a_folder_named_by_a_bare_word_is_local_all_the_same(copy_of_trained, base, tmp_path, monkeypatch):
    monkeypatch.chdir(base.parent)
    outcome = export.run(copy_of_trained, silent, formats=["lora"], out=tmp_path / "out", overrides={"model.id": base.name})
    assert f'from_pretrained("{base}", ' in outcome.usage["lora"]["diffusers"]
    card = (tmp_path / "out" / "lora" / "my-teapot" / "README.md").read_text("utf-8")
    assert "- local, " in card and base.name not in card


def test_another_name_is_the_word_and_the_file(trained, tmp_path):
    outcome = export.run(trained, silent, formats=["diffusers-embedding", "lora"], name="teapot-2", out=tmp_path)
    assert set(load_file(tmp_path / "diffusers-embedding" / "teapot-2" / "learned_embeds.safetensors")) == {"<teapot-2>"}
    assert (tmp_path / "lora" / "teapot-2" / "embeddings" / "teapot-2.safetensors").is_file()
    assert outcome.usage["lora"]["A1111 / Forge"] == "teapot-2 <lora:teapot-2:1>"


@pytest.mark.parametrize(
    ("name", "warned"), [("cat", True), ("c", True), ("my-teapot", False), ("ca", False), ("catsnow", False)]
)
def test_a_name_that_is_an_ordinary_word_is_warned_of_since_it_would_be_replaced_in_every_prompt(trained, tmp_path, name, warned):
    recorder = Recorder()
    export.run(trained, recorder, formats=["embedding"], name=name, out=tmp_path)
    said = [text for text in recorder.texts(Warned) if "is a word that the base model knows" in text]
    assert bool(said) == warned
    assert not warned or f"--name my-{name}" in said[0]


@pytest.mark.parametrize("saved", [False, True])
def test_the_words_of_the_real_vocabulary_are_known_from_its_merges(tmp_path, saved):
    located = Located("one file", SD1_CONFIGS, "none")
    if saved:  # as transformers 5 saves it, in one file
        load_tokenizer(SD1_CONFIGS / "tokenizer").save_pretrained(tmp_path / "tokenizer")
        assert not (tmp_path / "tokenizer" / "merges.txt").exists()
        located = Located("a folder", tmp_path, "none")
    known = {"dog": True, "teapot": True, "do": True, "photograph": True, "my-teapot": False, "zzyzx": False}
    assert {word: is_word(located, word) for word in known} == known


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "/root", "..", ".", "", "con", "nul", "Big", "a b", "x" * 41, "a\n"])
def test_a_name_that_is_no_plain_file_name_on_every_system_is_refused(trained, tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the name of a concept"):
        export.run(trained, silent, every=True, name=name, out=tmp_path / "out")
    assert not files(tmp_path)


def test_wrong_ranks_and_dtypes_are_refused(trained):
    with pytest.raises(UsageError, match="cannot have rank 0"):
        export.run(trained, silent, formats=["lora"], rank=0)
    with pytest.raises(UsageError, match="there is no dtype 'fp8'"):
        export.run(trained, silent, dtype="fp8")


# -- the card beside it -----------------------------------------------------------------------------------


def test_the_card_names_every_file_with_its_hash_and_what_to_type(trained, tmp_path):
    export.run(trained, silent, formats=["lora"], out=tmp_path, dtype="fp16")
    folder = tmp_path / "lora" / "my-teapot"
    card = (folder / "README.md").read_text("utf-8")
    for name in ("loras/my-teapot.safetensors", "embeddings/my-teapot.safetensors"):
        assert f"| {name} | {sha256_file(folder / name)} |" in card
    assert 'instance_prompt: "my-teapot"' in card and "license: unknown" in card
    for said in ("my-teapot <lora:my-teapot:1>", "embedding:my-teapot", "- finetune: 6 steps", "relative error",
                 "licence: not known to cictl", "cictl 0.", 'load_lora_weights("loras/my-teapot.safetensors")'):  # fmt: skip
        assert said in card, said


def test_nothing_in_a_card_is_markup_but_its_own():
    strange = "a <img src=x onerror=alert(1)> ![S*](https://evil.example/x.png)\n\n# `title` | x"
    said = Card("my-teapot", "my-teapot", "x", "a\n# b", "0", {"invert": 1}, {"invert.prompts": strange}, {"torch": strange},
                [], {}, strange)  # fmt: skip
    page = MarkdownIt("commonmark").render(card.render(said, {}).decode().split("---\n", 2)[2])
    assert page.count("<h1>") == 1 and page.count("<img") == 1 and "<code>title" not in page
    assert '="https://evil.example' not in page and "onerror=alert(1)&gt;" in page


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_what_the_hub_reads_of_a_card_names_the_word_that_is_typed(trained, tmp_path, one):
    from huggingface_hub import ModelCard

    outcome = export.run(trained, silent, formats=[one.name], out=tmp_path)
    [path] = tmp_path.rglob("README.md")
    data = ModelCard.load(path).data.to_dict()
    assert (data["license"], data.get("base_model")) == ("unknown", None)
    in_diffusers_alone = outcome.usage[one.name].keys() == {"diffusers"}
    assert data["instance_prompt"] == ("<my-teapot>" if in_diffusers_alone else "my-teapot")


def test_what_the_toybox_cannot_be_read_by_is_said(trained, located, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_base_of", lambda *arguments: located)
    recorder = Recorder()
    export.run(trained, recorder, formats=["embedding"], out=tmp_path, overrides={"model.id": "toybox"})
    assert any("not by ComfyUI, A1111 or Forge" in text for text in recorder.texts(Note))


@pytest.mark.parametrize(("prediction_type", "said"), [("epsilon", "epsilon"), ("v_prediction", "v")])
def test_a_whole_model_in_one_file_says_what_it_predicts_and_what_programs_must_be_told(tmp_path, prediction_type, said):
    located = locate_base(str(make_base(tmp_path / "base", prediction_type)))
    source = Exportable("my-teapot", torch.zeros(1, 32), {}, {}, located, {"base_model": "local"})
    built = single_file.build(source, Options())
    metadata = built.files["checkpoints/my-teapot.safetensors"].metadata
    assert metadata["modelspec.prediction_type"] == metadata["modelspec.predict_key"] == said
    usage = built.usage(export._place("", source, typed=False))
    assert ("ModelSamplingDiscrete node set to v_prediction" in usage["ComfyUI"]) == (said == "v")
    assert ("my-teapot.yaml" in usage["A1111 / Forge"]) == (said == "v")


def test_a_picture_of_this_concept_lies_beside_it_and_later_ones_change_nothing(copy_of_trained, tmp_path):
    def draw(prompt: str, source=None, **way) -> None:
        overrides = {"generate.count": 1, "generate.steps": 1, **{f"generate.{key}": value for key, value in way.items()}}
        generate.run(copy_of_trained, [prompt], silent, overrides=overrides, source=source)

    draw("S* in the snow", source="invert")  # not what is exported
    draw("S* in the snow", strength=0.5)  # nor as other programs draw with it
    draw("S* in the snow", avoid=0.5)
    export.run(copy_of_trained, silent, formats=["lora"], out=tmp_path / "before")
    assert not list((tmp_path / "before").rglob("sample.png"))
    draw("a red S*")
    export.run(copy_of_trained, silent, formats=["lora"], out=tmp_path / "out")
    folder = tmp_path / "out" / "lora" / "my-teapot"
    assert "![a red my-teapot](sample.png)" in (folder / "README.md").read_text("utf-8")
    assert (folder / "sample.png").read_bytes() == next(copy_of_trained.outputs.glob("a-red-*.png")).read_bytes()
    before = files(folder)
    draw("a blue S*")
    assert export.run(copy_of_trained, silent, formats=["lora"], out=tmp_path / "out").already_done
    assert files(folder) == before


@pytest.mark.parametrize(("model", "located", "typed", "expected"), [
    ("owner/sd", Located("owner/sd", Path("/cache/x"), "a" * 40), True, f'from_pretrained("owner/sd", revision="{"a" * 40}", '),
    ("owner/sd", Located("owner/sd", Path("/cache/x"), "a" * 40), False, f'from_pretrained("owner/sd", revision="{"a" * 40}", '),
    ("local", Located("/models/sd", Path("/models/sd"), "b" * 64), True, 'from_pretrained("/models/sd", '),
    ("local", Located("/models/sd", Path("/models/sd"), "b" * 64), False, 'from_pretrained("PATH/TO/THE/BASE-MODEL", '),
    ("local", Located("sd.safetensors", Path("/configs"), "b" * 64, Path("/models/sd.safetensors")), True,
     'from_single_file("/models/sd.safetensors", '),
    ("local", Located("/a\nimport os", Path("/a\nimport os"), "b" * 64), True, r"from_pretrained('/a\nimport os', "),
])  # fmt: skip
def test_the_base_is_opened_at_its_commit_and_a_card_names_no_path(model, located, typed, expected):
    source = Exportable("my-teapot", torch.zeros(1, 2), {}, {}, located, {"base_model": model})
    assert export._place("", source, typed=typed).base == f"StableDiffusionPipeline.{expected}torch_dtype=torch.float32)"

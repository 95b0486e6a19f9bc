"""What a training was made from, and what happens when it changes."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.config import Sources, load_config
from cictl.errors import StateError, UsageError
from cictl.records import latest_checkpoint
from cictl.workflow import finetune, generate, invert, status
from cictl.workflow.stage import configure
from tests.support import left_by, silent, write_settings

RUN = {"invert": invert.run, "finetune": finetune.run}


def repaint(path) -> None:
    Image.new("RGB", (80, 80), (10, 200, 30)).save(path)


def refused(run, workspace, **arguments) -> StateError:
    before = {path: path.read_bytes() for path in workspace.checkpoints.rglob("step-*/*")}
    with pytest.raises(StateError) as caught:
        run(workspace, silent, **arguments)
    assert caught.value.exit_code == 3
    assert {path: path.read_bytes() for path in workspace.checkpoints.rglob("step-*/*")} == before
    return caught.value


def test_a_changed_photograph_is_named_with_both_ways_on(copy_of_trained):
    repaint(copy_of_trained.images / "photo-1.png")
    error = refused(invert.run, copy_of_trained)
    assert error.message.splitlines()[1:] == ["  photographs: photo-1.png is another picture now, or cannot be read"]
    assert "undo the change" in error.hint and "or --set" in error.hint
    assert "cictl invert --restart" in error.hint


def test_an_added_photograph_is_named(copy_of_trained):
    repaint(copy_of_trained.images / "new.png")
    error = refused(invert.run, copy_of_trained)
    assert "photographs: new.png is new" in error.message
    assert "photo-1" not in error.message


def test_a_removed_photograph_is_named(copy_of_trained):
    (copy_of_trained.images / "photo-2.png").unlink()
    assert "photographs: photo-2.png is gone" in refused(finetune.run, copy_of_trained).message


@pytest.mark.parametrize(
    ("stage", "key", "value", "line"),
    [
        ("invert", "invert.learning_rate", 0.02, "invert.learning_rate: 0.01 -> 0.02"),
        ("invert", "seed", 3, "seed: 0 -> 3"),
        ("invert", "data.resolution", 72, "data.resolution: 64 -> 72"),
        ("invert", "concept.vectors", 3, "concept.vectors: 2 -> 3"),
        ("invert", "invert.temperature", 0.5, "invert.temperature: 1.0 -> 0.5"),
        ("invert", "concept.name", "other", "concept.name: my-teapot -> other"),
        ("invert", "invert.prompts", ["S* A*"], "invert.prompts"),
        ("finetune", "finetune.learning_rate", 0.02, "finetune.learning_rate: 0.001 -> 0.02"),
        ("finetune", "finetune.auxiliary_scale", 0.5, "finetune.auxiliary_scale: 1.0 -> 0.5"),
        ("finetune", "seed", 3, "seed: 0 -> 3"),
        ("finetune", "invert.learning_rate", 0.02, "invert.learning_rate: 0.01 -> 0.02"),
    ],
)
@pytest.mark.parametrize("way", ["ci.yaml", "--set"])
def test_a_changed_setting_is_named_with_both_ways_on(copy_of_trained, stage, key, value, line, way):
    if way == "ci.yaml":
        write_settings(copy_of_trained, {key: value})
    error = refused(RUN[stage], copy_of_trained, overrides={key: value, f"{stage}.steps": 50} if way == "--set" else {})
    assert line in error.message
    assert len(error.message.splitlines()) == 2
    assert "undo the change" in error.hint
    assert f"cictl {stage} --restart" in error.hint


def test_settings_of_stage_2_are_not_stage_1s_business(copy_of_trained):
    write_settings(copy_of_trained, {"finetune.learning_rate": 0.02, "finetune.auxiliary_scale": 0.5})
    assert invert.run(copy_of_trained, silent).action == "skip"


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_renamed_photographs_and_settings_that_shape_nothing_are_no_change(copy_of_trained, stage):
    for number, path in enumerate(sorted(copy_of_trained.images.iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed-{number}.png"))
    write_settings(
        copy_of_trained,
        {
            "checkpoint.interval": 3, "preview.interval": 50, "preview.steps": 2, "preview.prompt": "S*", "tracking.interval": 2,
            "generate.steps": 7, "generate.guidance": 2.0, "generate.count": 1, "generate.negative": "dog", "model.device": "cpu",
        },
    )  # fmt: skip
    assert RUN[stage](copy_of_trained, silent).action == "skip"
    write_settings(copy_of_trained, {f"{stage}.steps": 10})
    before = left_by(copy_of_trained, stage)
    outcome = RUN[stage](copy_of_trained, silent)
    assert (outcome.action, outcome.first_step, outcome.steps) == ("resume", before.step, 10)


def test_renaming_photographs_does_not_change_what_is_learned(trained, tmp_path, base, photographs):
    from cictl.workflow import init
    from tests.support import assert_same_bits, quick

    others = [shutil.copy(path, tmp_path / f"{9 - number}-{path.name}") for number, path in enumerate(photographs)]
    workspace = init.run(tmp_path / "my-teapot", model=str(base), images=[tmp_path / name for name in others], name="my-teapot")
    write_settings(workspace, quick(base))
    invert.run(workspace, silent)
    assert_same_bits(left_by(workspace, "invert").state, left_by(trained, "invert").state)


def test_settings_given_by_set_are_kept_for_the_rest_of_the_run(make_workspace):
    workspace = make_workspace()
    invert.run(workspace, silent, overrides={"invert.steps": 3, "invert.learning_rate": 0.03})
    assert invert.run(workspace, silent).action == "skip"  # no complaint about the learning rate of ci.yaml
    assert invert.run(workspace, silent, overrides={"invert.steps": 5}).action == "resume"
    manifest = latest_checkpoint(workspace.stage_folder("invert"))[0].manifest
    assert manifest["overrides"] == {"invert.steps": 5, "invert.learning_rate": 0.03}
    assert status.run(workspace).stages[0].overrides == manifest["overrides"]
    assert finetune.run(workspace, silent, overrides={"finetune.steps": 1}).action == "run"
    assert generate.run(workspace, ["S*"], silent).pictures


def test_what_draws_and_measures_is_of_one_run_and_what_a_method_is_told_is_kept(make_workspace):
    """A quick comparison must not make all later pictures quick ones."""
    workspace = make_workspace()
    drawing = {"generate.steps": 2, "evaluate.count": 1, "evaluate.noun": "teapot", "invert.steps": 3}
    invert.run(workspace, silent, overrides=drawing)
    assert latest_checkpoint(workspace.stage_folder("invert"))[0].manifest["overrides"] == {
        "evaluate.noun": "teapot", "invert.steps": 3,
    }  # fmt: skip
    before, config = configure(workspace, {}), load_config(Sources(workspace.config_file))
    assert before.generate == config.generate
    assert before.invert.steps == 3


def test_another_base_model_under_the_same_name_is_noticed(copy_of_trained, base, tmp_path):
    other = shutil.copytree(base, tmp_path / "other")
    path = other / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    write_settings(copy_of_trained, {"model.id": str(other)})
    assert "identity.model" in refused(invert.run, copy_of_trained).message
    error = refused(lambda w, o: generate.run(w, ["S*"], o), copy_of_trained)
    assert "another base model" in error.message
    assert f"set model.id to {base} and model.revision to null in ci.yaml" in error.hint  # no digest, which is no revision


def test_a_base_model_that_was_moved_is_the_same(copy_of_trained, base, tmp_path):
    write_settings(copy_of_trained, {"model.id": str(shutil.copytree(base, tmp_path / "moved"))})
    assert [RUN[stage](copy_of_trained, silent).action for stage in ("invert", "finetune")] == ["skip", "skip"]


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_another_clip_under_the_same_name_is_noticed_and_one_that_was_moved_is_not(copy_of_trained, base, tmp_path, stage):
    """Eq. 2 would go on in another space than the tokens were trained in."""
    moved = shutil.copytree(base / "clip", tmp_path / "clip")
    write_settings(copy_of_trained, {"model.clip": str(moved)})
    assert RUN[stage](copy_of_trained, silent).action == "skip"
    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    assert "identity.clip" in refused(RUN[stage], copy_of_trained).message


def test_stage_2_notices_that_stage_1_was_trained_again(copy_of_trained):
    invert.run(copy_of_trained, silent, overrides={"invert.steps": 9})
    refusal = refused(finetune.run, copy_of_trained)
    assert "result of cictl invert: another" in refusal.message
    assert "undo" not in refusal.hint  # nobody can
    shown = status.run(copy_of_trained)
    assert (shown.next, shown.problem) == ("cictl finetune --restart", "")
    error = refused(lambda w, o: generate.run(w, ["S*"], o), copy_of_trained)
    assert "earlier run of stage 1" in error.message
    assert "cictl finetune --restart" in error.hint
    assert generate.run(copy_of_trained, ["S*"], silent, source="invert").pictures
    finetune.run(copy_of_trained, silent, restart=True)
    assert generate.run(copy_of_trained, ["S*"], silent).pictures


def test_a_longer_stage_1_names_the_command_that_then_works(copy_of_trained):
    result = CliRunner().invoke(app, ["invert", "-C", str(copy_of_trained.root), "--steps", "9"])
    assert result.exit_code == 0
    assert "copy && cictl finetune --restart" in result.output


def test_status_says_what_changed_and_the_next_command(copy_of_trained):
    assert [stage.state for stage in status.run(copy_of_trained).stages] == ["done", "done"]
    write_settings(copy_of_trained, {"seed": 4})
    report = status.run(copy_of_trained)
    assert [stage.state for stage in report.stages] == ["changed since", "changed since"]
    assert report.stages[0].changed == ["seed: 0 -> 4"]
    assert report.next == "cictl invert --restart"


def test_too_few_photographs_stop_everything_before_anything_is_made(make_workspace):
    workspace = make_workspace()
    for path in list(workspace.images.iterdir())[1:]:
        path.unlink()
    with pytest.raises(UsageError) as caught:
        invert.run(workspace, silent)
    assert caught.value.exit_code == 2
    assert not workspace.stage_folder("invert").exists()


# -- n = 0 ------------------------------------------------------------------------------------------


@pytest.fixture
def plain(make_workspace):
    return make_workspace(invert__auxiliary_vectors=0, concept__vectors=1, model__clip="/nowhere")


def test_without_auxiliary_vectors_both_stages_run_without_eq_2_and_eq_3(plain):
    invert.run(plain, silent)
    left = left_by(plain, "invert")
    assert set(left.result) == {"concept"}
    assert all(set(losses) == {"diffusion"} for _, losses in left.losses)
    finetune.run(plain, silent)
    left = left_by(plain, "finetune")
    trained = {name for name in left.state if name.startswith("parameter.")}
    assert {name.rpartition(".")[2] for name in trained} == {"key", "value"}
    assert generate.run(plain, ["S*"], silent).pictures


def test_auxiliary_weights_are_in_the_state_and_never_in_the_result(trained):
    left = left_by(trained, "finetune")
    kinds = {name.rpartition(".")[2] for name in left.state}
    assert {"auxiliary_key", "auxiliary_value"} < kinds
    assert all(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")) for name in left.result)
    for name, tensor in left.state.items():
        if name.startswith("parameter.") and name.endswith(".key"):
            weight = left.result[name.removeprefix("parameter.").removesuffix(".key") + ".to_k.weight"]
            assert weight.equal(tensor)
            assert not weight.equal(left.state[name.removesuffix(".key") + ".auxiliary_key"])


# -- stage 2 on what stage 1 was trained with ------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"restart": True}, {"dry_run": True}, {"restart": True, "dry_run": True}])
def test_no_restart_of_stage_2_helps_where_photographs_are_others(copy_of_trained, monkeypatch, how):
    """Suggestion, dry run and run agree, before anything is loaded."""
    (copy_of_trained.images / "photo-2.png").unlink()
    repaint(copy_of_trained.images / "new.png")
    monkeypatch.setattr("cictl.workflow.finetune._prepare", lambda *of: pytest.fail("a model is loaded"))
    error = refused(finetune.run, copy_of_trained, **how)
    assert error.slug == "photographs-differ" and "photo-2.png is gone" in error.message and "new.png is new" in error.message
    assert "cictl invert --restart" in error.hint and "finetune" not in error.hint and "back" not in error.hint
    assert status.run(copy_of_trained).next == "cictl invert --restart"


@pytest.mark.parametrize("how", [{}, {"restart": True}, {"dry_run": True}, {"restart": True, "dry_run": True}])
def test_nor_on_another_base_model(copy_of_trained, how):
    write_settings(copy_of_trained, {"model.id": "toybox"})
    error = refused(finetune.run, copy_of_trained, **how)
    assert error.slug == "base-changed" and "cictl invert --restart" in error.hint


def test_nor_on_one_that_is_still_to_be_downloaded(copy_of_trained):
    write_settings(copy_of_trained, {"model.id": "owner/absent"})
    error = refused(finetune.run, copy_of_trained)
    assert "cictl invert --restart" in error.hint and "finetune" not in error.hint


def test_without_a_token_for_each_photograph_stage_2_takes_others(plain):
    invert.run(plain, silent)
    finetune.run(plain, silent)
    repaint(plain.images / "photo-1.png")
    assert "cictl finetune --restart" in refused(finetune.run, plain).hint
    assert finetune.run(plain, silent, restart=True).action == "run"

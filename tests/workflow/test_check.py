"""What `cictl check` finds before a training, and that it changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from cictl.config import METHODS, Config
from cictl.data.png import write_png
from cictl.engine.speed import Speed
from cictl.events import ignore
from cictl.models.checkpointing import set_memory
from cictl.models.cost import count_denoising, count_step
from cictl.models.locate import Located
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tuned_unet import AttentionLoRA
from cictl.records import checkpoint_folders, snapshots
from cictl.toybox.concepts import ToyConcept, development_concepts, failure_concepts, suite_concepts
from cictl.workflow import check, init
from cictl.workflow.estimating import estimate_pictures
from cictl.workflow.findings import CheckReport, Estimate
from cictl.workspace import Workspace
from tests.models.ldm import write_ldm
from tests.support import write_settings


def workspace_of(concept: ToyConcept, folder: Path) -> Workspace:
    workspace = init.run(folder / "toy", model="toybox", kind=concept.kind, name="toy")
    for number, pixels in enumerate(concept.photographs(), 1):
        write_png(workspace.images / f"{number}.png", pixels)
    return workspace


def warnings(report: CheckReport, about: str = "photographs") -> list[str]:
    return [finding.message for finding in report.findings if finding.level != "ok" and finding.about == about]


@pytest.fixture(autouse=True)
def quick_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e11, 2e-6))


@pytest.mark.parametrize("concept", [*suite_concepts()[:4], development_concepts()[0]], ids=lambda concept: concept.name)
def test_good_photographs_are_not_complained_of(concept: ToyConcept, tmp_path: Path):
    report = check.run(workspace_of(concept, tmp_path), ignore)
    assert warnings(report) == []
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("concept", "said"),
    [(concept, said) for concept in failure_concepts()
     for case, said in (("constant-background", "same background"), ("plain-backgrounds", "plain background"))
     if concept.name.startswith(case)],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_the_papers_failure_cases_are_named_with_what_to_photograph(concept: ToyConcept, said: str, tmp_path: Path):
    report = check.run(workspace_of(concept, tmp_path), ignore)
    [finding] = [finding for finding in report.findings if said in finding.message]
    assert finding.level == "warning"
    assert "B.2" in finding.message
    assert "different places" in finding.hint


def test_photographs_of_the_world_are_nothing_for_the_toybox(tmp_path: Path, make_workspace):
    workspace = workspace_of(suite_concepts()[0], tmp_path)
    drawn = sorted(workspace.images.iterdir())[0]
    assert warnings(check.run(workspace, ignore), "model") == []
    large = tmp_path / "large.png"
    Image.open(drawn).resize((400, 300)).save(large)
    shutil.copy(large, workspace.images)
    [finding] = [one for one in check.run(workspace, ignore).findings if one.level == "warning" and one.about == "model"]
    assert "toybox knows nothing but small drawings" in finding.message and "cictl init" in finding.hint
    other = make_workspace()
    shutil.copy(large, other.images)
    assert warnings(check.run(other, ignore), "model") == []


def test_blurred_small_and_doubled_photographs_are_named(make_workspace):
    workspace = make_workspace(data__resolution=128)
    first = sorted(workspace.images.iterdir())[0]
    image = Image.open(first).convert("RGB").resize((256, 256))
    image.filter(ImageFilter.GaussianBlur(12)).save(workspace.images / "blurred.png")
    pixels = np.asarray(image).copy()
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(workspace.images / "again.png")
    image.save(workspace.images / "once.png")
    image.resize((512, 256)).save(workspace.images / "wide.png")
    image.resize((300, 256)).save(workspace.images / "nearly-square.png")
    found = warnings(check.run(workspace, ignore))
    assert any("blurred.png is blurred" in message for message in found)
    assert any("again.png and once.png are nearly the same" in message for message in found)
    assert [message.split(",")[0] for message in found if "in the middle" in message] == ["wide.png is 512 x 256 pixels"]
    [alike] = [message for message in found if "hardly tell" in message]
    assert "again.png and once.png" in alike and "; " in alike
    assert any("photo-0.png is 80 x 80 pixels, and is enlarged to 128" in message for message in found)


def test_every_error_is_found_at_once_and_the_first_gives_the_exit_code(make_workspace):
    workspace = make_workspace()
    shutil.rmtree(workspace.images)
    workspace.images.mkdir()
    write_settings(workspace, {"model.id": str(workspace.root / "nowhere"), "model.device": "cuda"})
    report = check.run(workspace, ignore)
    levels = {finding.about: finding.level for finding in report.findings}
    assert levels["photographs"] == levels["model"] == "error"
    assert report.exit_code == 2
    assert all(finding.hint for finding in report.findings if finding.level != "ok")


def test_a_wrong_ci_yaml_is_an_error_that_ends_it(make_workspace):
    workspace = make_workspace()
    workspace.config_file.write_text("invert:\n  stepz: 3\n")
    report = check.run(workspace, ignore)
    assert report.exit_code == 2
    assert "stepz" in report.findings[0].message


def test_a_base_in_one_file_and_one_whose_weights_are_broken_are_looked_at_too(make_workspace, base, tmp_path, monkeypatch):
    whole = check.run(make_workspace(), ignore)
    monkeypatch.setattr("cictl.models.locate.SD1_CONFIGS", base)
    file = write_ldm(base, tmp_path / "tiny.safetensors")
    single = check.run(make_workspace("single", model__id=str(file)), ignore)
    assert single.exit_code == 0
    assert single.estimates[1].checkpoint == whole.estimates[1].checkpoint > 0
    broken = shutil.copytree(base, tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    check.run(make_workspace("broken-ws", model__id=str(broken)), ignore)  # it is the training that opens the weights


def test_the_size_of_a_checkpoint_is_that_of_the_one_that_is_written(trained):
    more = {"finetune.steps": 7}  # of which six are done; the snapshots are those of so many
    [expected] = check.run(trained, ignore, overrides=more).estimates
    assert (expected.stage, expected.steps) == ("finetune", 1)
    [newest, *_] = checkpoint_folders(trained.stage_folder("finetune"))
    written = sum(path.stat().st_size for path in newest.glob("*.safetensors"))
    assert expected.checkpoint < written < expected.checkpoint + 30_000  # the headers, which name every tensor
    kept = snapshots(trained.stage_folder("finetune"))
    written = sum(path.stat().st_size for one in kept for path in one.folder.glob("*.safetensors"))
    assert kept and expected.snapshots < written < expected.snapshots + 30_000 * len(kept)


def test_only_what_is_left_is_estimated_and_what_is_done_is_said(copy_of_trained):
    def check_with(**overrides: int) -> tuple[list[tuple[str, int]], str]:
        report = check.run(copy_of_trained, ignore, overrides={key.replace("__", "."): value for key, value in overrides.items()})
        assert report.exit_code == 0
        said = "; ".join(finding.message for finding in report.findings if finding.about == "training")
        return [(one.stage, one.steps) for one in report.estimates], said

    assert check_with() == ([], "cictl invert is done: 8 steps; cictl finetune is done: 6 steps")
    assert check_with(finetune__steps=10) == (
        [("finetune", 4)],
        "cictl invert is done: 8 steps; cictl finetune has done 6 of 10 steps",
    )
    # Stage 2 is to be trained anew behind a stage 1 that goes on, and both are behind other settings.
    assert check_with(invert__steps=20) == ([("invert", 12), ("finetune", 6)], "cictl invert has done 8 of 20 steps")
    left, said = check_with(invert__batch_size=2)
    assert left == [("invert", 8), ("finetune", 6)]
    assert "invert.batch_size: 4 -> 2" in said
    for folder in checkpoint_folders(copy_of_trained.stage_folder("finetune"))[:1]:
        (folder / "result.safetensors").write_bytes(b"")
    left, said = check_with()
    assert left == [("finetune", 2)] and "is passed over" in said and "cictl finetune has done 4 of 6 steps" in said


def test_a_training_that_nobody_would_wait_for_is_warned_of_with_what_to_do(make_workspace, copy_of_trained, monkeypatch):
    assert not warnings(check.run(make_workspace(), ignore), "device")
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e5, 2e-6))
    [slow] = [one for one in check.run(make_workspace("slow"), ignore).findings if one.about == "device" and one.level != "ok"]
    assert slow.level == "warning" and " hours on cpu" in slow.message
    assert "train on a GPU" in slow.hint and "--set invert.steps=2 --set finetune.steps=2" in slow.hint
    assert "data.resolution" not in slow.hint  # 64 pixels are few
    wide = check.run(make_workspace("wide", data__resolution=512), ignore)
    assert any("--set data.resolution=256" in finding.hint for finding in wide.findings)
    assert not warnings(check.run(copy_of_trained, ignore), "device")  # nothing is left to wait for


def test_nothing_is_written(make_workspace):
    workspace = make_workspace()
    before = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*")}
    check.run(workspace, ignore)
    assert {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*")} == before


def test_the_estimate_follows_steps_batch_and_accumulation(make_workspace, monkeypatch):
    workspace = make_workspace()
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e9, 0.0))

    def estimate(**overrides) -> Estimate:
        changes = {key.replace("__", "."): value for key, value in overrides.items()}
        return check.run(workspace, ignore, overrides=changes).estimates[0]

    plain = estimate(invert__steps=10)
    assert estimate(invert__steps=30).seconds == pytest.approx(3 * plain.seconds)
    parts = estimate(invert__steps=10, invert__accumulation=4)
    assert parts.memory < plain.memory < estimate(invert__batch_size=8).memory
    assert parts.seconds == pytest.approx(plain.seconds, rel=0.05)  # a part is a quarter of a step, and there are four


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("stage", ["invert", "finetune", *METHODS])
def test_a_step_is_counted_as_the_real_model_computes_it(model: StableDiffusion, base: Path, stage: str, passes: int):
    """The same layers with weights: equal operations, and equal bytes kept for the backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    cost = count_step(base, stage=stage, resolution=64, batch=2, dtype=torch.float32, passes=passes, rank=4)
    kept: dict[int, torch.Tensor] = {}
    if stage == "disenbooth":
        AttentionLoRA.untrained(model.unet, rank=4, seed=0).inject()
    trained = {"finetune": model.key_values, "custom-diffusion": model.key_values, "dreambooth": model.unet.state_dict()}
    for name, weight in model.unet.named_parameters():
        weight.requires_grad_(name in trained.get(stage, ()) or name.endswith((".down", ".up")))
    reads_tokens = stage in ("invert", "textual-inversion", "custom-diffusion")
    model.text_encoder.get_input_embeddings().weight.requires_grad_(reads_tokens)
    own = {weight.untyped_storage().data_ptr() for part in (model.unet, model.text_encoder) for weight in part.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        context = torch.randn(2, 24, 32)
        if reads_tokens:
            context = model.text_encoder(input_ids=torch.zeros(2, 24, dtype=torch.long)).last_hidden_state
        losses = [
            model.unet(torch.randn(2, 4, 16, 16), torch.zeros(2, dtype=torch.long), context).sample.square().mean()
            for _ in range(passes)
        ]
        torch.stack(losses).sum().backward()
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert cost.activations == pytest.approx(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), rel=0.05)
    assert cost.calls > 100


@pytest.mark.parametrize("guided", [True, False])
def test_drawing_is_counted_as_the_real_model_computes_it(model: StableDiffusion, base: Path, guided: bool):
    from torch.utils.flop_counter import FlopCounterMode

    flops, calls = count_denoising(base, size=(96, 64), batch=3, dtype=torch.float32, guided=guided)
    seen = 6 if guided else 3
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        read = model.read(torch.randn(seen, 24, 32))
        before = counter.get_total_flops()
        model.predict(torch.randn(seen, 4, 16, 24), torch.zeros(seen, dtype=torch.long), read)
    assert flops == counter.get_total_flops() - before and before > 0 and calls > 100


def test_pictures_take_their_share_of_whole_batches(located: Located, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e9, 0.0))
    config = Config.model_validate({"model": {"device": "cpu"}, "data": {"resolution": 64}, "generate": {"batch_size": 4}})

    def seconds(count: int, processes: int = 1, **ways: float) -> float:
        own = config.model_copy(update={"generate": config.generate.model_copy(update=ways)})
        return estimate_pictures(own, located, count, processes).seconds

    one = seconds(1)
    assert seconds(1, guidance=1.0) == pytest.approx(one / 2, rel=0.01)  # the UNet sees each picture once
    assert [seconds(count) / one for count in (4, 5, 8)] == pytest.approx([4, 5, 8], rel=0.01)
    assert [seconds(count, 2) / one for count in (4, 5, 8, 9)] == pytest.approx([4, 4, 4, 8], rel=0.01)
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e30, 1e-6))
    calls = seconds(1)  # which take what they take, however small they are
    assert [seconds(count) / calls for count in (4, 5, 8)] == pytest.approx([1, 2, 2], rel=0.01) and calls > 1e-3


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_a_step_that_keeps_less_is_counted_with_what_it_computes_again(base: Path, stage: str):
    full, low, lowest = (
        count_step(base, stage=stage, resolution=64, batch=2, dtype=torch.float32, memory=memory)
        for memory in ("full", "low", "lowest")
    )
    assert full.activations > low.activations > lowest.activations
    assert full.recomputed == 0 < low.recomputed
    assert full.memory > low.memory > lowest.memory
    assert full.flops < low.flops < lowest.flops < 1.6 * full.flops


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_operations_computed_again_are_counted_as_the_real_model_computes_them(model: StableDiffusion, base: Path, stage: str):
    from torch.utils.flop_counter import FlopCounterMode

    if stage == "finetune":
        for name, weight in model.unet.named_parameters():
            weight.requires_grad_(name in model.key_values)
    else:
        model.text_encoder.get_input_embeddings().weight.requires_grad_(True)
    set_memory(model.unet, "lowest")
    with FlopCounterMode(display=False) as counter:
        context = torch.randn(2, 24, 32)
        if stage == "invert":
            context = model.text_encoder(input_ids=torch.zeros(2, 24, dtype=torch.long)).last_hidden_state
        model.unet(torch.randn(2, 4, 16, 16), torch.zeros(2, dtype=torch.long), context).sample.square().mean().backward()
    cost = count_step(base, stage=stage, resolution=64, batch=2, dtype=torch.float32, memory="lowest")
    real = counter.get_total_flops()
    assert real <= cost.flops < 1.1 * real  # torch leaves out what comes behind the last tensor that is needed


def test_what_is_more_than_the_free_memory_is_warned_of_with_what_needs_less(trained, monkeypatch):
    more = {"finetune.steps": 7}  # of which six are done
    [most] = [one.memory for one in check.run(trained, ignore, overrides=more).estimates]
    for free, said in ((most, []), (most - 1, ["training needs about"])):
        monkeypatch.setattr("cictl.workflow.fitting.free_memory", lambda device, free=free: free)
        report = check.run(trained, ignore, overrides=more)
        found = [one for one in report.findings if one.about == "device" and one.level == "warning"]
        assert [one.message[: len("training needs about")] for one in found] == said
        assert all("--set model.memory=lowest" in one.hint for one in found)


def test_the_estimate_says_what_is_kept(make_workspace):
    workspace = make_workspace()
    reports = [check.run(workspace, ignore, overrides={"model.memory": memory}) for memory in ("auto", "full", "lowest")]
    kept = [[(estimate.kept, estimate.memory) for estimate in report.estimates] for report in reports]
    assert kept[0] == kept[1]
    assert {name for name, _ in kept[2]} == {"lowest"}
    assert kept[2][0][1] < kept[1][0][1]


def test_a_report_can_be_json(make_workspace):
    report = check.run(make_workspace(), ignore)
    plain = dataclasses.asdict(report)
    assert {finding["level"] for finding in plain["findings"]} <= {"ok", "warning", "error"}
    assert {estimate["stage"] for estimate in plain["estimates"]} == {"invert", "finetune"}

"""What a training is counted to cost is what its method then computes and holds, and what does not fit is not kept."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cictl.config import Config, settings_of
from cictl.engine.training import adamw
from cictl.models.cost import StepCost, count_step
from cictl.models.locate import Located
from cictl.models.stable_diffusion import StableDiffusion
from cictl.workflow.class_pictures import prior_of
from cictl.workflow.fitting import choose_memory, fitting_step, free_memory, memory_of_step
from cictl.workflow.stage import configure
from tests.methods.support import METHODS, PHOTOGRAPHS, make
from tests.support import batch_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_each_method_costs_what_is_counted(name: str, model: StableDiffusion, clip: Located, located: Located):
    config = Config.model_validate({"dreambooth": {"prior_weight": 1.0}})
    config = config.model_copy(update={"data": config.data.model_copy(update={"resolution": 32})})  # as PHOTOGRAPHS are
    _, cost = fitting_step(config, name, located, CPU, torch.float32)
    method, settings = make(name, model, clip), settings_of(config, name)
    drawn = batch_of(PHOTOGRAPHS, batch_size=settings.batch_size)
    if prior_of(settings):
        drawn = dataclasses.replace(drawn, class_pictures=drawn)
    optimizer = adamw(method, learning_rate=1e-4, weight_decay=0.0)
    with FlopCounterMode(display=False) as counter:
        method.loss(drawn).total.backward()
    optimizer.step()

    trained = list(method.trainable().values())
    own = {weight.untyped_storage().data_ptr() for weight in trained}
    parts = [weight for part in (model.unet, model.text_encoder) for weight in part.parameters()]
    moments = [moment for state in optimizer.state.values() for moment in state.values() if moment.dim()]
    held = sum(tensor.nbytes for tensor in (*trained, *(weight.grad for weight in trained), *moments))
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.1)
    frozen = sum(weight.nbytes for weight in parts if weight.untyped_storage().data_ptr() not in own)
    for counted, real in ((cost.trainable, held), (cost.weights, frozen)):
        assert real - 4096 < counted <= real  # the few rows of new tokens are not counted


def test_a_token_that_stage_2_trains_too_has_its_gradient_through_the_text_encoder(located: Located):
    def needed(rate: float) -> int:
        config = Config.model_validate({"data": {"resolution": 64}, "finetune": {"concept_learning_rate": rate}})
        return memory_of_step(config, "finetune", located, CPU, torch.float32)

    assert needed(1e-4) > needed(0)


@pytest.mark.parametrize("kind", ["weights", "activations", "recomputed", "trainable"])
def test_bytes_of_every_kind_have_to_be_there_at_once(kind: str):
    nothing = StepCost(flops=0.0, weights=0, activations=0, recomputed=0, trainable=0, result=0, checkpoint=0, calls=0)
    assert dataclasses.replace(nothing, **{kind: 5}).memory == 5


def test_auto_keeps_everything_off_a_gpu_and_on_one_what_fits(make_workspace, located, base, monkeypatch):
    config = configure(make_workspace(), {})
    step = {"stage": "invert", "resolution": 64, "batch": 4, "dtype": torch.float32, "backward": False}
    costs = {memory: count_step(base, memory=memory, **step).memory for memory in ("full", "low", "lowest")}
    assert choose_memory(config, "invert", located, CPU, torch.float32, processes=1) == "full"
    for memory, bytes_needed in costs.items():
        monkeypatch.setattr("cictl.workflow.fitting.free_memory", lambda device, free=bytes_needed / 0.9 + 1: free)
        assert choose_memory(config, "invert", located, CUDA, torch.float32, processes=1) == memory
    # Little for one process alone, and enough for each of those that share the batch.
    assert choose_memory(config, "invert", located, CUDA, torch.float32, processes=4) == "full"
    kept, cost = fitting_step(config, "invert", located, CUDA, torch.float32)
    assert (kept, cost.memory) == ("lowest", costs["lowest"])


def test_what_this_process_holds_in_reserve_is_free_for_it(monkeypatch):
    for name, answer in {"mem_get_info": (5, 9), "memory_reserved": 4, "memory_allocated": 1}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    assert free_memory(CUDA) == 5 + 4 - 1

"""Activation checkpointing: the same bits from less memory, on every method, and off again."""

from __future__ import annotations

import pytest
import torch

from cictl.config import DisenBoothConfig, DreamBoothConfig, FinetuneConfig, InvertConfig
from cictl.methods.contrastive_inversion import ContrastiveInversion
from cictl.methods.disenbooth import DisenBooth
from cictl.methods.disentangled_finetuning import DisentangledFinetuning
from cictl.methods.dreambooth import DreamBooth
from cictl.models.base_files import base_unet_weights
from cictl.models.checkpointing import compute_again, set_memory
from cictl.models.clip import text_projection
from cictl.models.concept_tokens import initial_tokens
from cictl.models.cost import fastest_that_fits
from tests.support import assert_same_bits, batch_of, encoded

PHOTOGRAPHS = encoded()
MODES = ["low", "lowest"]


def make(name, model, clip):
    if name == "dreambooth":
        return DreamBooth(model, base_unet_weights(model.located), "a photo of cat", "a photo of dog", DreamBoothConfig())
    if name == "disenbooth":
        return DisenBooth(model, PHOTOGRAPHS, "a photo of cat", DisenBoothConfig(), 0)
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="my-teapot", vectors=1, start="auto", keys=PHOTOGRAPHS.keys,
        auxiliary_vectors=2, auxiliary_start="auto", seed=0,
    )  # fmt: skip
    model.add_tokens(tokens)
    if name == "invert":
        return ContrastiveInversion(model, tokens, PHOTOGRAPHS, text_projection(clip), InvertConfig())
    return DisentangledFinetuning(model, tokens, PHOTOGRAPHS, FinetuneConfig(auxiliary_context="tokens"))


def step(method):
    loss = method.loss(batch_of(PHOTOGRAPHS)).total
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in method.trainable().items() if parameter.grad is not None}
    for parameter in method.trainable().values():
        parameter.grad = None
    return {"loss": loss.detach(), **gradients}


@pytest.mark.parametrize("name", ["invert", "finetune", "dreambooth", "disenbooth"])
def test_losses_and_gradients_are_the_same_bits_whatever_is_kept(name, model, clip):
    method = make(name, model, clip)
    whole = step(method)
    assert len(whole) > 1
    for memory in [*MODES, "full"]:
        set_memory(model.unet, memory)
        assert_same_bits(step(method), whole)


def kept_bytes(method) -> int:
    """Of the tensors that autograd was given to keep outside of checkpoints."""
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        method.loss(batch_of(PHOTOGRAPHS))
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


def test_less_is_kept_each_time(model, clip):
    method, kept = make("invert", model, clip), []
    for memory in ["full", *MODES]:
        set_memory(model.unet, memory)
        kept.append(kept_bytes(method))
    assert kept[0] > kept[1] > kept[2] > 0


def test_low_computes_the_blocks_of_the_highest_resolution_again_and_lowest_all(model):
    sides: dict[str, set[int]] = {}

    def called(memory):
        def call(module, *arguments):
            sides.setdefault(memory, set()).add(arguments[0].shape[-1] if arguments[0].ndim == 4 else arguments[0].shape[1])
            return compute_again(module, *arguments)

        return call

    for memory in MODES:
        set_memory(model.unet, memory, called(memory))
        model.unet(torch.randn(1, 4, 16, 16), 1, torch.randn(1, 24, 32).requires_grad_())
    assert sides == {"low": {16}, "lowest": {16, 8, 64}}  # 64: positions of 8 x 8


def test_drawing_computes_nothing_twice(model):
    def never(*arguments):
        raise AssertionError

    set_memory(model.unet, "lowest", never)
    with torch.no_grad():
        model.unet(torch.randn(1, 4, 16, 16), 1, torch.randn(1, 24, 32))


def test_tuned_weights_are_taken_off_a_checkpointed_unet_without_a_trace(model, clip):
    latents, context = torch.randn(1, 4, 16, 16), torch.randn(1, 24, 32)
    with torch.no_grad():
        before = model.unet(latents, 1, context).sample
    method = make("finetune", model, clip)
    set_memory(model.unet, "lowest")
    step(method)
    method.attention.eject()
    set_memory(model.unet, "full")
    with torch.no_grad():
        assert torch.equal(model.unet(latents, 1, context).sample, before)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.unet.modules())


@pytest.mark.parametrize(
    ("free", "chosen"), [(100, "full"), (89, "full"), (88, "low"), (56, "low"), (55, "lowest"), (1, "lowest"), (0, "lowest")]
)
def test_the_fastest_that_fits_into_90_percent_of_the_free_memory_is_chosen(free: int, chosen: str):
    assert fastest_that_fits({"full": 80, "low": 50, "lowest": 30}.__getitem__, free) == chosen

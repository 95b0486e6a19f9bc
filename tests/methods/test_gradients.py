"""What each stage trains, and that nothing else is moved."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cictl.config import FinetuneConfig, InvertConfig
from cictl.errors import UsageError
from cictl.functional.losses import contrastive_loss
from cictl.methods.contrastive_inversion import ContrastiveInversion
from cictl.methods.disentangled_finetuning import DisentangledFinetuning
from cictl.models.attention_processors import DisentangledContext
from cictl.models.clip import text_projection
from cictl.models.concept_tokens import initial_tokens
from cictl.models.stable_diffusion import StableDiffusion
from tests.support import batch_of, encoded

PHOTOGRAPHS = encoded()


def tokens_for(model: StableDiffusion, *, vectors: int = 2, auxiliary: int = 2):
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="my-teapot", vectors=vectors, start="auto", keys=PHOTOGRAPHS.keys,
        auxiliary_vectors=auxiliary, auxiliary_start="auto", seed=0,
    )  # fmt: skip
    model.add_tokens(tokens)
    return tokens


def inversion(model, clip, *, vectors: int = 2, auxiliary: int = 2, **settings) -> ContrastiveInversion:
    tokens = tokens_for(model, vectors=vectors, auxiliary=auxiliary)
    return ContrastiveInversion(
        model, tokens, PHOTOGRAPHS, text_projection(clip), InvertConfig(auxiliary_vectors=auxiliary, **settings)
    )


def finetuning(model, *, auxiliary: int = 2, **settings) -> DisentangledFinetuning:
    return DisentangledFinetuning(model, tokens_for(model, auxiliary=auxiliary), PHOTOGRAPHS, FinetuneConfig(**settings))


def base_parameters(model: StableDiffusion) -> dict[str, torch.nn.Parameter]:
    parts = {"unet": model.unet, "text_encoder": model.text_encoder, "vae": model.vae}
    return {
        f"{part}.{name}": parameter for part, module in parts.items() for name, parameter in module.named_parameters()
        if "processor" not in name and ".tokens." not in name
    }  # fmt: skip


# -- stage 1 ----------------------------------------------------------------------------------------


def test_stage_1_moves_every_row_of_every_token_and_nothing_else(model, clip):
    before = {name: parameter.detach().clone() for name, parameter in base_parameters(model).items()}
    method = inversion(model, clip)
    assert set(method.trainable()) == {"concept", "auxiliary"}
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert (method.tokens.concept.grad.norm(dim=-1) > 0).all()
    assert (method.tokens.auxiliary.grad.norm(dim=-1) > 0).all()
    after = base_parameters(model)
    assert {name.replace(".vocabulary.", ".") for name in after} == set(before)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in after.values())


def test_eq_1_alone_moves_the_auxiliary_tokens_of_the_photographs_in_the_batch_only(model, clip):
    method = inversion(model, clip, contrastive_weight=0.0)
    batch = batch_of(PHOTOGRAPHS, samples=range(2))
    method.loss(batch).total.backward()
    moved = {index for index in range(3) if method.tokens.auxiliary.grad[index].abs().max() > 0}
    assert moved == set(batch.photographs.tolist())
    assert len(moved) == 2


def test_eq_2_alone_moves_all_auxiliary_tokens_and_not_the_concept(model, clip):
    method = inversion(model, clip)
    text = model.text_embedding(method.auxiliary_ids, method.projection)
    contrastive_loss(text, PHOTOGRAPHS.embeddings).backward()
    assert (method.tokens.auxiliary.grad.norm(dim=-1) > 0).all()
    assert method.tokens.concept.grad.abs().max() == 0
    assert method.auxiliary_ids.shape == (3, 4)  # begin, two vectors, end; what is behind it would be computed for nothing


def test_what_stage_1_is_judged_by_is_eq_1_bit_for_bit_and_eq_2_is_not_computed_for_it(model, clip, monkeypatch):
    method, batch = inversion(model, clip), batch_of(PHOTOGRAPHS)
    term = method.loss(batch).terms["diffusion"]
    monkeypatch.setattr(model, "text_embedding", None)
    with torch.no_grad():
        assert torch.equal(method.diffusion(batch), term)


def test_with_a_weight_of_zero_eq_2_is_neither_computed_nor_reported(model):
    plain = dataclasses.replace(PHOTOGRAPHS, embeddings=None)
    method = ContrastiveInversion(
        model, tokens_for(model), plain, None, InvertConfig(auxiliary_vectors=2, contrastive_weight=0.0)
    )
    [(name, term)] = method.loss(batch_of(plain)).terms.items()
    assert name == "diffusion" and not term.requires_grad


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_loss_of_stage_1_is_eq_1_plus_the_weight_times_eq_2_over_all_photographs(model, clip, weight):
    method = inversion(model, clip, contrastive_weight=weight, temperature=0.5)
    batch = batch_of(PHOTOGRAPHS)
    loss = method.loss(batch)
    with torch.no_grad():
        names = [method.tokens.auxiliary_names(index) for index in range(3)]
        prompts = [f"A photo of <my-teapot> <my-teapot>_1 {' '.join(names[index])}" for index in batch.photographs]
        prediction = model.predict(
            model.add_noise(batch.latents, batch.noise, batch.timesteps), batch.timesteps,
            model.encode_text(model.tokenize(prompts)),
        )  # fmt: skip
        diffusion = ((prediction - batch.noise) ** 2).mean()
        text = model.text_embedding(model.tokenize([" ".join(name) for name in names]), method.projection)
        contrastive = contrastive_loss(text, PHOTOGRAPHS.embeddings, 0.5)
    torch.testing.assert_close(loss.terms, {"diffusion": diffusion, "contrastive": contrastive})
    torch.testing.assert_close(loss.total.detach(), diffusion + weight * contrastive)
    assert not any(term.requires_grad for term in loss.terms.values())


def test_each_prompt_of_stage_1_is_used(model, clip):
    prompts = ["A photo of S* A*", "A sketch of S* A*", "A* S*"]
    method = inversion(model, clip, contrastive_weight=0.0, prompts=prompts)
    batch = batch_of(PHOTOGRAPHS, samples=range(1))
    with torch.no_grad():
        losses = [
            float(method.loss(dataclasses.replace(batch, choices=torch.tensor([choice]))).total) for choice in (0.0, 0.34, 0.999)
        ]
    assert len(set(losses)) == 3


def test_without_auxiliary_vectors_stage_1_is_textual_inversion(model, clip):
    method = inversion(model, clip, auxiliary=0)
    loss = method.loss(batch_of(PHOTOGRAPHS))
    assert set(loss.terms) == {"diffusion"}
    assert set(method.trainable()) == {"concept"}
    assert set(method.result()) == {"concept"}
    loss.total.backward()
    assert (method.tokens.concept.grad.norm(dim=-1) > 0).all()


@pytest.mark.parametrize("vectors", [1, 3])
def test_every_vector_of_the_concept_is_in_every_training_prompt(model, clip, vectors):
    method = inversion(model, clip, vectors=vectors, prompts=["A photo of S* A*", "S*, A*"])
    ids = model.tokenizer.convert_tokens_to_ids(method.tokens.concept_names)
    assert len(ids) == vectors
    for row in method.prompt_ids.tolist():
        assert [token for token in row if token in ids] == ids


def test_a_prompt_in_which_a_token_would_be_cut_off_is_refused(model, clip):
    with pytest.raises(UsageError, match=r"invert\.prompts"):
        inversion(model, clip, vectors=12, auxiliary=12)


# -- stage 2 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["all", "tokens"])
def test_stage_2_moves_k_v_and_auxiliary_k_v_of_every_layer_and_nothing_else(model, context):
    method = finetuning(model, auxiliary_context=context)
    trained = method.trainable()
    layers = {name.removesuffix(".to_k.weight") for name in model.key_values if name.endswith(".to_k.weight")}
    kinds = ("key", "value", "auxiliary_key", "auxiliary_value")
    assert set(trained) == {f"{layer}.{kind}" for layer in layers for kind in kinds}
    assert len(layers) == 4
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in trained.values())
    assert all(parameter.grad is None for parameter in base_parameters(model).values())
    table = model.text_encoder.get_input_embeddings()
    assert table.tokens.concept.grad is None
    assert table.tokens.auxiliary.grad is None


def test_stage_2_begins_with_the_output_that_eq_3_has_with_the_bases_weights(model):
    method = finetuning(model, auxiliary_scale=0.0)
    batch = batch_of(PHOTOGRAPHS)
    loss = method.loss(batch).total.detach()
    method.attention.eject()
    with torch.no_grad():
        context = model.encode_text(model.tokenize(["A photo of <my-teapot> <my-teapot>_1"] * 4))
        prediction = model.predict(model.add_noise(batch.latents, batch.noise, batch.timesteps), batch.timesteps, context)
    assert torch.equal(loss, torch.nn.functional.mse_loss(prediction, batch.noise))


def test_with_lambda_zero_no_gradient_reaches_the_auxiliary_pathway(model):
    method = finetuning(model, auxiliary_scale=0.0)
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    for name, parameter in method.trainable().items():
        if ".auxiliary_" in name:
            assert parameter.grad is None or parameter.grad.abs().max() == 0, name
        else:
            assert parameter.grad.abs().max() > 0, name


def test_with_lambda_zero_the_gradient_of_k_v_does_not_know_the_auxiliary_tokens(model):
    method = finetuning(model, auxiliary_scale=0.0)
    gradients = []
    for contexts in (method.auxiliary_contexts, torch.zeros_like(method.auxiliary_contexts)):
        method.auxiliary_contexts = contexts
        method.loss(batch_of(PHOTOGRAPHS)).total.backward()
        gradients.append({name: p.grad.clone() for name, p in method.trainable().items() if ".auxiliary_" not in name})
        for parameter in method.trainable().values():
            parameter.grad = None
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_k_v_see_the_concept_alone_and_the_auxiliary_pathway_the_auxiliary_token_alone(model):
    method = finetuning(model)
    context, auxiliary = method.concept_contexts, method.auxiliary_contexts[:1]
    name, layer = next(iter(method.attention.layers.items()))
    attention = model.unet.get_submodule(name)
    hidden = torch.randn(1, 5, attention.to_q.in_features, generator=torch.Generator().manual_seed(0))

    def gradients(concept, aux):
        for parameter in layer.parameters():
            parameter.grad = None
        attention(hidden, DisentangledContext(concept, aux, None)).sum().backward()
        return {key: parameter.grad.clone() for key, parameter in layer.named_parameters()}

    before = gradients(context, auxiliary)
    other_auxiliary, other_concept = gradients(context, auxiliary * 2), gradients(context * 2, auxiliary)
    for key in ("key", "value"):
        assert torch.equal(other_auxiliary[key], before[key])
        assert not torch.equal(other_auxiliary[f"auxiliary_{key}"], before[f"auxiliary_{key}"])
        assert torch.equal(other_concept[f"auxiliary_{key}"], before[f"auxiliary_{key}"])
        assert not torch.equal(other_concept[key], before[key])


def test_the_contexts_of_stage_2_are_the_encodings_of_their_prompts(model):
    method = finetuning(model, concept_prompts=["A photo of S*", "S* in the snow"], auxiliary_prompt="A photo of A*")
    names = "<my-teapot> <my-teapot>_1"
    with torch.no_grad():
        concept = model.encode_text(model.tokenize([f"A photo of {names}", f"{names} in the snow"]))
        auxiliary = model.encode_text(
            model.tokenize([f"A photo of <auxiliary-{key}> <auxiliary-{key}>_1" for key in PHOTOGRAPHS.keys])
        )
    assert torch.equal(method.concept_contexts, concept)
    assert torch.equal(method.auxiliary_contexts, auxiliary)
    assert not method.concept_contexts.requires_grad


def test_the_context_of_tokens_is_masked_to_the_positions_of_the_auxiliary_token(model):
    method = finetuning(model, auxiliary_context="tokens", auxiliary_prompt="A photo of A*")
    expected = torch.zeros(3, 24, dtype=torch.bool)
    expected[:, 4:6] = True  # begin, a, photo, of, then two vectors
    assert torch.equal(method.auxiliary_masks, expected)


@pytest.mark.parametrize("seen", ["all", "tokens"])
def test_the_loss_of_stage_2_is_eq_1_with_the_own_auxiliary_token_of_each_sample(model, seen):
    method = finetuning(model, auxiliary_context=seen, auxiliary_prompt="A photo of A*", auxiliary_scale=0.7)
    batch = batch_of(PHOTOGRAPHS)
    losses = []
    with torch.no_grad():
        for index, photograph in enumerate(batch.photographs):
            one = slice(index, index + 1)
            key = PHOTOGRAPHS.keys[photograph]
            auxiliary = model.encode_text(model.tokenize([f"A photo of <auxiliary-{key}> <auxiliary-{key}>_1"]))
            mask = torch.zeros(1, 24, dtype=torch.bool)
            mask[:, 4:6] = True  # begin, a, photo, of, then two vectors
            context = DisentangledContext(method.concept_contexts, auxiliary, mask if seen == "tokens" else None)
            noisy = model.add_noise(batch.latents[one], batch.noise[one], batch.timesteps[one])
            losses.append((model.predict(noisy, batch.timesteps[one], context) - batch.noise[one]).square().mean())
        assert {layer.auxiliary_scale for layer in method.attention.layers.values()} == {0.7}
        torch.testing.assert_close(method.loss(batch).total, torch.stack(losses).mean())


@pytest.mark.parametrize("key", ["concept_prompts", "auxiliary_prompt"])
def test_a_prompt_of_stage_2_in_which_a_token_would_be_cut_off_is_refused(model, key):
    long = "a photo of the " * 7
    with pytest.raises(UsageError, match=rf"finetune\.{key}"):
        finetuning(model, **{key: [f"{long} S*"] if key == "concept_prompts" else f"{long} A*"})


def test_auxiliary_weights_are_never_in_the_result(model):
    method = finetuning(model)
    result = method.result()
    assert result.keys() == model.key_values.keys()
    with torch.no_grad():
        for name, parameter in method.trainable().items():
            if ".auxiliary_" in name:
                parameter += 1
    assert all(torch.equal(tensor, result[name]) for name, tensor in method.result().items())


def test_without_auxiliary_tokens_stage_2_trains_k_and_v_alone(model):
    method = finetuning(model, auxiliary=0)
    assert {name.rpartition(".")[2] for name in method.trainable()} == {"key", "value"}
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in method.trainable().values())


def test_one_shared_pathway_sees_concept_and_auxiliary_token_in_one_prompt(model):
    method = finetuning(model, disentangled=False, concept_prompts=["A photo of S*", "S* in the snow"])
    assert {name.rpartition(".")[2] for name in method.trainable()} == {"key", "value"}
    batch = dataclasses.replace(batch_of(PHOTOGRAPHS), choices=torch.tensor([0.1, 0.9, 0.6, 0.4]))
    names = "<my-teapot> <my-teapot>_1"
    prompts = []
    for photograph, choice in zip(batch.photographs, (0, 1, 1, 0), strict=True):
        key = PHOTOGRAPHS.keys[photograph]
        prompts.append(f"{(f'A photo of {names}', f'{names} in the snow')[choice]} <auxiliary-{key}> <auxiliary-{key}>_1")
    with torch.no_grad():
        expected = model.encode_text(model.tokenize(prompts))
    loss = method.loss(batch).total.detach()
    method.attention.eject()
    with torch.no_grad():
        noisy = model.add_noise(batch.latents, batch.noise, batch.timesteps)
        prediction = model.predict(noisy, batch.timesteps, expected)
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(prediction, batch.noise))


# -- stage 2, other than the paper has it ------------------------------------------------------------


@pytest.mark.parametrize(("beginnings", "blocks"), [(["mid_block"], ["mid"]), (["down_blocks", "up_blocks.0"], ["down", "up"])])
def test_layers_that_do_not_train_keep_the_bases_weights_and_its_output(model, beginnings, blocks):
    method = finetuning(model, layers=beginnings)
    chosen = [name for name in method.attention.layers if any(name.startswith(block) for block in blocks)]
    assert 0 < len(chosen) < len(method.attention.layers)
    assert {name.rpartition(".")[0] for name in method.trainable()} == set(chosen)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter += 1
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in method.trainable().values())
    moved = {name.removesuffix(".to_k.weight") for name, tensor in method.result().items()
             if name.endswith(".to_k.weight") and not torch.equal(tensor, model.key_values[name])}  # fmt: skip
    assert moved == set(chosen)
    assert method.result().keys() == model.key_values.keys()


@pytest.mark.parametrize("beginning", ["up_blocks.7", "mid_block.attentions.0.transformer_blocks.0.attn"])
def test_a_layer_that_the_model_has_not_is_refused(model, beginning):
    with pytest.raises(UsageError, match=r"finetune\.layers: .* begins with " + beginning):
        finetuning(model, layers=["mid_block", beginning])


@pytest.mark.parametrize("disentangled", [True, False])
def test_a_concept_that_trains_in_stage_2_gets_the_gradient_of_its_encoding_at_every_step(model, disentangled):
    method = finetuning(model, concept_learning_rate=0.01, disentangled=disentangled, concept_prompts=["A photo of S*", "S*"])
    frozen = finetuning_again(model, method, disentangled)
    assert method.rates == {"concept": 0.01}
    assert set(method.trainable()) == {"concept", *frozen.trainable()}
    batch = batch_of(PHOTOGRAPHS)
    first = method.loss(batch).total
    torch.testing.assert_close(first, frozen.loss(batch).total)
    first.backward()
    assert (method.tokens.concept.grad.norm(dim=-1) > 0).all()
    assert method.tokens.auxiliary.grad is None
    with torch.no_grad():
        method.tokens.concept *= -1
    assert method.loss(batch).total != first


def finetuning_again(model, method, disentangled) -> DisentangledFinetuning:
    settings = FinetuneConfig(disentangled=disentangled, concept_prompts=method.settings.concept_prompts)
    method.attention.eject()
    return DisentangledFinetuning(model, method.tokens, PHOTOGRAPHS, settings)


def test_a_concept_that_trained_in_stage_2_is_in_its_result_and_else_is_not(model):
    method = finetuning(model, concept_learning_rate=0.01)
    with torch.no_grad():
        method.tokens.concept += 1
    result = method.result()
    assert torch.equal(result["concept"], method.tokens.concept)
    assert result.keys() == {"concept", *model.key_values}

"""The gradients of the fast path, in fp32, against the same steps written down plainly with the libraries' own modules, in fp64.

Against a reference in fp32 that one's own rounding would count too. Plainly: the VAE and CLIP read the photographs at every
step, the whole table of the vocabulary is a parameter, every prompt is encoded at all its positions, each sample goes by
itself, and Eq. 3 is two softmaxes.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel

from cictl.config import FinetuneConfig, InvertConfig
from cictl.data.draws import EncodedPhotographs, draw_batch, randomness
from cictl.data.photographs import find_photographs, load_pixels
from cictl.methods.contrastive_inversion import ContrastiveInversion
from cictl.methods.disentangled_finetuning import DisentangledFinetuning
from cictl.models.clip import embed_images, text_projection
from cictl.models.concept_tokens import initial_tokens
from cictl.models.convolutions import multiply_at_few_positions

PRECISION = torch.float64
BATCH, STEPS, TOLERANCE = 5, range(3), 1e-6  # of three photographs, so that a batch has some of them twice


@pytest.fixture(autouse=True, params=["convolutions", "products"])
def convolutions(request, monkeypatch):
    """A CPU's large convolutions are products of matrices in Stable Diffusion; here all are, since none is large."""
    changed: list[str] = []

    def multiply(unet) -> None:
        changed.extend(multiply_at_few_positions(unet, least_weights=0))

    if request.param == "products":
        monkeypatch.setattr("cictl.models.stable_diffusion.multiply_at_few_positions", multiply)
    yield
    assert bool(changed) == (request.param == "products")


@pytest.fixture
def pictures(photographs):
    found = find_photographs(photographs[0].parent)
    return [photograph.key for photograph in found], [load_pixels(photograph, 64) for photograph in found]


@pytest.fixture
def prepared(model, clip, pictures):
    """The model with its tokens, and the photographs as the fast path has them."""
    keys, pixels = pictures
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="my-teapot", vectors=2, start="auto", keys=keys, auxiliary_vectors=2,
        auxiliary_start="auto", seed=0,
    )  # fmt: skip
    model.add_tokens(tokens)
    embeddings = embed_images(clip, pixels, model.device)
    return model, tokens, EncodedPhotographs(tuple(keys), *model.encode_pictures(pixels), embeddings)


def drawn(photographs: EncodedPhotographs, stage: str, step: int):
    return draw_batch(photographs, seed=0, stage=stage, step=step, samples=range(BATCH), batch_size=BATCH, timesteps=1000)


class Plain:
    """The libraries' modules as they come, and one sample's denoising with them."""

    def __init__(self, base, pixels) -> None:
        self.unet = UNet2DConditionModel.from_pretrained(base / "unet").requires_grad_(False)
        self.vae = AutoencoderKL.from_pretrained(base / "vae").requires_grad_(False)
        self.text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder").requires_grad_(False)
        self.clip = CLIPModel.from_pretrained(base / "clip").requires_grad_(False)
        for part in (self.unet, self.vae, self.text_encoder, self.clip):
            part.to(PRECISION)
        self.scheduler = DDIMScheduler.from_pretrained(base / "scheduler")
        self.pixels = pixels

    def add_tokens(self, tokenizer, tokens) -> nn.Parameter:
        self.tokenizer = tokenizer
        self.text_encoder.resize_token_embeddings(len(tokenizer))
        table = self.text_encoder.get_input_embeddings().weight
        with torch.no_grad():
            for name, row in zip(tokens.names, tokens.rows(), strict=True):
                table[tokenizer.convert_tokens_to_ids(name)] = row
        return table.requires_grad_(True)

    def encode(self, prompt: str) -> tuple[Tensor, int]:
        """The context [1, L, D], and the position of the end of text."""
        ids = self.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        return self.text_encoder(input_ids=ids).last_hidden_state, ids[0].tolist().index(self.tokenizer.eos_token_id)

    def latents(self, photograph: int, stage: str, step: int, sample: int) -> Tensor:
        """The posterior's sample, with the noise that draws.py names: the last of what is drawn for the sample."""
        posterior = self.vae.encode(torch.from_numpy(self.pixels[photograph])[None].to(PRECISION)).latent_dist
        generator = randomness(0, stage, step, sample)
        torch.rand((), generator=generator), torch.randint(1000, (), generator=generator)
        torch.randn(posterior.mean.shape[1:], generator=generator)
        noise = torch.randn(posterior.mean.shape[1:], generator=generator)
        return (posterior.mean + posterior.std * noise) * self.vae.config.scaling_factor

    def error(self, batch, sample: int, stage: str, step: int, context) -> Tensor:
        noise, time = batch.noise[sample : sample + 1], batch.timesteps[sample : sample + 1]
        noisy = self.scheduler.add_noise(self.latents(batch.photographs[sample], stage, step, sample), noise.to(PRECISION), time)
        return F.mse_loss(self.unet(noisy, time, encoder_hidden_states=context).sample, noise.to(PRECISION))


def difference(one: Tensor, other: Tensor) -> float:
    assert other.norm() > 0
    return float((one - other).double().norm() / other.double().norm())


def test_the_gradients_of_stage_1_are_those_of_plain_steps(prepared, pictures, base, clip):
    model, tokens, photographs = prepared
    settings = InvertConfig(auxiliary_vectors=2, temperature=0.5, prompts=["A photo of S* A*", "A sketch of S* A*"])
    method = ContrastiveInversion(model, tokens, photographs, text_projection(clip), settings)
    plain = Plain(base, pictures[1])
    table = plain.add_tokens(model.tokenizer, tokens)
    for step in STEPS:
        batch = drawn(photographs, "invert", step)
        loss = method.loss(batch).total
        loss.backward()
        expected = plain_stage_1(plain, tokens, batch, step, embed_images(clip, pictures[1], model.device).to(PRECISION))
        expected.backward()
        torch.testing.assert_close(loss.to(PRECISION), expected, rtol=TOLERANCE, atol=0)
    gradient = torch.cat([tokens.concept.grad, tokens.auxiliary.grad.flatten(0, 1)])
    rows = table.grad[model.tokenizer.convert_tokens_to_ids(tokens.names)]
    assert difference(gradient, rows) < TOLERANCE


def plain_stage_1(plain: Plain, tokens, batch, step: int, images: Tensor) -> Tensor:
    own = [" ".join(tokens.auxiliary_names(index)) for index in range(3)]
    errors = []
    for sample, photograph in enumerate(batch.photographs):
        beginning = "A photo of" if batch.choices[sample] < 0.5 else "A sketch of"
        context, _ = plain.encode(f"{beginning} {' '.join(tokens.concept_names)} {own[photograph]}")
        errors.append(plain.error(batch, sample, "invert", step, context))
    texts = []
    for prompt in own:
        context, end = plain.encode(prompt)
        texts.append(plain.clip.text_projection(context[0, end]))
    cosines = torch.stack([torch.stack([F.cosine_similarity(text, image, dim=0) for image in images]) for text in texts])
    contrastive = -(cosines / 0.5).log_softmax(dim=1).diagonal().sum()
    return sum(errors) / len(errors) + contrastive


class PlainEq3(nn.Module):
    """Cross-attention of a layer with two pathways, each with its softmax written out."""

    def __init__(self, attention) -> None:
        super().__init__()
        self.own = nn.ModuleDict(
            {name: copy.deepcopy(attention.to_k if "key" in name else attention.to_v) for name in
             ("key", "value", "auxiliary_key", "auxiliary_value")}
        ).requires_grad_(True)  # fmt: skip

    def forward(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        concept, auxiliary = encoder_hidden_states
        query = attn.to_q(hidden_states)

        def pathway(keys: Tensor, values: Tensor) -> Tensor:
            heads = [tensor.chunk(attn.heads, dim=-1) for tensor in (query, keys, values)]
            attended = [(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in zip(*heads, strict=True)]
            return torch.cat(attended, dim=-1)

        own = self.own
        found = pathway(own["key"](concept), own["value"](concept))
        found = found + 0.7 * pathway(own["auxiliary_key"](auxiliary), own["auxiliary_value"](auxiliary))
        return attn.to_out[0](found)


def test_the_gradients_of_stage_2_are_those_of_plain_steps(prepared, pictures, base):
    model, tokens, photographs = prepared
    method = DisentangledFinetuning(model, tokens, photographs, FinetuneConfig(auxiliary_scale=0.7))
    plain = Plain(base, pictures[1])
    plain.add_tokens(model.tokenizer, tokens)
    layers = {}
    for name, module in plain.unet.named_modules():
        if name.endswith("attn2"):
            layers[name] = PlainEq3(module)
            module.set_processor(layers[name])
    for step in STEPS:
        batch = drawn(photographs, "finetune", step)
        loss = method.loss(batch).total
        loss.backward()
        expected = plain_stage_2(plain, tokens, batch, step)
        expected.backward()
        torch.testing.assert_close(loss.to(PRECISION), expected, rtol=TOLERANCE, atol=0)
    trained = method.trainable()
    ours = torch.cat([parameter.grad.flatten() for parameter in trained.values()])
    theirs = torch.cat([layers[name.rpartition(".")[0]].own[name.rpartition(".")[2]].weight.grad.flatten() for name in trained])
    assert difference(ours, theirs) < TOLERANCE


def plain_stage_2(plain: Plain, tokens, batch, step: int) -> Tensor:
    errors = []
    for sample, photograph in enumerate(batch.photographs):
        with torch.no_grad():
            concept, _ = plain.encode(f"A photo of {' '.join(tokens.concept_names)}")
            auxiliary, _ = plain.encode(" ".join(tokens.auxiliary_names(photograph)))
        errors.append(plain.error(batch, sample, "finetune", step, (concept, auxiliary)))
    return sum(errors) / len(errors)

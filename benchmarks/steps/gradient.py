"""The gradient of the tokens, as one would write it down: nothing cached, the libraries' own parts alone, in fp32 or fp64."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_errors(base: Path, clip: Path, workspace: Path, gradient: Path, *, device: str) -> dict[str, dict[str, float]]:
    """Relative errors |g - r| / |r| of the first step's gradient, r being the reference, by name of the parameter.

    Computed by a process of its own, whose memory goes with it.

    Args:
        workspace: of the training, of which the checkpoint of step 0 says with what it began.
        gradient: as the training wrote it.
        device: on a CPU the reference is in fp64, which takes 9 GB; on a GPU in fp32, of which bf16 is off by far more than
            fp32's rounding.

    Returns:
        ``gradient_error`` of the training, and where the reference is in fp64 that of ``naive_fp32_gradient_error``, which
        is the reference's own in fp32.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, base, clip, workspace, gradient, device))
    process.start()
    theirs.close()
    try:
        errors: dict[str, dict[str, float]] = ours.recv()
    except EOFError:
        raise SystemExit("the reference gradient could not be computed") from None
    finally:
        process.join()
    return errors


def _child(connection: Connection, base: Path, clip: Path, workspace: Path, gradient: Path, device: str) -> None:
    from safetensors.torch import load_file

    begun = Begun.read(workspace)
    found = {"gradient_error": load_file(gradient)}
    torch.backends.cudnn.allow_tf32 = False
    reference = reference_gradient(base, clip, begun, torch.float32, device)
    if device == "cpu":
        found["naive_fp32_gradient_error"] = reference
        reference = reference_gradient(base, clip, begun, torch.float64, device)
    connection.send({kind: relative_errors(gradients, reference) for kind, gradients in found.items()})


def relative_errors(gradients: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, float]:
    """|g - r| / |r| of each."""
    return {name: float((gradients[name] - value).norm() / value.norm()) for name, value in reference.items()}


@dataclass(frozen=True)
class Begun:
    """What a training began with.

    Attributes:
        settings: all of ci.yaml.
        tokens: S* and the A_i*, as saved.
        photographs: in the order of their keys, [N, 3, R, R] in [-1, 1].
    """

    settings: Mapping[str, Any]
    tokens: Mapping[str, Tensor]
    photographs: Tensor

    @classmethod
    def read(cls, folder: Path) -> Begun:
        """From the checkpoint of step 0, and the photographs."""
        import numpy as np
        from safetensors.torch import load_file

        from cictl.data.photographs import find_photographs, load_pixels
        from cictl.records import RESULT, read_checkpoint, step_folder
        from cictl.workspace import Workspace

        workspace = Workspace(folder)
        checkpoint, _ = read_checkpoint(workspace.stage_folder("invert") / step_folder(0))
        assert checkpoint is not None
        settings = checkpoint.manifest["config"]
        pixels = [load_pixels(found, settings["data"]["resolution"]) for found in find_photographs(workspace.images)]
        return cls(settings, load_file(checkpoint.folder / RESULT), torch.from_numpy(np.stack(pixels)))


def reference_gradient(base: Path, clip: Path, begun: Begun, precision: torch.dtype, device: str) -> dict[str, Tensor]:
    """The gradient of Eq. 1 + Eq. 2 (arXiv 2508.07755) at the first step, with respect to S* and the A_i*.

    New tokens are further rows of the whole embedding table, photographs are encoded by the VAE and by CLIP in the step, prompts
    are read to their full length, and noise is added by the scheduler. Only what is random is taken from cictl.

    Returns:
        ``concept`` [m, D] and ``auxiliary`` [N, n, D], on the CPU.
    """
    from diffusers import UNet2DConditionModel

    from cictl.models.concept_tokens import ConceptTokens

    settings = begun.settings["invert"]
    tokens = ConceptTokens.from_tensors("teapot", begun.tokens)
    text = _Text.with_tokens(base, tokens, precision, device)
    latents, noise, timesteps, chosen = _noisy(base, begun, tokens.keys, precision, device)
    names = [" ".join(tokens.auxiliary_names(index)) for index in range(len(tokens.keys))]
    [prompt] = settings["prompts"]
    prompts = [prompt.replace("S*", " ".join(tokens.concept_names)).replace("A*", names[index]) for index in chosen]

    projection, images = _clip(clip, begun.photographs, precision, device)
    hidden, ends = text.encode(names)
    own = torch.arange(len(names), device=device)
    embeddings = F.normalize(hidden[own, ends] @ projection.T, dim=1)
    cosines = embeddings @ F.normalize(images, dim=1).T
    eq2 = F.cross_entropy(cosines / settings["temperature"], own, reduction="sum")

    unet = UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=precision).eval().requires_grad_(False).to(device)
    unet.enable_gradient_checkpointing()  # in fp64 memory is short
    context, _ = text.encode(prompts)
    eq1 = F.mse_loss(unet(latents, timesteps, context).sample, noise)

    rows = torch.autograd.grad(eq1 + settings["contrastive_weight"] * eq2, [text.table])[0].cpu()
    concept, auxiliary = rows[text.first :].split([len(tokens.concept), len(rows) - text.first - len(tokens.concept)])
    return {"concept": concept, "auxiliary": auxiliary.reshape(tokens.auxiliary.shape)}


@dataclass(frozen=True)
class _Text:
    """The text encoder with new rows from ``first`` on in its ``table``."""

    tokenizer: Any
    encoder: Any
    first: int

    @classmethod
    def with_tokens(cls, base: Path, tokens: Any, precision: torch.dtype, device: str) -> _Text:
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=precision).eval()
        first = len(tokenizer)
        tokenizer.add_tokens(tokens.names)
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            encoder.get_input_embeddings().weight[first:] = tokens.rows()
        return cls(tokenizer, encoder.to(device), first)

    @property
    def table(self) -> Tensor:
        weight: Tensor = self.encoder.get_input_embeddings().weight
        return weight

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The encodings [B, L, D], and the place of the first end-of-text token in each [B]."""
        length = self.tokenizer.model_max_length
        padded = self.tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        ids = padded.input_ids.to(self.table.device)
        return self.encoder(input_ids=ids).last_hidden_state, (ids == self.tokenizer.eos_token_id).int().argmax(1)


def _noisy(
    base: Path, begun: Begun, keys: Sequence[str], precision: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """The first batch: z_t and eps [B, C, h, w], t [B], and which photographs."""
    from diffusers import AutoencoderKL, DDPMScheduler

    from cictl.data.draws import EncodedPhotographs, draw_batch

    vae = AutoencoderKL.from_pretrained(base / "vae", torch_dtype=precision).eval().to(device)
    scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
    side = begun.photographs.shape[-1] // 2 ** (len(vae.config.block_out_channels) - 1)
    shape = (len(keys), vae.config.latent_channels, side, side)
    # So that z_0 is the draw itself.
    standard = EncodedPhotographs(tuple(keys), torch.zeros(shape, device=device), torch.ones(shape, device=device))
    size = begun.settings["invert"]["batch_size"]
    batch = draw_batch(
        standard, seed=begun.settings["seed"], stage="invert", step=0, samples=range(size), batch_size=size,
        timesteps=scheduler.config.num_train_timesteps,
    )  # fmt: skip
    chosen = batch.photographs.tolist()
    with torch.no_grad():
        posterior = vae.encode(begun.photographs[chosen].to(device, precision)).latent_dist
        latents = (posterior.mean + posterior.std * batch.latents) * vae.config.scaling_factor
    noise = batch.noise.to(precision)
    return scheduler.add_noise(latents, noise, batch.timesteps), noise, batch.timesteps, chosen


def _clip(folder: Path, photographs: Tensor, precision: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """The text projection, and the image embeddings of ``photographs``, by the whole of CLIP."""
    from PIL import Image
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder, dtype=precision).eval().to(device)
    pictures = [Image.fromarray(((one + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()) for one in photographs]
    inputs = CLIPImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        images: Tensor = model.get_image_features(pixel_values=inputs.pixel_values.to(device, precision)).pooler_output
    return model.text_projection.weight.detach(), images

"""The gradient of the tokens, as one would write it down: fp32, nothing cached, the libraries' own parts alone."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def gradient_errors(base: Path, clip: Path, workspace: Path, gradient: Path) -> dict[str, float]:
    """Relative errors |g - r| / |r| of the first step's ``gradient``, r being the reference, by name of the parameter.

    Args:
        workspace: of the training, of which the checkpoint of step 0 says with what it began.
        gradient: as the training wrote it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, base, clip, workspace, gradient))
    process.start()
    theirs.close()
    try:
        errors: dict[str, float] = ours.recv()
    except EOFError:
        raise SystemExit("the reference gradient could not be computed") from None
    finally:
        process.join()
    return errors


def _child(connection: Connection, base: Path, clip: Path, workspace: Path, gradient: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    ours = load_file(gradient)
    reference = reference_gradient(base, clip, workspace)
    connection.send({name: float((ours[name] - value).norm() / value.norm()) for name, value in reference.items()})


def reference_gradient(base: Path, clip: Path, workspace: Path) -> dict[str, Any]:
    """The gradient of Eq. 1 + Eq. 2 (arXiv 2508.07755) at the first step, with respect to S* and the A_i*.

    New tokens are further rows of the whole embedding table, photographs are encoded by the VAE and by CLIP in the step, prompts
    are read to their full length, and noise is added by the scheduler. Only what is random is taken from cictl.

    Returns:
        ``concept`` [m, D] and ``auxiliary`` [N, n, D].
    """
    import torch
    import torch.nn.functional as F
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    from cictl.data.draws import EncodedPhotographs, draw_batch
    from cictl.models.concept_tokens import ConceptTokens

    begun = _Begun.read(workspace)
    tokens = ConceptTokens.from_tensors("teapot", begun.tokens)
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32).eval()
    first = len(tokenizer)
    tokenizer.add_tokens(tokens.names)
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[first:] = tokens.rows()

    def encode(texts: list[str]) -> tuple[Any, Any]:
        length = tokenizer.model_max_length
        ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
        return text_encoder(input_ids=ids).last_hidden_state, (ids == tokenizer.eos_token_id).int().argmax(1)

    photographs = begun.pixels()
    vae = AutoencoderKL.from_pretrained(base / "vae", torch_dtype=torch.float32).eval()
    shape = (
        vae.config.latent_channels,
        *(side // 2 ** (len(vae.config.block_out_channels) - 1) for side in photographs.shape[2:]),
    )
    unit = EncodedPhotographs(tokens.keys, torch.zeros(len(tokens.keys), *shape), torch.ones(len(tokens.keys), *shape))
    scheduler = DDPMScheduler.from_pretrained(base / "scheduler")
    settings = begun.settings["invert"]
    size = settings["batch_size"]
    batch = draw_batch(
        unit, seed=begun.settings["seed"], stage="invert", step=0, samples=range(size), batch_size=size,
        timesteps=scheduler.config.num_train_timesteps,
    )  # fmt: skip
    with torch.no_grad():
        posterior = vae.encode(photographs[batch.photographs]).latent_dist
        latents = (posterior.mean + posterior.std * batch.latents) * vae.config.scaling_factor
    unet = UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float32).eval().requires_grad_(False)
    names = [" ".join(tokens.auxiliary_names(index)) for index in range(len(tokens.keys))]
    [prompt] = settings["prompts"]
    texts = [prompt.replace("S*", " ".join(tokens.concept_names)).replace("A*", names[index]) for index in batch.photographs]
    context, _ = encode(texts)
    noisy = scheduler.add_noise(latents, batch.noise, batch.timesteps)
    loss = F.mse_loss(unet(noisy, batch.timesteps, encoder_hidden_states=context).sample, batch.noise)

    hidden, ends = encode(names)
    projection, images = _clip(clip, photographs)
    text = F.normalize(hidden[torch.arange(len(names)), ends] @ projection.T, dim=1)
    cosines = text @ F.normalize(images, dim=1).T / settings["temperature"]
    loss = loss + settings["contrastive_weight"] * F.cross_entropy(cosines, torch.arange(len(names)), reduction="sum")
    [rows] = torch.autograd.grad(loss, [table])
    concept, auxiliary = rows[first:].split([len(tokens.concept), len(names) * tokens.auxiliary.shape[1]])
    return {"concept": concept, "auxiliary": auxiliary.reshape(tokens.auxiliary.shape)}


class _Begun:
    """What a training began with.

    Attributes:
        settings: all of ci.yaml.
        tokens: S* and the A_i*, as saved.
    """

    def __init__(self, workspace: Path, settings: dict[str, Any], tokens: dict[str, Any]) -> None:
        self.workspace = workspace
        self.settings = settings
        self.tokens = tokens

    @classmethod
    def read(cls, workspace: Path) -> _Begun:
        from safetensors.torch import load_file

        from cictl.records import RESULT, read_checkpoint, step_folder
        from cictl.workspace import Workspace

        checkpoint, _ = read_checkpoint(Workspace(workspace).stage_folder("invert") / step_folder(0))
        assert checkpoint is not None
        return cls(workspace, checkpoint.manifest["config"], load_file(checkpoint.folder / RESULT))

    def pixels(self) -> Any:
        """The photographs in the order of their keys, [N, 3, R, R] in [-1, 1]."""
        import numpy as np
        import torch

        from cictl.data.photographs import find_photographs, load_pixels
        from cictl.workspace import Workspace

        found = find_photographs(Workspace(self.workspace).images)
        return torch.from_numpy(np.stack([load_pixels(photograph, self.settings["data"]["resolution"]) for photograph in found]))


def _clip(folder: Path, photographs: Any) -> tuple[Any, Any]:
    """The text projection, and the image embeddings of ``photographs``, by the whole of CLIP."""
    import torch
    from PIL import Image
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    pictures = [Image.fromarray(((one + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()) for one in photographs]
    inputs = CLIPImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        images = model.get_image_features(pixel_values=inputs.pixel_values).pooler_output
    return model.text_projection.weight.detach(), images

"""What Stable Diffusion's folder lacks of CLIP, for Eq. 2: the image tower, both projections, maybe the text tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cictl.data.pixels import to_bytes
from cictl.errors import ModelAccessError
from cictl.models.locate import Located
from cictl.models.pretrained import UnreadableError, load_pretrained
from cictl.models.stable_diffusion import StableDiffusion

_WHOLE = "set model.clip in ci.yaml to the whole CLIP model, such as openai/clip-vit-large-patch14"


def text_projection(clip: Located) -> Tensor:
    """W of the text projection, [D_shared, D_text], in fp32.

    Raises:
        ModelAccessError: the folder holds none.
    """
    from safetensors import SafetensorError, safe_open

    path = clip.folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("text_projection.weight").float()
    except (OSError, SafetensorError) as error:
        raise ModelAccessError(f"{path} has no text projection ({error})", _WHOLE, slug="clip-without-projection") from None


def own_text_tower(clip: Located, model: StableDiffusion) -> nn.Module | None:
    """CLIP's own text tower, frozen, where the base's is another one; None where they are the same.

    The projections fit CLIP's towers only, and many base models have a tuned text encoder. They count as the
    same if no weight differs in the precision that ``model`` computes in, be it for a detour over fp16 or bf16,
    in which many files are.

    Args:
        model: the base, which knows no new tokens yet.

    Raises:
        ModelAccessError: the folder holds no text tower, or one that cannot read what the base's tokenizer gives.
    """
    from transformers import CLIPTextModel

    if _same_text_tower(clip, model):
        return None
    try:
        tower, missing = load_pretrained(CLIPTextModel, clip.folder, dtype=torch.float32)
    except UnreadableError as error:
        raise ModelAccessError(
            f"{clip.folder} holds no CLIP text tower ({error})", _WHOLE, slug="clip-without-text-tower"
        ) from None
    _require_whole(missing, clip, "text")
    ours, length = model.text_encoder.config, model.tokenizer.model_max_length
    theirs = tower.config
    too_few = theirs.vocab_size < len(model.tokenizer) or theirs.max_position_embeddings < length
    if theirs.hidden_size != ours.hidden_size or too_few:
        raise ModelAccessError(
            f"{clip.id} is not the CLIP of {model.located.id}: its text tower has {theirs.vocab_size} vectors of "
            f"{theirs.hidden_size} numbers and reads {theirs.max_position_embeddings} tokens, the base's tokenizer gives "
            f"{len(model.tokenizer)} and {length}, as vectors of {ours.hidden_size}",
            _WHOLE,
            slug="clip-of-another-base",
        )
    return tower.eval().requires_grad_(False).to(model.device, model.dtype)


def _same_text_tower(clip: Located, model: StableDiffusion) -> bool:
    from safetensors import SafetensorError, safe_open

    path, prefix = clip.folder / "model.safetensors", "text_model."
    ours = {name.removeprefix(prefix): weight for name, weight in model.text_encoder.named_parameters()}
    try:
        with safe_open(path, framework="pt") as file:
            theirs = {name.removeprefix(prefix) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
            if theirs - {"embeddings.position_ids"} != ours.keys():
                return False
            return all(_same(weight, file.get_tensor(prefix + name)) for name, weight in ours.items())
    except (OSError, SafetensorError) as error:
        raise ModelAccessError(f"{path} cannot be read ({error})", _WHOLE, slug="clip-unreadable") from None


def _same(ours: Tensor, theirs: Tensor) -> bool:
    theirs = theirs.to(ours.device, torch.float32)
    return any(torch.equal(ours, theirs.to(detour).to(ours.dtype)) for detour in (torch.float32, torch.float16, torch.bfloat16))


def embed_images(clip: Located, photographs: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """tau_I(x_i), the CLIP image embeddings of the photographs, not normalised.

    The image tower is loaded, used and freed.

    Args:
        photographs: N arrays [3, R, R] in [-1, 1].

    Returns:
        [N, D_shared] in fp32 on the CPU.

    Raises:
        ModelAccessError: the folder holds no image tower, or only a part of one.
    """
    from transformers import CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if not (clip.folder / "preprocessor_config.json").is_file():
        raise ModelAccessError(f"{clip.folder} has no preprocessor_config.json", _WHOLE, slug="clip-without-preprocessor")
    try:
        tower, missing = load_pretrained(CLIPVisionModelWithProjection, clip.folder, dtype=torch.float32)
        processor = CLIPImageProcessorPil.from_pretrained(clip.folder)
    except (UnreadableError, OSError, ValueError) as error:
        raise ModelAccessError(
            f"{clip.folder} holds no CLIP image tower ({error})", _WHOLE, slug="clip-without-image-tower"
        ) from None
    _require_whole(missing, clip, "image")
    pictures = [Image.fromarray(to_bytes(pixels)) for pixels in photographs]
    tower = tower.eval().requires_grad_(False).to(device)
    embeddings = []
    with torch.no_grad():
        for picture in pictures:
            inputs = processor(images=picture, return_tensors="pt").pixel_values.to(device)
            embeddings.append(tower(pixel_values=inputs).image_embeds.float().cpu())
    return torch.cat(embeddings)


def _require_whole(missing: Sequence[str], clip: Located, tower: str) -> None:
    if missing:
        raise ModelAccessError(
            f"the CLIP {tower} tower of {clip.id} is incomplete: {len(missing)} weights are missing, such as {missing[0]}",
            _WHOLE,
            slug="clip-incomplete",
        )

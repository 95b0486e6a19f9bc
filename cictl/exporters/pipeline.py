"""Format ``pipeline``: a folder in diffusers layout with the token in it and the tuned K, V in the UNet.

Old and new releases of diffusers and transformers open it: the tokenizer lies there in both forms, and the
text encoder's weights are named with ``text_model.`` in front, without which transformers before 5 starts it
at random.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from cictl.engine.sampling import make_scheduler
from cictl.exporters.content import Built, Content, Exportable, Options, Place, Tensors, metadata, rounding_note, stored
from cictl.exporters.usage import opening, snippet
from cictl.models.concept_tokens import ConceptTokens, inject_tokens
from cictl.models.locate import CHECKER_FILES, Located
from cictl.models.safety import ships_checker
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tokenizer import merges_of

_EMBEDDING = "text_model.embeddings.token_embedding.weight"


def build(source: Exportable, options: Options) -> Built:
    """All files of the folder; the safety checker is the base's, if it ships one."""
    model = StableDiffusion.load(source.base, torch.device("cpu"), torch.float32)
    vocabulary = model.text_encoder.get_input_embeddings().weight.detach()
    first_id = len(model.tokenizer)
    text = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in model.text_encoder.state_dict().items()}
    text[_EMBEDDING] = grown_table(vocabulary, source.embedding, first_id)
    unet = {**model.unet.state_dict(), **source.key_values}

    def part(tensors: dict[str, Tensor]) -> Tensors:
        # "format" is what transformers asks of a file; a second key, but written in a fixed order.
        return Tensors(stored(tensors, options.dtype), {"format": "pt", **metadata(source, dtype=options.dtype)})

    files: dict[str, Content] = {
        "model_index.json": _json(_index(source.base)),
        "unet/config.json": _json(_config(source.base, "unet")),
        "unet/diffusion_pytorch_model.safetensors": part(unet),
        "vae/config.json": _json(_config(source.base, "vae")),
        "vae/diffusion_pytorch_model.safetensors": part(model.vae.state_dict()),
        "text_encoder/config.json": _json(
            {**_config(source.base, "text_encoder"), "architectures": ["CLIPTextModel"], "vocab_size": len(text[_EMBEDDING])}
        ),
        "text_encoder/model.safetensors": part(text),
        "scheduler/scheduler_config.json": _json(_scheduler(model)),
        **{f"tokenizer/{name}": content for name, content in _tokenizer(model, source).items()},
    }
    if ships_checker(source.base):
        files |= {name: _copied(source.base.folder / name) for name in CHECKER_FILES}

    def usage(place: Place) -> dict[str, str]:
        return {"diffusers": snippet(source.name, opening("from_pretrained", place.whole))}

    return Built(files, usage, rounding_note(source, source.key_values, options.dtype))


def grown_table(vocabulary: Tensor, embedding: Tensor, first_id: int) -> Tensor:
    """The table [V, D] with the vectors of S* [m, D] from row ``first_id`` on, as long as it needs to be."""
    rows = max(len(vocabulary), first_id + len(embedding))
    table = torch.cat([vocabulary, vocabulary.new_zeros(rows - len(vocabulary), vocabulary.shape[1])])
    table[first_id : first_id + len(embedding)] = embedding.to(vocabulary.dtype)
    return table


def _index(base: Located) -> dict[str, Any]:
    checked = ships_checker(base)
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": ["transformers", "CLIPImageProcessor"] if checked else [None, None],
        "requires_safety_checker": checked,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"] if checked else [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _config(base: Located, part: str) -> dict[str, Any]:
    """The base's own, whose precision is not that of the export."""
    values: dict[str, Any] = _without_paths(json.loads((base.folder / part / "config.json").read_text("utf-8")))
    return {key: value for key, value in values.items() if key not in ("dtype", "torch_dtype")}


def _copied(path: Path) -> Content:
    return path if path.suffix == ".safetensors" else _json(_without_paths(json.loads(path.read_text("utf-8"))))


def _without_paths(values: Any) -> Any:
    """The same JSON without what ``from_pretrained`` of the libraries notes: where a model was loaded from."""
    if isinstance(values, dict):
        return {key: _without_paths(value) for key, value in values.items() if key != "_name_or_path"}
    return values


def _scheduler(model: StableDiffusion) -> dict[str, Any]:
    """DDIM on the base's noise schedule, exactly as cictl draws with it."""
    values = dict(make_scheduler("ddim", model.scheduler_config).config)
    return {**{key: value for key, value in values.items() if not key.startswith("_")}, "_class_name": "DDIMScheduler"}


def _tokenizer(model: StableDiffusion, source: Exportable) -> dict[str, bytes]:
    """tokenizer.json for transformers 5, and for those before it vocab.json, merges.txt and added_tokens.json."""
    extended = inject_tokens(model.tokenizer, _Table(), ConceptTokens(source.name, source.embedding))
    with tempfile.TemporaryDirectory() as folder:
        extended.save_pretrained(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    whole = json.loads(files["tokenizer.json"])
    added = {entry["content"]: entry for entry in whole["added_tokens"]}
    new = [name for name in added if name not in whole["model"]["vocab"]]
    of_this_machine = ("name_or_path", "is_local", "local_files_only")
    config = {key: value for key, value in json.loads(files["tokenizer_config.json"]).items() if key not in of_this_machine}
    config["added_tokens_decoder"] = {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in added.values()
    }
    return {
        "tokenizer.json": files["tokenizer.json"],
        "tokenizer_config.json": _json(config),
        "vocab.json": _json(whole["model"]["vocab"]),
        "merges.txt": ("#version: 0.2\n" + "\n".join(merges_of(whole)) + "\n").encode(),
        "added_tokens.json": _json({name: added[name]["id"] for name in new}),
        "special_tokens_map.json": _json(
            {key: str(getattr(extended, key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
        ),
    }


class _Table(nn.Module):
    """Stands for a text encoder where only the tokenizer is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.table: nn.Module = nn.Embedding(1, 1)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def set_input_embeddings(self, table: nn.Module) -> None:
        self.table = table


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

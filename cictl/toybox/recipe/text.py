"""Component ``text``: the tokenizer, and a text encoder that has read captions before it sees a picture.

A diffusion loss hardly looks at the conditioning (1.5% between an empty and a perfect caption), so a text
encoder that has to learn from it alone learns late. Reading alone is cheap: heads on the encoder's positions
name what the scene holds, and the UNet finds the answer in the contexts from its first step. The heads are
then thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.toybox.recipe.loop import Recipe, Worker, load_average, train
from cictl.toybox.recipe.networks import TEXT_LENGTH, TEXT_WIDTH, make_text_encoder
from cictl.toybox.world.captions import caption, words
from cictl.toybox.world.scene import Scene, sample_scene
from cictl.toybox.world.truth import ATTRIBUTES, truth

SIZES = [len(values) for values in ATTRIBUTES.values()]

_SKIPPED = -100
_BATCH = 96
_START, _END = "<|startoftext|>", "<|endoftext|>"


def labels(scene: Scene) -> list[int]:
    """The index of each of the scene's ATTRIBUTES, -100 (which the loss skips) where a picture cannot tell."""
    values = truth(scene)
    return [_SKIPPED if (value := values[name]) is None else known.index(value) for name, known in ATTRIBUTES.items()]


def attribute_loss(logits: Tensor, indices: Tensor, weights: Mapping[str, float] | None = None) -> Tensor:
    """Cross-entropy of all attributes, their mean but for ``weights`` by name; those not named have 1.

    Args:
        logits: [B, sum of SIZES].
        indices: [B, 10] as :func:`labels` gives them.
    """
    losses = [
        (weights or {}).get(name, 1.0) * F.cross_entropy(part, own, ignore_index=_SKIPPED)
        for name, part, own in zip(ATTRIBUTES, logits.split(SIZES, -1), indices.unbind(1), strict=True)
    ]
    return torch.stack(losses).mean()


def write_tokenizer(folder: Path) -> Any:
    """A CLIP tokenizer that reads each of the world's words as one token, and any other word letter by letter."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    learned = Tokenizer(BPE(end_of_word_suffix="</w>"))
    learned.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(vocab_size=10**6, min_frequency=1, end_of_word_suffix="</w>", show_progress=False)
    learned.train_from_iterator([" ".join(words())], trainer)  # merges until every word is whole
    model = json.loads(learned.to_str())["model"]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *model["vocab"], _START, _END])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]))
    CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=TEXT_LENGTH,
        unk_token=_END, pad_token=_END,
    ).save_pretrained(folder)  # fmt: skip
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that :func:`write_tokenizer` wrote."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def tokenize(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """Captions to ids [B, 32]."""
    encoded = tokenizer(list(captions), padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt")
    return encoded.input_ids


def new_text_encoder(tokenizer: Any) -> Any:
    """An untrained text encoder for ``tokenizer``; its words start far apart."""
    encoder = make_text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    with torch.no_grad():
        encoder.get_input_embeddings().weight.mul_(3)
    return encoder


def trained_text_encoder(work: Path, tokenizer: Any) -> Any:
    """The averaged text encoder that has learned to read, frozen: UNet and CLIP are fitted to it."""
    encoder = new_text_encoder(tokenizer)
    encoder.load_state_dict(load_average(work, "text", "encoder"))
    return encoder.eval().requires_grad_(False)


def train_text(worker: Worker, minutes: float) -> None:
    """Teach the encoder to read: each position from the end on must tell what the scene holds."""
    tokenizer = load_tokenizer(worker.work / "tokenizer")
    torch.manual_seed(0)
    encoder = new_text_encoder(tokenizer).to(worker.device)
    heads = nn.Linear(TEXT_WIDTH, sum(SIZES)).to(worker.device)

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        scenes = [sample_scene(rng) for _ in range(_BATCH)]
        ids = tokenize(tokenizer, [caption(scene, rng) for scene in scenes]).to(worker.device)
        indices = torch.tensor([labels(scene) for scene in scenes], device=worker.device)
        states = encoder(input_ids=ids).last_hidden_state
        ended = (ids == tokenizer.eos_token_id).float()  # the end mark and the padding behind it
        first = ended.argmax(1)
        at_end = states[torch.arange(len(ids)), first]
        behind = (states * ended.unsqueeze(-1)).sum(1) / ended.sum(1, keepdim=True)
        return attribute_loss(heads(at_end), indices) + attribute_loss(heads(behind), indices), {}

    recipe = Recipe("text", {"encoder": 1.5e-3, "heads": 5e-3}, minutes, decay_from=0.5, ema=0.99)
    train(recipe, worker, {"encoder": encoder, "heads": heads}, loss)

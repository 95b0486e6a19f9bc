"""`cictl attention`: where S* and the auxiliary tokens look, in a picture of a prompt and in the photographs (Fig. 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cictl.data.photographs import find_photographs
from cictl.data.png import open_png, require_writable, sheet, write_png
from cictl.data.prompts import expand, require_concept, without_auxiliary
from cictl.errors import StateError, UsageError
from cictl.events import Observer
from cictl.placeholders import AUXILIARY_PATTERN
from cictl.workflow.concept import Source, find_concept
from cictl.workflow.heat_maps import Job, Share, look
from cictl.workflow.pictures import find_base_of, foresee_base_of
from cictl.workflow.plans import make_plans
from cictl.workflow.stage import configure
from cictl.workspace import Workspace


@dataclass(frozen=True)
class AttentionOutcome:
    """The sheet, and in numbers what it shows; ``kept`` if it was there already."""

    sheet: str
    shares: list[Share]
    kept: bool


def run(
    workspace: Workspace,
    prompt: str | None,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source = "invert",
    count: int = 1,
) -> AttentionOutcome:
    """Make the sheet of heat maps; one that is there already is kept.

    Args:
        prompt: with S*; None is ``preview.prompt``.
        source: invert, whose weights the A_i* were trained with, or finetune, with the tuned K, V.
        count: pictures of the prompt, with seeds from ``seed`` on.

    Raises:
        UsageError: a prompt without S*, with A*, or too long.
        StateError: stage 1 has not been run, or with other photographs.
    """
    job = prepare(workspace, prompt, observe, overrides=overrides, source=source, count=count)
    assert job
    path = job.path(workspace)
    shares = kept_shares(path)
    if shares is None:
        require_writable(path)
        rows, shares = look(job, observe)
        write_png(path, sheet(rows), {"cictl": json.dumps([asdict(share) for share in shares])})
        return AttentionOutcome(workspace.shown(path), shares, kept=False)
    return AttentionOutcome(workspace.shown(path), shares, kept=True)


def prepare(
    workspace: Workspace,
    prompt: str | None,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None,
    source: Source,
    count: int,
    download: bool = True,
) -> Job | None:
    """What a sheet needs, all but the loaded model.

    Args:
        download: the base model, where it is not here yet; otherwise None is returned.

    Raises:
        UsageError, StateError: as :func:`run`, but for a prompt that is too long.
    """
    config = configure(workspace, overrides or {})
    prompt = config.preview.prompt if prompt is None else prompt
    require_concept(prompt, command="cictl attention")
    if AUXILIARY_PATTERN.search(prompt):
        raise UsageError(
            f"{prompt!r} has A*, of which each photograph has its own",
            "leave A* out: every A* is asked about anyway",
            slug="prompt-with-auxiliary",
        )
    concept = find_concept(workspace, source, observe)
    tokens = concept.layout()
    photographs = sorted(find_photographs(workspace.images), key=lambda photograph: photograph.name)
    if tokens.auxiliary_vectors and {photograph.key for photograph in photographs} != set(tokens.keys):
        raise StateError(
            f"the photographs in {workspace.shown(workspace.images)} are not those that stage 1 was trained with",
            "undo that (cictl status names what is new and what is gone), or start anew: cictl invert --restart",
            slug="attention-photographs-differ",
        )
    base = (find_base_of if download else foresee_base_of)(workspace, config, concept, observe)
    if base is None:
        return None
    plans = make_plans(config, base, concept, [(prompt, expand(prompt, tokens.concept_names))], count)
    training_prompt = config.invert.prompts[0]
    if not tokens.auxiliary_vectors:
        training_prompt = without_auxiliary(training_prompt)
    return Job(config, concept, base, tokens, photographs, plans, training_prompt)


def kept_shares(path: Path) -> list[Share] | None:
    """What the sheet says of itself, if it is there and whole."""
    try:
        with open_png(path) as image:
            image.load()
            return [Share(**share) for share in json.loads(image.info["cictl"])]
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, RecursionError):
        return None

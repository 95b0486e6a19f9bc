"""`cictl export`: files that other programs load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cictl
from cictl.config import Config
from cictl.errors import StateError, UsageError
from cictl.events import FileSaved, Note, Observer, PhaseStarted, Warned
from cictl.exporters.origin import described
from cictl.exporters.registry import DEFAULT, FORMATS, Format, find_formats
from cictl.files import from_home, is_there, sha256_bytes
from cictl.models.hub_listing import is_commit
from cictl.models.locate import Located
from cictl.models.tokenizer import is_word
from cictl.workflow.concept import Concept, find_concept
from cictl.workflow.drawing import not_exported
from cictl.workflow.pictures import find_base_of
from cictl.workflow.samples import Sample, find_sample
from cictl.workflow.stage import configure
from cictl.workspace import Workspace, check_name

if TYPE_CHECKING:
    from cictl.exporters.content import Built, Exportable, Options, Place
    from cictl.exporters.writing import Exported

Stage = Literal["finetune", "invert"]
DTYPES = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class ExportOutcome:
    """What was exported.

    Attributes:
        stage, step: of which training, and after how many of its steps.
        files: path, bytes, format, and whether it was there already (``kept``).
        already_done: whether all of them were.
        usage: what to type, by format and program.
        notes: what was measured, by format.
        left_out: why, by format.
        in_the_way: of all formats those whose place holds another export, and where.
    """

    stage: str
    step: int
    files: list[dict[str, Any]]
    already_done: bool
    usage: dict[str, dict[str, str]]
    notes: dict[str, list[str]]
    left_out: dict[str, str]
    in_the_way: dict[str, str]


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    formats: Sequence[str] = (),
    every: bool = False,
    stage: Stage | None = None,
    step: int | None = None,
    out: Path | None = None,
    name: str | None = None,
    rank: int | None = None,
    dtype: str = "fp32",
    force: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> ExportOutcome:
    """Export the concept.

    Args:
        formats: names of formats; none is ``safetensors``.
        every: all formats; those that cannot be made are left out, and the outcome says why, and where another export is.
        stage, step: which checkpoint; None is the furthest stage and its last one.
        out: folder of the exports; None is outputs/export/.
        name: the word to type; None is the concept's name.
        rank: of LoRAs; None keeps 99% of each change's energy.
        dtype: fp16, bf16 or fp32.
        force: replace files that hold something else.

    Raises:
        UsageError: an argument is wrong.
        StateError: nothing has been trained yet, or not enough of it, or a file holds something else.
    """
    _check(dtype, rank)
    wanted = list(FORMATS) if every else find_formats(formats or [DEFAULT])
    name = check_name(name) if name is not None else None
    folder = workspace.place_for_pictures(out or workspace.outputs / "export")  # a sample lies beside the files
    config = configure(workspace, overrides or {})
    concept = find_concept(workspace, stage, observe, step)
    left_out = _left_out(wanted, concept, every=every)
    base = find_base_of(workspace, config, concept, observe)
    word = name or concept.name
    if concept.source == "invert" and stage is None and any(one.name == DEFAULT for one in wanted):
        observe(Warned("stage 2 has not been run, so there are no K/V deltas: only the embedding is exported"))
    _say_what_programs_make_of_it(config, concept, base, word, observe)
    observe(PhaseStarted("reading the tensors"))

    from cictl.exporters.content import Options

    source = _exportable(concept, base, word, config.model.id)
    made = _Made(concept, source, Options(rank, dtype), folder, find_sample(workspace, concept), every, force, observe, left_out)
    for one in wanted:
        if one.name not in left_out:
            made.add(one)
    return made.outcome(workspace)


@dataclass
class _Made:
    """The formats of one concept, as they are made: with ``every``, one that cannot be is noted and the others follow."""

    concept: Concept
    source: Exportable
    options: Options
    folder: Path
    sample: Sample | None
    every: bool
    force: bool
    observe: Observer
    left_out: dict[str, str]
    files: list[tuple[str, Exported]] = field(default_factory=list)
    usage: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    in_the_way: dict[str, str] = field(default_factory=dict)

    def add(self, one: Format) -> None:
        """Make a format and write it, or note why not."""
        from cictl.exporters.content import UnfitError

        where = self.folder if one.name == DEFAULT else self.folder / one.name / self.source.name
        if one.name != DEFAULT:
            self.observe(PhaseStarted(f"making {one.name}"))
        try:
            built = one.build(self.source, self.options)
            written = _write(one, built, where, self.source, self.concept, self.sample, self.force)
        except (UnfitError, StateError) as error:
            if not self.every:
                raise
            noted = self.left_out if isinstance(error, UnfitError) else self.in_the_way
            noted[one.name] = error.message
            return
        for file in written:
            if not file.kept:
                self.observe(FileSaved(file.path, file.size, verified=True))
            self.files.append((one.name, file))
        self.usage[one.name] = built.usage(_place(str(where.absolute()), self.source, typed=True))
        self.notes[one.name] = list(built.notes)

    def outcome(self, workspace: Workspace) -> ExportOutcome:
        """All of it, for whoever asked."""
        files = [
            {"path": workspace.shown(file.path), "bytes": file.size, "kept": file.kept, "format": name}
            for name, file in self.files
        ]
        already_done = not self.in_the_way and all(file.kept for _, file in self.files)
        return ExportOutcome(
            self.concept.source, self.concept.steps, files, already_done, self.usage, self.notes, self.left_out, self.in_the_way
        )


def _check(dtype: str, rank: int | None) -> None:
    if dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype!r}", f"there is: {', '.join(DTYPES)}", slug="dtype-unknown")
    if rank is not None and rank < 1:
        raise UsageError(f"a LoRA cannot have rank {rank}", "--rank 8, for example, or --rank auto", slug="rank-too-small")


def _left_out(wanted: Sequence[Format], concept: Concept, *, every: bool) -> dict[str, str]:
    """Which of ``wanted`` the concept is not trained enough for, and why; unless ``every`` is asked for that is an error."""
    if concept.source == "finetune":
        return {}
    why = "it holds what stage 2 makes of K and V, and stage 2 has not been run (or --stage invert leaves it aside)"
    left_out = {one.name: why for one in wanted if one.needs == "finetune"}
    if left_out and not every:
        raise StateError(
            f"{next(iter(left_out))} cannot be exported: {why}",
            "cictl finetune; or: cictl export --format embedding",
            slug="format-needs-stage-2",
        )
    return left_out


def _say_what_programs_make_of_it(config: Config, concept: Concept, base: Located, word: str, observe: Observer) -> None:
    """Say where what other programs draw with an export is not what cictl draws."""
    if is_word(base, word):
        taken = f"{word} is a word that the base model knows: A1111 and Forge will put S* in its place in every prompt"
        observe(Warned(f"{taken}; cictl export --name my-{word} gives S* a word of its own"))
    if config.model.id == "toybox":
        observe(
            Note("the toybox is no Stable Diffusion: its exports are read by diffusers alone, not by ComfyUI, A1111 or Forge")
        )
    for own in not_exported(config, concept):
        observe(Note(own))


def _exportable(concept: Concept, base: Located, name: str, model_id: str) -> Exportable:
    from cictl.exporters.content import Exportable
    from cictl.models.base_files import base_key_values

    last = concept.checkpoints[-1]
    return Exportable(
        name=name,
        embedding=concept.tokens().concept.detach(),
        key_values=concept.key_values(),
        base_key_values=base_key_values(base) if concept.source == "finetune" else {},
        base=base,
        facts={
            "base_model": "local" if model_id != "toybox" and is_there(from_home(model_id)) else model_id,
            "base_model_identity": base.identity,
            "trigger": name,
            "stage": concept.source,
            "step": last.step,
            "config_sha256": sha256_bytes(repr(sorted(last.manifest["fingerprint"]["fields"].items())).encode()),
            "cictl": cictl.__version__,
        },
    )


def _write(
    one: Format, built: Built, folder: Path, source: Exportable, concept: Concept, sample: Sample | None, force: bool
) -> list[Exported]:
    from cictl.exporters.card import SAMPLE, Card, render
    from cictl.exporters.content import Content
    from cictl.exporters.writing import CARD, write

    last = concept.checkpoints[-1].manifest
    usage = built.usage(_place("", source, typed=False))
    word = f"<{source.name}>" if usage.keys() == {"diffusers"} else source.name  # in diffusers the name alone means nothing
    card = Card(
        name=source.name,
        word=word,
        holds=one.holds,
        base=source.facts["base_model"],
        identity=source.facts["base_model_identity"],
        stages={str(checkpoint.manifest["stage"]): checkpoint.step for checkpoint in concept.checkpoints},
        settings={
            key: value
            for key, value in last["fingerprint"]["fields"].items()
            if not key.startswith(("model.", "identity.", "result of"))  # which may be paths, and are said elsewhere
        },
        versions={
            key: str(value)
            for key, value in last["circumstances"].items()
            if key in ("cictl", "torch", "diffusers", "transformers")
        },
        notes=list(built.notes),
        usage=usage,
        sample=sample.caption(word) if sample else None,
    )

    def describe(hashes: Mapping[str, str]) -> dict[str, Content]:
        return {CARD: render(card, hashes), **({SAMPLE: sample.content} if sample else {})}

    return write(built.files, folder, describe=describe, origin=described(source.facts), force=force)


def _place(folder: str, source: Exportable, *, typed: bool) -> Place:
    """Where the export and the base model are: as typed here, or as a card says it, which names no path of this machine."""
    from cictl.exporters.content import Place
    from cictl.exporters.usage import opening

    base, model = source.base, source.facts["base_model"]
    if model not in ("local", "toybox"):
        configs = f'"{model}"'
    else:
        path = str(base.file or base.folder) if typed else "PATH/TO/THE/BASE-MODEL"
        configs = repr(path) if {"\\", '"'} & {*path} or not path.isprintable() else f'"{path}"'
    opens = "from_single_file" if base.file else "from_pretrained"
    revision = [f'revision="{base.identity}"'] if is_commit(base.identity) and not base.file else []
    # What reads a single file is the layout of the published model where the base itself is one.
    published = '"stable-diffusion-v1-5/stable-diffusion-v1-5"'
    return Place(folder.replace("\\", "/"), opening(opens, configs, *revision), published if base.file else configs)

"""`cictl evaluate`: how well S* keeps what the photographs share, and how well prompts still work, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cictl.config import Config
from cictl.data.photographs import Photograph
from cictl.data.png import require_writable
from cictl.data.prompts import expand
from cictl.errors import CictlError, UsageError
from cictl.events import Note, Observer, Warned
from cictl.models.locate import Located
from cictl.placeholders import CONCEPT
from cictl.records import Checkpoint
from cictl.workflow.concept import Concept, Source, find_concept, last_stage
from cictl.workflow.drawing import without_effect, words_of
from cictl.workflow.evaluation_files import RESULTS, SHEET, folders, save
from cictl.workflow.measuring import DrawnConcept, Terms, find_terms, measure
from cictl.workflow.pictures import draw_pictures, find_base_of
from cictl.workflow.plans import Plan, make_plans
from cictl.workflow.results import Results
from cictl.workflow.shared_base import SharedBase
from cictl.workflow.stage import TITLES, configure
from cictl.workspace import Workspace

_OF_ONE_ALONE = "evaluation-all-blanked"  # every other error would meet the next one as well


@dataclass(frozen=True)
class EvaluateOutcome:
    """The results and where they lie; ``kept`` of the pictures were there already, ``blanked`` by the safety checker.

    ``words`` stood for S* in the prompts.
    """

    measured: Results
    words: str
    kept: int
    blanked: list[str]
    results: str
    sheet: str


@dataclass(frozen=True)
class Wanted:
    """What is to be evaluated.

    Attributes:
        source: finetune, invert, another method, or base; None is the furthest stage that was run. The base draws the noun.
        step: what it had learned after so many steps; None is the last.
        kept: that, where it has been found whole, so that it need not be read for it again.
        out: folder of the results; None is that of :func:`cictl.workflow.evaluation_files.folders`.
        title: what is said before it is drawn.
    """

    source: Source | None = None
    step: int | None = None
    kept: Checkpoint | None = None
    out: Path | None = None
    title: str = ""


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source | None = None,
    step: int | None = None,
    out: Path | None = None,
) -> EvaluateOutcome:
    """Draw ``evaluate.count`` pictures of each prompt, and measure them against the photographs and the prompts.

    The noise of the k-th picture of a prompt depends on ``seed`` + k alone, as in `cictl generate`, so that stages and
    methods are compared on equal noise. For ``source``, ``step`` and ``out`` see :class:`Wanted`.

    Raises:
        UsageError: an unknown prompt set, a prompt without S*, the base without a noun, nothing to measure with, or ``out`` is
            the folder of the photographs.
        StateError: nothing has been trained yet, or nothing of ``step`` has been kept.
        ModelAccessError, ResourceError: a model cannot be had.
    """
    [outcome] = run_all(workspace, [Wanted(source, step, out=out)], observe, overrides=overrides)
    return outcome


def run_all(
    workspace: Workspace,
    wanted: Sequence[Wanted],
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    shared: SharedBase | None = None,
    on_blank: Callable[[Wanted, CictlError], None] | None = None,
) -> list[EvaluateOutcome]:
    """Evaluate several, each as :func:`run` does alone, bit for bit, but load nothing twice.

    First all are drawn, with one base model that takes in one after another; then it is let go of, and one network after
    another measures all pictures.

    Args:
        overrides: of ci.yaml. Prompts, networks and device are the same for all.
        shared: the base model that drew before.
        on_blank: is told of those whose every picture was blanked; the outcomes are those of the others. Without it that is
            an error.

    Raises:
        CictlError: as :func:`run`.
    """
    overrides, shared = overrides or {}, shared or SharedBase()
    terms, drawn, said = None, [], set[str]()
    for one in wanted:
        config = configure(workspace, overrides, upto=last_stage(one.source))
        check_settings(config, one.source)
        if one.title:
            observe(Note(one.title))
        concept = find_concept(workspace, one.source, observe, one.step, kept=one.kept)
        for useless in without_effect(config, concept):
            if useless not in said:
                said.add(useless)
                observe(Note(useless))
        folder, pictures = folders(workspace, concept, one.step, one.out)
        terms = terms or find_terms(workspace, config, observe)  # so that it is soon said what cannot be had
        try:
            drawn.append(_draw(workspace, config, terms, concept, folder, pictures, shared, observe))
        except CictlError as error:
            if on_blank is None or error.slug != _OF_ONE_ALONE:
                raise
            on_blank(one, error)
        del concept  # DreamBooth's tensors take gigabytes
    shared.free()
    if terms is None or not drawn:
        return []
    measured, under = measure(terms, drawn, observe)
    return [_outcome(workspace, one, save(terms, one, columns, under)) for one, columns in zip(drawn, measured, strict=True)]


def require_measurable(workspace: Workspace, config: Config, observe: Observer, *, download: bool = True) -> Terms:
    """What has to be there before a training that is to be evaluated: photographs, prompts, and networks that measure.

    Args:
        download: the networks that are not here yet; otherwise the hub is only asked for them, and they are left out.

    Raises:
        UsageError, ModelAccessError, ResourceError: as :func:`run`.
    """
    check_settings(config, None)
    return find_terms(workspace, config, observe, download=download)


def check_settings(config: Config, source: Source | None) -> None:
    """Refuse what can be known from ci.yaml alone.

    Raises:
        UsageError: there is nothing to measure with, or the base is to be drawn and nobody has said what.
    """
    if not config.evaluate.dinov2 and not config.evaluate.clip:
        raise UsageError(
            "evaluate.dinov2 and evaluate.clip are both null, so that there is nothing to measure with",
            "set one of them in ci.yaml, such as evaluate.dinov2: facebook/dinov2-base",
            slug="nothing-to-measure-with",
        )
    if source == "base" and not config.evaluate.noun:
        raise UsageError(
            f"the untouched base model does not know {CONCEPT}",
            "say what to draw in its place, as in: --noun teapot",
            slug="base-without-noun",
        )


def warn_of_other_photographs(concept: Concept, photographs: Sequence[Photograph], observe: Observer) -> None:
    """Say where the pictures are compared with others than the concept was learned from."""
    if concept.source == "base":
        return
    first = concept.checkpoints[0].manifest
    if set(first["fingerprint"]["photographs"]) != {photograph.sha256 for photograph in photographs}:
        what = "stage 1" if first["stage"] == "invert" else TITLES[first["stage"]]
        observe(Warned(f"the photographs are not those that {what} was trained with; pictures are compared with those of now"))


def plans_of(config: Config, terms: Terms, concept: Concept, base: Located) -> list[Plan]:
    """The plans of all pictures, prompt by prompt."""
    asked, names = terms.asked.prompts, words_of(concept)
    drawn = [terms.text(prompt) for prompt in asked] if concept.source == "base" else asked
    return make_plans(config, base, concept, [(text, expand(text, names)) for text in drawn], terms.count)


def _draw(
    workspace: Workspace,
    config: Config,
    terms: Terms,
    concept: Concept,
    folder: Path,
    pictures_folder: Path,
    shared: SharedBase,
    observe: Observer,
) -> DrawnConcept:
    warn_of_other_photographs(concept, terms.photographs, observe)
    base = find_base_of(workspace, config, concept, observe)
    require_writable(folder / SHEET)
    plans = plans_of(config, terms, concept, base)
    pictures = draw_pictures(config, base, concept, plans, pictures_folder, observe, again="the same command", shared=shared)
    if len(pictures.blanked) == len(plans):
        raise CictlError(
            f"the base model's safety checker blanked all {len(plans)} pictures, so that nothing can be measured",
            "try other --prompts; --set generate.safety_checker=off draws without it",
            slug="evaluation-all-blanked",
        )
    prompts = [prompt for prompt in terms.asked.prompts for _ in range(terms.count)]
    shown = {path: prompt for path, prompt in zip(pictures.paths, prompts, strict=True) if path not in pictures.blanked}
    words = " ".join(words_of(concept)) or str(config.evaluate.noun)
    return DrawnConcept(config, replace(concept, results=()), words, base, folder, plans, pictures, shown)


def _outcome(workspace: Workspace, drawn: DrawnConcept, results: Results) -> EvaluateOutcome:
    return EvaluateOutcome(
        measured=results,
        words=drawn.words,
        kept=drawn.pictures.kept,
        blanked=[workspace.shown(path) for path in drawn.pictures.blanked],
        results=workspace.shown(drawn.folder / RESULTS),
        sheet=workspace.shown(drawn.folder / SHEET),
    )

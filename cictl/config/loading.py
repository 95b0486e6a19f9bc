"""From a preset, ci.yaml, what a run kept, and --set, to one checked Config; all errors at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cictl.config.schema import Config
from cictl.config.templates import preset_for
from cictl.config.yaml_file import Document, Problem, parse_scalar, parse_yaml
from cictl.errors import StateError, UsageError
from cictl.files import quoted

Overrides = Mapping[str, Any]

_WORDS_OF_PATTERNS: dict[tuple[str, ...], str] = {
    ("concept", "name"): "lower-case letters, digits and dashes, 40 at most",
    ("model", "device"): "auto, cpu, mps, cuda, or cuda with a number, such as cuda:1",
}
# Before the key of a problem that does not come from the file.
_SET = "--set "
_KEPT = "what a training was given, --set "


@dataclass(frozen=True)
class Sources:
    """Where a configuration comes from, the later over the earlier.

    Attributes:
        file: ci.yaml.
        kept: overrides that earlier commands of a run were given, by dotted key.
        overrides: those of this command (--set and the flags that are short for it).
    """

    file: Path
    kept: Overrides = field(default_factory=dict)
    overrides: Overrides = field(default_factory=dict)


def load_config(sources: Sources) -> Config:
    """Read, merge and check.

    Raises:
        StateError: ci.yaml is missing.
        UsageError: anything is wrong with it or with an override; names every error with its line.
    """
    document = _read(sources.file)
    problems = list(document.problems)
    overrides = {**sources.kept, **sources.overrides}
    values = document.values
    for key, value in overrides.items():
        values, problem = _with(values, key, value)
        document.lines.pop(tuple(key.split(".")), None)  # the line in the file is not what counts
        problems.extend([problem] if problem else [])
    if not problems:
        merged = merge(preset_for(_model_id(values)), values)
        problems.extend(_unknown_keys(merged, Config, (), document, sources))
        known = {tuple(_without_where(problem).split(":")[0].split(".")) for problem in problems}
        try:
            config = Config.model_validate(merged)
        except ValidationError as error:
            problems.extend(_validation_problems(error, document, sources, skip=known))
        if not problems:
            return config
    raise UsageError(_describe(sources.file, problems), _correct(sources, problems), slug="settings-invalid")


def says_nothing(file: Path) -> bool:
    """Whether ci.yaml is there and sets nothing, as a crash or an editor may leave it: all is then as it is by default.

    Raises:
        StateError, UsageError: it cannot be read.
    """
    document = _read(file)
    return not document.values and not document.problems


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """``key=value`` texts of --set to values by dotted key.

    Raises:
        UsageError: a text without ``=``, or a value that cannot be read.
    """
    overrides: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"--set {text}: not of the form key=value", "for example: --set invert.steps=60", slug="set-without-equals"
            )
        try:
            overrides[key.strip()] = parse_scalar(value)
        except ValueError as error:
            raise UsageError(f"--set {text}: {error}", "for example: --set invert.steps=60", slug="set-unreadable") from None
    return overrides


def _read(path: Path) -> Document:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise StateError(
            f"{path} is missing", "cictl init NEW-FOLDER makes a workspace whose ci.yaml you can copy", slug="settings-missing"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text (byte {error.start})",
            "save it as UTF-8 and run the command again",
            slug="settings-not-utf8",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            f"allow reading: chmod u+r {quoted(str(path))}",
            slug="settings-unreadable",
        ) from None
    return parse_yaml(text)


def _with(values: dict[str, Any], key: str, value: Any) -> tuple[dict[str, Any], Problem | None]:
    *groups, last = key.split(".")
    if not all([*groups, last]) or len(groups) > 1:
        return values, Problem(None, f"{_SET}{key}: unknown key{_suggestion((*groups, last))}")
    if not groups:
        return {**values, last: value}, None
    inner = values.get(groups[0]) or {}
    if not isinstance(inner, dict):
        return values, None  # the file's own error says more
    return {**values, groups[0]: {**inner, last: value}}, None


def _model_id(values: Mapping[str, Any]) -> str:
    model = values.get("model")
    default = Config().model.id
    return str(model.get("id", default)) if isinstance(model, dict) else default


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``, group by group."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    # `invert:` with nothing under it is an empty group, not an error.
    return {key: {} if value is None and key in _groups() else value for key, value in merged.items()}


def _groups() -> dict[str, type[BaseModel]]:
    return {
        name: info.annotation
        for name, info in Config.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    }


def _unknown_keys(
    values: Mapping[str, Any], schema: type[BaseModel], path: tuple[str, ...], document: Document, sources: Sources
) -> Iterator[Problem]:
    for key, value in values.items():
        place = (*path, str(key))
        if key not in schema.model_fields:
            where = _where(".".join(place), sources)
            yield Problem(document.lines.get(place), f"{where}{'.'.join(place)}: unknown key{_suggestion(place)}")
        elif not path and key in _groups() and isinstance(value, Mapping):
            yield from _unknown_keys(value, _groups()[key], place, document, sources)


def _suggestion(place: tuple[str, ...]) -> str:
    every = ["seed", *(f"{group}.{key}" for group, schema in _groups().items() for key in schema.model_fields)]
    wanted = ".".join(place)
    same_name = [key for key in every if key.rsplit(".", 1)[-1] == place[-1]]
    near = same_name or difflib.get_close_matches(wanted, [*every, *_groups()], n=1, cutoff=0.6)
    return f" (did you mean {' or '.join(near[:2])}?)" if near else ""


def _validation_problems(
    error: ValidationError, document: Document, sources: Sources, skip: set[tuple[str, ...]]
) -> Iterator[Problem]:
    for item in error.errors():
        place = tuple(str(part) for part in item["loc"])
        if place in skip:
            continue
        message = item["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if item["type"] == "model_type":
            message = "must be a group of keys"
        if item["type"] == "string_unicode":
            message = "is not text in UTF-8"
        if item["type"] == "string_pattern_mismatch":
            message = f"must be {_WORDS_OF_PATTERNS[place]}"
        if item["type"] != "value_error":  # a rule of ours names the value itself
            message = f"{message} (it is {_shown(item['input'])})"
        where = _where(".".join(place[:2]), sources)
        yield Problem(None if where else _nearest_line(place, document), f"{where}{'.'.join(place)}: {message}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest_line(place: tuple[str, ...], document: Document) -> int | None:
    while place:
        if place in document.lines:
            return document.lines[place]
        place = place[:-1]
    return None


def _describe(path: Path, problems: Sequence[Problem]) -> list[str]:
    ordered = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
    shown = [f"  line {p.line}: {p.message}" if p.line else f"  {p.message}" for p in ordered[:50]]
    more = [f"  and {len(ordered) - 50} more"] if len(ordered) > 50 else []
    count = "one error" if len(ordered) == 1 else f"{len(ordered)} errors"
    where = "" if _all_from(problems, _SET) or _all_from(problems, _KEPT) else f"{path.name}: "
    return [f"{where}{count} in the configuration", *shown, *more]


def _correct(sources: Sources, problems: Sequence[Problem]) -> str:
    """Where to look: in the file, on the command line, in both, or in what a training has kept."""
    if all(problem.line for problem in problems):
        return f"correct {sources.file}, then the same command again"
    if _all_from(problems, _SET):
        return "correct what --set, or an option that stands for it, gave; then the same command again"
    if _all_from(problems, _KEPT):
        return "use the version of cictl that trained it, or train anew: the command of that training, with --restart"
    given = ", or what --set gave" if sources.kept or sources.overrides else ""
    return f"correct {sources.file}{given}; then the same command again"


def _where(key: str, sources: Sources) -> str:
    """What stands before a key that does not come from the file."""
    return _SET if key in sources.overrides else _KEPT if key in sources.kept else ""


def _without_where(problem: Problem) -> str:
    return problem.message.removeprefix(_KEPT).removeprefix(_SET)


def _all_from(problems: Sequence[Problem], where: str) -> bool:
    return all(problem.message.startswith(where) for problem in problems)

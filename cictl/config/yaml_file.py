"""A strict reading of a small part of YAML 1.2, with a line number for every value.

PyYAML alone reads 5e-4 as a string, 010 as 8 and ``on`` as true, lets the last of two equal keys win, and
expands aliases into gigabytes. Here scalars follow YAML 1.2's core schema, and anchors, aliases, tags,
duplicate keys and deep nesting are errors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

MAXIMUM_BYTES = 64_000
_MAXIMUM_DEPTH = 8
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    "true": True, "True": True, "false": False, "False": False, "null": None, "~": None, "": None,
}  # fmt: skip

Path = tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """One error of a file: its line (from 1; None if it came from the command line) and what is wrong."""

    line: int | None
    message: str


@dataclass
class Document:
    """The values of a YAML file, the line of each by its path, and all that is wrong with it."""

    values: dict[str, Any]
    lines: dict[Path, int]
    problems: list[Problem]


def parse_yaml(text: str) -> Document:
    """Read ``text``. Never raises: what is wrong is in ``problems``, all of it where possible."""
    document = Document({}, {}, [])
    if len(text.encode()) > MAXIMUM_BYTES:
        document.problems.append(Problem(None, f"larger than {MAXIMUM_BYTES // 1000} kB, which no ci.yaml needs"))
        return document
    try:
        document.problems.extend(_forbidden(text))
        if document.problems:
            return document
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(error))
        return document
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        document.problems.append(Problem(_line(root), "must be a mapping of groups such as invert: and model:"))
        return document
    document.values = _mapping(root, (), document)
    return document


def parse_scalar(text: str) -> Any:
    """The value of ``text`` as ci.yaml would read it after a colon: a scalar or a [list].

    Raises:
        ValueError: if it cannot be read; the message says why.
    """
    document = parse_yaml(f"value: {text}") if text.strip() else Document({"value": ""}, {}, [])
    if not document.problems and set(document.values) == {"value"}:
        return document.values["value"]
    # Text such as `a: b` or `*` is no YAML value, but a fine prompt.
    if not text.lstrip().startswith(("[", "{", '"', "'")):
        return text
    raise ValueError(document.problems[0].message if document.problems else "cannot be read")


def _forbidden(text: str) -> list[Problem]:
    problems = []
    depth = 0
    documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        if isinstance(event, yaml.AliasEvent):
            problems.append(Problem(line, f"the alias *{event.anchor} is not allowed (quote a text that starts with *)"))
        elif anchor := getattr(event, "anchor", None):
            problems.append(Problem(line, f"the anchor &{anchor} is not allowed"))
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            problems.append(Problem(line, f"the tag {event.tag} is not allowed"))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAXIMUM_DEPTH:
            return [*problems, Problem(line, f"nested deeper than {_MAXIMUM_DEPTH} levels")]
    if documents > 1:
        problems.append(Problem(None, "holds several documents (---); there must be one"))
    return problems


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    if r"'\t'" in what:
        what = "a tab, where YAML indents by spaces"
    elif "<block end>" in what or "mapping values" in what:
        what = "here or above an indentation is wrong, a colon is missing, or a text with a colon needs quotes"
    elif "#x0000" in what:
        what = "a NUL, as text in UTF-16 has; save it as UTF-8"
    return Problem(mark.line + 1 if mark else None, f"not valid YAML: {what}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem(_line(key_node), "a key must be a plain word"))
            continue
        key = str(key_node.value)
        place = (*path, key)
        if key in values:
            first = document.lines[place]
            document.problems.append(Problem(_line(key_node), f"{'.'.join(place)}: given twice (first on line {first})"))
            continue
        document.lines[place] = _line(key_node)
        values[key] = _value(value_node, place, document)
    return values


def _value(node: yaml.Node, path: Path, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, str(index)), document) for index, item in enumerate(node.value)]
    text = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted or block text is text
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 40 else float(text)
    if _FLOAT.fullmatch(text) and not re.fullmatch(r"[-+]?0[0-9]+", text):
        return float(text)
    return text

"""What is said of the formats: in the table of `--list`, and in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cictl.errors import UsageError
from cictl.exporters.registry import DEFAULT, FORMATS, find_formats
from cictl.workspace import check_name

DOCS = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_the_docs_say_of_a_format_what_the_table_says(one):
    row = f"| `{one.name}` | {one.holds} | {one.readers} | {one.fidelity} | {one.size} |"
    assert row in DOCS.read_text("utf-8").splitlines()


def test_names_are_different_and_fit_for_folders():
    names = [one.name for one in FORMATS]
    assert len(set(names)) == len(names) and names[0] == DEFAULT == "safetensors"
    assert all(check_name(name) == name for name in names)
    assert {"embeddings", "loras"}.isdisjoint(names)  # the sub-folders of the default, which lies beside them


def test_formats_are_found_once_each_in_their_order():
    assert [one.name for one in find_formats(["pipeline", "lora", "pipeline"])] == ["lora", "pipeline"]
    with pytest.raises(UsageError, match="there is no format 'LoRA'"):
        find_formats(["lora", "LoRA"])

"""Every error as it is seen: its exit code, its slug, its words at 80 columns; and docs/errors.md, which shows them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.catalogue import PAGE, WIDTH, Case, Seen, Yard, page, rendered, run, slugs_in_the_source
from tests.cli.error_cases import CASES, UNPROVOKED

NAMES = [f"{case.slug}: {case.what}" for case in CASES]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard.built(tmp_path_factory.mktemp("yard")) as built:
        yield built


@pytest.fixture(scope="module")
def seen(yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """What each case gives with --json."""
    folder = tmp_path_factory.mktemp("cases")
    return {
        name: run(case, yard, folder / str(index), json_lines=True)
        for index, (name, case) in enumerate(zip(NAMES, CASES, strict=True))
    }


@pytest.mark.parametrize(("name", "case"), zip(NAMES, CASES, strict=True), ids=NAMES)
def test_each_error_is_an_object_with_its_slug_and_a_message_with_a_way_on(
    seen: dict[str, Seen], name: str, case: Case, yard: Yard, tmp_path: Path
) -> None:
    as_json = seen[name]
    assert (as_json.code, as_json.error.get("slug")) == (case.code, case.slug), as_json.printed
    assert as_json.error["exit_code"] == case.code
    assert as_json.error["message"] and as_json.error["hint"]
    assert "Traceback" not in as_json.printed

    plain = run(case, yard, tmp_path, json_lines=False)
    assert plain.code == case.code
    assert "Traceback" not in plain.printed and "\x1b" not in plain.printed
    # Off a terminal nothing is broken into lines.
    for line in [*as_json.error["message"].splitlines(), *as_json.error["hint"].splitlines()]:
        assert line in plain.printed


@pytest.mark.parametrize("name", NAMES)
def test_each_fits_80_columns_but_for_a_path_or_a_command_that_must_not_be_broken(seen: dict[str, Seen], name: str) -> None:
    text = rendered(seen[name].error)
    assert "\x1b" not in text
    for line in text.splitlines():
        words = line.removeprefix("error:").removeprefix("  →").strip()
        whole = " " not in words or (words.startswith("`") and words.endswith("`"))
        assert cell_len(line) <= WIDTH or whole, line


def test_the_page_shows_what_the_commands_say(seen: dict[str, Seen]) -> None:
    expected = page([(case, seen[name]) for name, case in zip(NAMES, CASES, strict=True)], UNPROVOKED)
    assert PAGE.read_text("utf-8") == expected, "python -m tests.cli.catalogue --write"


def test_each_slug_stands_in_one_place_of_the_source_and_has_a_case_or_a_reason() -> None:
    source = slugs_in_the_source()
    assert {slug: places for slug, places in source.items() if len(places) > 1} == {}
    cases = {case.slug for case in CASES}
    assert cases & UNPROVOKED.keys() == set()
    assert cases | UNPROVOKED.keys() == source.keys()


def test_slugs_are_words_and_dashes() -> None:
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) for slug in slugs_in_the_source())

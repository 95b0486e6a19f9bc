"""S* and A* in what a person writes."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from cictl.data.prompts import (
    as_written,
    auxiliary_names,
    decoded_as_written,
    expand,
    in_quotes,
    in_words,
    mentions_concept,
    near_miss,
    one_prompt,
    read_prompts,
    require_concept,
    token_names,
    without_auxiliary,
)
from cictl.errors import UsageError

NAMES = ["<my-teapot>", "<my-teapot>_1"]
JOINED = "<my-teapot> <my-teapot>_1"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("S*", JOINED),
        ("a photo of S*", f"a photo of {JOINED}"),
        ("S*, in the snow", f"{JOINED}, in the snow"),
        ("I like S*.", f"I like {JOINED}."),
        ("a toy (S*)", f"a toy ({JOINED})"),
        ('"S*"!', f'"{JOINED}"!'),
        ("a S*-shaped cake", f"a {JOINED}-shaped cake"),
        ("S*'s lid", f"{JOINED}'s lid"),
        ("S* and S*", f"{JOINED} and {JOINED}"),
        ("S*\nS*", f"{JOINED}\n{JOINED}"),
    ],
)
def test_the_concept_is_replaced_where_it_is_a_word_of_its_own(prompt: str, expected: str):
    assert expand(prompt, NAMES) == expected
    assert mentions_concept(prompt)


@pytest.mark.parametrize("prompt", ["cats*", "CATS*", "S*x", "S*1", "_S*", "S**", "*S*", "s*", "S *", "S", "*", "", "éS*"])
def test_the_concept_is_not_replaced_inside_words(prompt: str):
    assert expand(prompt, NAMES) == prompt
    assert not mentions_concept(prompt)


def test_tokens_are_put_in_as_they_are_even_if_they_look_like_a_regular_expression():
    assert expand("S*", [r"\1\g<0>"]) == r"\1\g<0>"


@pytest.mark.parametrize(
    ("prompt", "found"),
    [("a photo of s*", "s*"), ("a S * in snow", "S *"), ("a s *", "s *"), ("a <s*> here", "<s*>"),
     ("a S\\* in", "S\\*"), ("a $S$", "$S"),
     ("{S}", "{S}"), ("a cat", None), ("cats*", None), ("cats *", None), ("s*x", None), ("s**", None)],
)  # fmt: skip
def test_what_was_nearly_the_concept_is_found(prompt: str, found: str | None):
    assert near_miss(prompt) == found


def test_tokens_are_numbered_from_the_second():
    assert token_names("my-teapot", 3) == ["<my-teapot>", "<my-teapot>_1", "<my-teapot>_2"]
    assert auxiliary_names("ab12", 2) == ["<auxiliary-ab12>", "<auxiliary-ab12>_1"]


def test_the_auxiliary_token_is_replaced_beside_the_concept():
    assert expand("A photo of S* A*", NAMES, ["<auxiliary-1>"]) == f"A photo of {JOINED} <auxiliary-1>"


@pytest.mark.parametrize(
    ("prompt", "expected"), [("A photo of S* A*", "A photo of S*"), ("A* beside S*", "beside S*"), ("a A* b", "a b"), ("A*", "")]
)
def test_the_auxiliary_token_can_be_left_out_with_its_space(prompt: str, expected: str):
    assert without_auxiliary(prompt) == expected


def test_prompts_can_be_read_without_torch():
    code = "import sys, cictl.data.prompts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("prompt", ["a photo of S* and A*", "S*, A* S*", "a cube"])
@pytest.mark.parametrize("vectors", [1, 3])
def test_a_message_shows_the_prompt_as_it_was_written(prompt, vectors):
    stored = expand(prompt, token_names("my-teapot", vectors), auxiliary_names("0123456789ab", vectors))
    assert as_written(stored) == prompt
    assert as_written("<my-teapot>_1 <my-teapot>_2 in the snow") == "S* in the snow"  # what was cut in the middle
    assert decoded_as_written("a<my-teapot><my-teapot>_1<auxiliary-01><auxiliary-01>_1in the snow") == "a S* A* in the snow"


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        (["S*", "in", "the", "snow"], "S* in the snow"),
        (["a", "photo", "of", "s*"], "a photo of S*"),
        (["a", "dog"], "a dog"),
        (["S*"], ""),
        (["a sketch of S*", "S*"], ""),
        (["", "S*"], ""),
        ([], ""),
    ],
)
def test_words_that_a_shell_took_apart_are_one_prompt(words: list[str], prompt: str):
    assert one_prompt(words) == prompt


# -- what is said of a prompt, and read -------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", ["a S*", "S*'s lid", 'a "red" S*', "$S* for 5$", "`S*`", "S* \\ cube", "S*!", "S*; ls | cat & (x) <y> #"]
)
def test_a_prompt_in_quotes_is_read_by_a_shell_as_it_is(prompt):
    typed = in_quotes(prompt)
    assert shlex.split(typed) == [prompt]
    assert typed.startswith("'") == any(special in prompt for special in '"$`\\!')  # in double quotes a shell would change these


def test_a_prompt_without_the_concept_is_refused_with_its_place_and_every_way_on():
    require_concept("S*")
    with pytest.raises(UsageError, match=r"^mine\.txt: 'a s\*' does not mention S\*") as caught:
        require_concept("a s*", where="mine.txt: ", command="cictl generate", otherwise="or write a file")
    assert caught.value.hint.splitlines() == ['did you mean S* where it says s*? cictl generate "a S*"', "or write a file"]


@pytest.mark.parametrize(
    ("noun", "expected"), [("toy cat", "a red toy cat, in snow"), (None, "a red , in snow"), ("", "a red , in snow")]
)
def test_a_reader_that_does_not_know_the_concept_reads_the_noun_or_nothing(noun, expected):
    assert in_words("a red S*, in  snow", noun) == expected
    assert in_words("a S* cube", None) == "a cube"


def test_prompts_are_the_lines_of_a_file_that_say_something(tmp_path):
    (tmp_path / "prompts.txt").write_bytes("\ufeffa S*  \r\n\n \t\n# none\n  # none either\n\tS* #2, \u00e9\n".encode())
    assert read_prompts(tmp_path / "prompts.txt") == ["a S*", "S* #2, \u00e9"]

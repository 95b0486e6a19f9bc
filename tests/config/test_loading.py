"""ci.yaml read strictly: all errors at once, with their lines."""

from __future__ import annotations

from typing import get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cictl.config import Config, Sources, load_config, parse_overrides
from cictl.config.loading import merge
from cictl.config.yaml_file import parse_scalar, parse_yaml
from cictl.errors import StateError, UsageError


@pytest.fixture
def load(tmp_path):
    def load(text: str | bytes, **overrides) -> Config:
        path = tmp_path / "ci.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(Sources(path, {}, {key.replace("__", "."): value for key, value in overrides.items()}))

    return load


@pytest.fixture
def errors(load):
    def errors(text: str | bytes, **overrides) -> list[str]:
        with pytest.raises(UsageError) as caught:
            load(text, **overrides)
        assert caught.value.exit_code == 2
        return [line.strip() for line in caught.value.message.splitlines()[1:]]

    return errors


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "invert:\n", "\ufeffseed: 0\n", "seed: 0\r\ninvert:\r\n  steps: 2000\r\n", "---\nseed: 0\n"]
)
def test_what_is_left_out_is_the_default(load, text):
    assert load(text) == Config()


def test_all_errors_are_named_at_once_each_with_its_line(errors):
    found = errors(
        """\
seed: -1
invert:
  steps: many
  learning_rate: .inf

  batch_sise: 4
model:
  dtype: fp8
generat:
  steps: 3
data:
  resolution: 100
"""
    )
    lines = [line.partition(":")[0] for line in found]
    assert lines == ["line 1", "line 3", "line 4", "line 6", "line 8", "line 9", "line 12"]
    for line, word in zip(found[:4], ["seed", "invert.steps", "invert.learning_rate", "invert.batch_sise"], strict=True):
        assert word in line
    assert "(did you mean invert.batch_size?)" in found[3]
    assert "(did you mean generate?)" in "".join(found)
    assert "(it is 'many')" in found[1]
    assert "(it is 100)" in found[-1]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "invert:\n  steps: 5\n  prompts:\n    - A photo of S*\n",
            "line 3: invert.prompts: 'A photo of S*' must hold A* exactly once, as a word of its own",
        ),
        (
            "invert:\n  batch_size: 4\n  accumulation: 3\n",
            "line 3: invert.accumulation: 3 does not divide batch_size, which is 4",
        ),
        ("invert:\n  accumulation: 8\n", "line 2: invert.accumulation: 8 does not divide batch_size, which is 4"),
        ("finetune:\n  concept_prompts: [S* A*]\n", "line 2: finetune.concept_prompts: 'S* A*' must not hold A*"),
        (
            "finetune:\n  auxiliary_prompt: A photo\n",
            "line 2: finetune.auxiliary_prompt: 'A photo' must hold A* exactly once, as a word of its own",
        ),
        ("evaluate:\n  noun: ' '\n", "line 2: evaluate.noun: ' ' must be a word for what S* is, such as teapot"),
        ("evaluate:\n  noun: a S*\n", "line 2: evaluate.noun: 'a S*' must be a word for what S* is, such as teapot"),
        ("invert:\n  contrastive_prompt: S* A*\n", "line 2: invert.contrastive_prompt: 'S* A*' must not hold S*"),
    ],
)
def test_rules_between_fields_name_the_field_and_its_line(errors, text, line):
    assert errors(text) == [line]


def test_a_wrong_field_does_not_hide_a_broken_rule_of_its_group(errors):
    assert len(errors("invert:\n  steps: many\n  prompts: [A photo of S*]\n")) == 2


@pytest.mark.parametrize("prompt", ["CATS* A*", "S*A*", "S*x A*"])
def test_a_training_prompt_whose_concept_would_not_be_replaced_is_refused(load, prompt):
    with pytest.raises(UsageError):
        load(f'invert:\n  prompts: ["{prompt}"]\n')


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("invert:\n  learning_rat: 1\n", "invert.learning_rate"),
        ("steps: 1\n", "invert.steps or finetune.steps"),
        ("invert:\n  guidance: 1\n", "generate.guidance"),
        ("sed: 1\n", "seed"),
        ("invrt:\n  steps: 1\n", "invert"),
    ],
)
def test_an_unknown_key_comes_with_what_was_meant(errors, key, meant):
    [line] = errors(key)
    assert f"unknown key (did you mean {meant}?)" in line


def test_an_unknown_key_that_is_like_nothing_comes_without_advice(errors):
    assert errors("zzzzqqqq: 1\n") == ["line 1: zzzzqqqq: unknown key"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\nseed: 2\n", "line 2: seed: given twice (first on line 1)"),
        ("invert:\n  steps: 1\n  steps: 1\n", "line 3: invert.steps: given twice (first on line 2)"),
        ("invert: &a\n  steps: 1\n", "line 1: the anchor &a is not allowed"),
        ("seed: !!int 3\n", "line 1: the tag tag:yaml.org,2002:int is not allowed"),
        (
            "seed: !!python/object/apply:os.system [true]\n",
            "line 1: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        ("seed: 1\n---\nseed: 2\n", "holds several documents (---); there must be one"),
        ("- a\n- b\n", "line 1: must be a mapping of groups such as invert: and model:"),
        ("? [a]\n: 1\n", "line 1: a key must be a plain word"),
        ("seed: " + "[" * 20 + "]" * 20 + "\n", "line 1: nested deeper than 8 levels"),
        ("x: " + "y" * 64_001, "larger than 64 kB, which no ci.yaml needs"),
    ],
)
def test_what_yaml_allows_and_a_config_does_not_need_is_refused(errors, text, line):
    assert errors(text) == [line]


def test_an_alias_is_refused_with_the_way_to_quote_a_text(errors):
    found = errors("preview:\n  prompt: *S\n")
    assert found == ["line 2: the alias *S is not allowed (quote a text that starts with *)"]


@pytest.mark.parametrize(
    ("text", "line"), [("seed: [1\n", 2), ("a: b: c\n", 1), ("seed: 1\n\tx: 2\n", 2), ("seed: \x00\n", None)]
)
def test_broken_yaml_is_refused_with_its_line(errors, text, line):
    [found] = errors(text)
    assert found.startswith(f"line {line}: not valid YAML" if line else "not valid YAML")


def test_a_tab_is_called_a_tab(errors):
    assert errors("invert:\n\tsteps: 2\n") == ["line 2: not valid YAML: a tab, where YAML indents by spaces"]


@pytest.mark.parametrize(
    "lines", [("invert:", "   steps: 2", "  x: 3"), ("invert:", "  steps 2", "  x: 3"), ("preview:", "  x: 3", "  prompt: S*: a")]
)
def test_what_does_not_fit_the_lines_above_is_said_in_words_of_the_file(errors, lines):
    [found] = errors("\n".join(lines))
    assert found.startswith("line 3: not valid YAML: here or above an indentation is wrong, a colon is missing")


def test_utf16_is_called_utf16(errors):
    assert "save it as UTF-8" in errors("seed: 1\n".encode("utf-16-le").decode())[0]


def test_text_that_is_not_utf8_is_refused(load):
    with pytest.raises(UsageError, match="not UTF-8 text"):
        load(b"seed: 1 # caf\xe9\n")


def test_a_missing_file_is_a_matter_of_state(tmp_path):
    with pytest.raises(StateError, match="is missing"):
        load_config(Sources(tmp_path / "ci.yaml"))


# -- scalars ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("5E-4", 5e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("010", "010"),
        ("0x10", "0x10"),
        ("0o7", "0o7"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("NULL", "NULL"),
        ('"5"', "5"),
        ("'on'", "on"),
        ("2026-01-01", "2026-01-01"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("nan", "nan"),
        ("S* in snow", "S* in snow"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    [found] = parse_yaml(f"key: {text}\n").values.values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "nan", "inf", "1e999", "Infinity", "-1e999"])
def test_what_is_no_finite_number_is_refused(errors, text):
    [line] = errors(f"invert:\n  learning_rate: {text}\n")
    assert line.startswith("line 2: invert.learning_rate: ")


@pytest.mark.parametrize("key", ["learning_rate", "contrastive_weight", "temperature"])
def test_infinite_overrides_are_refused_too(errors, key):
    assert errors("", **{f"invert__{key}": float("inf")})
    assert errors("", **{f"invert__{key}": float("nan")})


@pytest.mark.parametrize("text", ["true", '"4"', "4.5", "[4]", "null", "1e1", "9" * 50])
def test_whole_numbers_are_whole_numbers(errors, text):
    assert errors(f"invert:\n  batch_size: {text}\n")[0].startswith("line 2: invert.batch_size: ")


def test_a_whole_number_may_stand_for_a_fraction(load):
    assert load("generate:\n  guidance: 7\n").generate.guidance == 7


# -- overrides --------------------------------------------------------------------------------------


def test_overrides_lie_over_what_was_kept_and_that_over_the_file(tmp_path):
    path = tmp_path / "ci.yaml"
    path.write_text("invert:\n  steps: 1\n  batch_size: 1\nseed: 1\n")
    config = load_config(Sources(path, {"invert.steps": 2, "seed": 2}, {"seed": 3}))
    assert (config.invert.batch_size, config.invert.steps, config.seed) == (1, 2, 3)


def test_the_toyboxs_preset_lies_under_the_file(load):
    preset = load("model:\n  id: toybox\n")
    assert (preset.data.resolution, preset.model.clip) == (64, "toybox")
    assert load("model:\n  id: toybox\ndata:\n  resolution: 128\n").data.resolution == 128


def test_a_model_that_set_names_has_its_preset_and_no_others(tmp_path):
    path = tmp_path / "ci.yaml"
    for written, asked in (("owner/name", "toybox"), ("toybox", "owner/name")):
        path.write_text(f"model:\n  id: {asked}\n")
        plain = load_config(Sources(path))
        path.write_text(f"model:\n  id: {written}\n")
        assert load_config(Sources(path, overrides={"model.id": asked})) == plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", {"seed": 3}),
        ("invert.learning_rate=5e-4", {"invert.learning_rate": 5e-4}),
        ("a.b=c=d", {"a.b": "c=d"}),
        ("preview.prompt=a photo of S*: new", {"preview.prompt": "a photo of S*: new"}),
        ("preview.prompt=*", {"preview.prompt": "*"}),
        ('invert.prompts=["S* A*", "A* S*"]', {"invert.prompts": ["S* A*", "A* S*"]}),
        ("generate.negative=", {"generate.negative": ""}),
        ("model.revision=null", {"model.revision": None}),
    ],
)
def test_set_reads_values_as_the_file_would(text, value):
    assert parse_overrides([text]) == value


@pytest.mark.parametrize("text", ["seed", "=3", " =3", "invert.prompts=[a", 'seed="', "seed={a", "seed=[&a 1]"])
def test_what_set_cannot_read_is_refused(text):
    with pytest.raises(UsageError, match="--set"):
        parse_overrides([text])


def test_what_a_training_kept_and_no_version_knows_any_more_is_not_laid_to_this_command(tmp_path):
    path = tmp_path / "ci.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(UsageError) as caught:
        load_config(Sources(path, kept={"finetune.gone": 1}))
    assert "what a training was given, --set finetune.gone: unknown key" in caught.value.message
    assert "--restart" in caught.value.hint and path.name not in caught.value.message
    with pytest.raises(UsageError) as caught:
        load_config(Sources(path, kept={"finetune.gone": 1}, overrides={"seed": "x"}))
    assert "\n  --set seed: " in caught.value.message and "training was given, --set finetune.gone" in caught.value.message


@pytest.mark.parametrize("key", ["invert", "invert.", ".steps", "a.b.c", "", "nothing", "invert.nothing"])
def test_overrides_of_unknown_keys_are_refused_without_a_line(load, key):
    with pytest.raises(UsageError) as caught:
        load("", **{key: 3})
    assert "  line " not in caught.value.message


def test_merging_leaves_its_arguments_alone():
    under, over = {"a": {"x": 1}, "b": 1}, {"a": {"y": 2}}
    assert merge(under, over) == {"a": {"x": 1, "y": 2}, "b": 1}
    assert (under, over) == ({"a": {"x": 1}, "b": 1}, {"a": {"y": 2}})


# -- anything ---------------------------------------------------------------------------------------

KEYS = st.sampled_from(["seed", "invert", "steps", "prompts", "model", "id", "<<", "", "null", "a b", "ключ"])
VALUES = st.sampled_from(
    ["1", "5e-4", "[a, b]", "{a: 1}", "*x", "&x 1", "!t 1", "'", "|\n  x", "? x", "- 1", "~", "[" * 9, "%", "@", "#"]
)
LINES = st.builds(lambda indent, key, value: f"{' ' * indent}{key}: {value}", st.integers(0, 3), KEYS, VALUES)
TEXTS = st.one_of(st.text(max_size=200), st.lists(LINES, max_size=8).map("\n".join), st.binary(max_size=100))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None, derandomize=True
)
@given(TEXTS)
def test_any_file_is_a_config_or_a_usage_error(tmp_path, text):
    path = tmp_path / "ci.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load_config(Sources(path)), Config)
    except UsageError as error:
        assert error.message.startswith(("ci.yaml: ", str(path)))


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_value_of_set_is_read_or_refused(text):
    try:
        parse_scalar(text)
    except ValueError as error:
        assert str(error)


LISTS = [
    (group, key)
    for group, info in Config.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    for key, field in info.annotation.model_fields.items()
    if get_origin(field.annotation) is list
]


@pytest.mark.parametrize(("group", "key"), LISTS)
def test_one_text_alone_is_a_list_of_one_and_nothing_else_is(load, errors, group, key):
    one = {"layers": "up_blocks.1", "to": "tensorboard", "prompts": "S* A*" if group == "invert" else "a S*"}.get(key, "S*")
    assert getattr(getattr(load(f"{group}:\n  {key}: {one!r}\n"), group), key) == [one]
    assert load("", **{f"{group}__{key}": one}) == load("", **{f"{group}__{key}": [one]})
    for wrong in ('""', "3", "true", "{a: b}"):
        [line] = errors(f"{group}:\n  {key}: {wrong}\n")
        assert f"line 2: {group}.{key}" in line


def test_one_text_that_is_wrong_in_itself_is_named(errors):
    [line] = errors("", invert__prompts="a photo of a dog")
    assert "invert.prompts" in line and "S*" in line


@pytest.mark.parametrize("wrong", ["up,down", "up", "up_blocks,down_blocks", ["up_blocks", "middle"], "up_blocks1"])
def test_layers_that_no_base_model_has_are_refused_before_one_is_loaded(errors, wrong):
    [line] = errors("", finetune__layers=wrong)
    named = wrong if isinstance(wrong, str) else wrong[-1]
    assert f"--set finetune.layers: {named!r} must be" in line and "down_blocks, mid_block, up_blocks" in line


@pytest.mark.parametrize("layers", [["up_blocks"], ["mid_block", "up_blocks.1.attentions.0"], ["up_blocks", "down_blocks"]])
def test_layers_may_be_parts_of_a_unet_in_any_order(load, layers):
    assert load("", finetune__layers=layers).finetune.layers == layers


@pytest.mark.parametrize(
    "key",
    [f"{group}.{name}" for group, info in Config.model_fields.items() if hasattr(info.annotation, "model_fields")
     for name, one in info.annotation.model_fields.items() if any(getattr(rule, "pattern", None) for rule in one.metadata)],
)  # fmt: skip
def test_what_a_text_must_look_like_is_said_in_words(errors, key):
    [line] = errors("", **{key.replace(".", "__"): "No Such!"})
    assert f"{key}: must be" in line and "^" not in line

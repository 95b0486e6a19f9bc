"""Defaults against the paper, and the file that init writes."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from cictl.config import METHODS, Config, Sources, commented_yaml, group_of, initial_config, load_config, trajectory

PAPER = {
    "invert.steps": 2000, "invert.learning_rate": 5e-4, "invert.weight_decay": 0.01, "invert.batch_size": 4,
    "data.resolution": 512,
    "invert.prompts": ["A photo of S* A*"], "finetune.steps": 150, "finetune.learning_rate": 5e-6, "generate.steps": 50,
    "generate.guidance": 5.0, "generate.sampler": "ddim", "generate.count": 4, "concept.vectors": 1,
    "model.id": "stable-diffusion-v1-5/stable-diffusion-v1-5", "model.clip": "openai/clip-vit-large-patch14",
    "invert.contrastive_weight": 1.0, "invert.temperature": 1.0,
    "textual_inversion.steps": 3000, "textual_inversion.learning_rate": 5e-4, "dreambooth.steps": 150,
    "dreambooth.learning_rate": 5e-6, "custom_diffusion.steps": 300, "custom_diffusion.learning_rate": 1e-4,
    "disenbooth.steps": 2000, "disenbooth.learning_rate": 1e-4, "disenbooth.batch_size": 1, "disenbooth.rank": 4,
    "disenbooth.weak_weight": 0.01, "disenbooth.contrast_weight": 0.001, "dreambooth.prior_weight": 0.0,
    "dreambooth.identifier": "sks", "custom_diffusion.prior_weight": 1.0, "custom_diffusion.class_pictures": 200,
    "custom_diffusion.start": "ktn",
}  # fmt: skip
MODELS = [None, "toybox", "owner/name", "/a folder/with: odd #characters"]


def value(config: Config, key: str):
    for part in key.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("key", PAPER)
def test_defaults_are_the_papers(key):
    assert value(Config(), key) == PAPER[key]
    assert type(value(Config(), key)) is type(PAPER[key])


@pytest.mark.parametrize("kind", ["object", "style", "pose"])
@pytest.mark.parametrize("model", MODELS)
def test_the_file_that_init_writes_reads_back_as_the_same_config(tmp_path, kind, model):
    config = initial_config(name="my-teapot", kind=kind, model=model)
    path = tmp_path / "ci.yaml"
    path.write_text(commented_yaml(config), "utf-8")
    assert load_config(Sources(path)) == config
    assert config.concept.kind == kind
    assert config.model.id == (model or Config().model.id)


@pytest.mark.parametrize("kind", ["style", "pose"])
def test_the_toybox_is_asked_in_its_own_language(kind):
    """Its captions know no "in the style of", so that nothing could be learned from such a prompt."""
    others, own = (" ".join(initial_config(name="x", kind=kind, model=model).invert.prompts) for model in (None, "toybox"))
    assert f"in the {kind} of" in others
    assert f"in the {kind} of" not in own


@pytest.mark.parametrize(
    "text",
    [
        "on",
        "null",
        "5e-4",
        "010",
        "*star",
        "&and",
        "- dash",
        "a: b",
        "#x",
        " padded ",
        '"',
        "\\",
        "é ☕",
        "true",
        "[a]",
        "~",
        "'",
    ],
)
def test_any_text_survives_writing_and_reading(tmp_path, text):
    config = Config.model_validate({"generate": {"negative": text}, "preview": {"prompt": text}, "model": {"revision": text}})
    path = tmp_path / "ci.yaml"
    path.write_text(commented_yaml(config), "utf-8")
    assert load_config(Sources(path)) == config


@pytest.mark.parametrize("number", [5e-4, 5e-06, 1e-300, 10.0, 0.1 + 0.2, 1.0])
def test_any_number_survives_writing_and_reading(tmp_path, number):
    config = Config.model_validate({"invert": {"learning_rate": number}})
    path = tmp_path / "ci.yaml"
    path.write_text(commented_yaml(config), "utf-8")
    assert load_config(Sources(path)).invert.learning_rate == number


def test_every_field_says_what_it_is_and_what_the_paper_has():
    def fields(schema: type[BaseModel]):
        for name, info in schema.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                yield from fields(info.annotation)
            else:
                yield name, info

    found = list(fields(Config))
    assert len(found) > 35
    for name, info in found:
        assert info.description.endswith("."), name
        assert info.json_schema_extra["paper"], name


def test_the_file_that_init_writes_names_every_field_once_with_its_comment():
    text = commented_yaml(Config())
    for group in Config.model_fields:
        schema = getattr(Config(), group)
        if isinstance(schema, BaseModel) and group not in map(group_of, METHODS):
            part = text.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
            for key in type(schema).model_fields:
                assert part.count(f"\n  {key}: ") + part.startswith(f"  {key}: ") == 1, key
    assert "Paper: 2000." in text
    assert max(map(len, text.splitlines())) <= 130


@pytest.mark.parametrize("model", ["owner/name", "toybox"])
def test_the_other_methods_are_written_only_where_they_were_changed(tmp_path, model):
    plain = initial_config(name="my-teapot", model=model)
    text = commented_yaml(plain)
    assert not any(f"\n{group_of(method)}:" in text for method in METHODS)
    changed = Config.model_validate({**plain.model_dump(), "dreambooth": {"steps": 7}})
    path = tmp_path / "ci.yaml"
    path.write_text(commented_yaml(changed), "utf-8")
    assert "\ndreambooth:\n" in path.read_text("utf-8") and "\ndisenbooth:" not in path.read_text("utf-8")
    assert load_config(Sources(path)) == changed


@pytest.mark.parametrize("method", METHODS)
def test_the_fingerprint_of_another_method_holds_its_own_settings_and_the_noun(method):
    fields = trajectory(Config(), method)
    groups = {key.partition(".")[0] for key in fields}
    assert groups - {"concept"} == {"seed", "model", "data", "evaluate", group_of(method)}
    assert {"evaluate.noun", f"{group_of(method)}.learning_rate"} <= set(fields)
    assert not {"concept.vectors", f"{group_of(method)}.steps"} & set(fields)


@pytest.mark.parametrize(
    ("key", "readers"),
    [
        ("concept.kind", ["textual-inversion"]),
        ("concept.start", ["invert", "finetune", "textual-inversion"]),
        ("concept.name", ["invert", "finetune", "textual-inversion", "custom-diffusion"]),
        ("model.clip", ["invert", "finetune", "disenbooth"]),
        ("data.resolution", ["invert", "finetune", *METHODS]),
        ("invert.learning_rate", ["invert", "finetune"]),
        ("dreambooth.prompt", ["dreambooth"]),
        ("evaluate.noun", list(METHODS)),
    ],
)
def test_a_change_of_what_a_training_does_not_read_leaves_it_whole(key, readers):
    """Whoever sets S*'s start anew must not be told that his DreamBooth, which has no such thing, has to be trained again."""
    assert [stage for stage in ("invert", "finetune", *METHODS) if key in trajectory(Config(), stage)] == readers


def test_a_config_cannot_be_changed_after_it_was_checked():
    with pytest.raises(ValueError, match="frozen"):
        Config().invert.steps = 3


def test_the_fingerprint_holds_what_shapes_a_stage_and_nothing_else():
    invert, finetune = trajectory(Config(), "invert"), trajectory(Config(), "finetune")
    assert {"seed", "invert.learning_rate", "data.resolution", "concept.vectors", "model.id", "model.dtype"} <= set(invert)
    assert invert.items() <= finetune.items()
    assert {key.partition(".")[0] for key in set(finetune) - set(invert)} == {"finetune"}
    for key in ("invert.steps", "finetune.steps", "model.device"):
        assert key not in finetune
    assert not {key for key in finetune if key.startswith(("generate.", "checkpoint.", "preview.", "tracking."))}


def test_every_setting_shapes_what_is_trained_with_it_but_how_long_in_which_parts_and_how_it_is_computed():
    """A field that the fingerprint forgot would let a training go on with another value of it, and nobody would be told."""
    free = {"steps", "accumulation", "stop_every", "stop_window", "stop_ratio"}  # of every training
    computed = {"memory", "cuda_graph", "fused", "deterministic", "device"}  # of the base model
    config = Config()
    for stage in ("invert", "finetune", *METHODS):
        own = group_of(stage)
        shaping = {key.partition(".")[2] for key in trajectory(config, stage) if key.startswith(f"{own}.")}
        assert shaping == type(getattr(config, own)).model_fields.keys() - free
    fields = trajectory(config, "invert")
    assert {key.partition(".")[2] for key in fields if key.startswith("model.")} == type(
        config.model
    ).model_fields.keys() - computed
    assert {key.partition(".")[2] for key in fields if key.startswith("data.")} == type(config.data).model_fields.keys()


@pytest.mark.parametrize(("width", "height"), [(None, None), (384, None), (None, 640), (384, 640)])
def test_a_side_that_nobody_gives_is_the_photographs(width, height):
    config = Config.model_validate({"generate": {"width": width, "height": height}})
    assert config.picture_size == (width or 512, height or 512)

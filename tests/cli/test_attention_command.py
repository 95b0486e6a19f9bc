"""`cictl attention` as it is typed: its sheet, what it is drawn from, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.engine.attention_maps import Probe, maps_of_photograph, maps_of_picture
from cictl.engine.sampling import sample
from cictl.workflow import attention, invert
from cictl.workflow.concept import find_concept
from cictl.workflow.drawing import install
from cictl.workflow.foreseen_pictures import foresee_attention
from tests.support import silent

TILE = 192


def cictl(workspace, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["attention", "-C", str(workspace.root), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def sheets(workspace) -> list[Path]:
    return sorted((workspace.outputs / "attention").glob("*.png"))


def test_the_sheet_holds_photographs_pictures_and_every_token(copy_of_trained):
    code, shown, errors = cictl(copy_of_trained, "a photo of S*", "-n", "2", "--json")
    assert code == 0, errors
    [sheet] = sheets(copy_of_trained)
    result = json.loads(shown.splitlines()[-1])
    assert result["sheet"].endswith(sheet.name) and not result["kept"]
    names = ["photo-0.png", "photo-1.png", "photo-2.png"]
    found = [(share["token"], share["over"]) for share in result["shares"]]
    over_photographs = [("S*", name) for name in names] + [(f"A* ({name})", name) for name in names]
    over_pictures = [(token, f"seed {seed}") for seed in (0, 1) for token in ("S*", *(f"A* ({name})" for name in names))]
    assert found == over_photographs + over_pictures
    assert all(0 < share["mean"] <= share["most"] < 1 for share in result["shares"])
    with Image.open(sheet) as image:
        assert 5 * TILE < image.width < 6 * TILE  # the picture, S*, three A*
        assert 5 * TILE < image.height < 7 * TILE  # photographs, S*, A*, two pictures


def test_the_same_command_again_keeps_the_sheet_and_draws_the_same_bytes(copy_of_trained):
    _, shown, _ = cictl(copy_of_trained, "--json")
    [sheet] = sheets(copy_of_trained)
    content, modified = sheet.read_bytes(), sheet.stat().st_mtime_ns
    code, again, _ = cictl(copy_of_trained, "--json")
    assert code == 0 and sheet.stat().st_mtime_ns == modified
    one, other = (json.loads(text.splitlines()[-1]) for text in (shown, again))
    assert other["kept"] and other["shares"] == one["shares"]
    assert "already done" in cictl(copy_of_trained)[1]
    sheet.write_bytes(content[:-200])  # a damaged one is made again, and to the bit
    cictl(copy_of_trained)
    assert sheet.read_bytes() == content
    cictl(copy_of_trained, "--seed", "1")
    cictl(copy_of_trained, "--stage", "finetune")
    assert len({path.read_bytes() for path in sheets(copy_of_trained)}) == 3


def test_whatever_the_sheet_shows_gives_it_another_name(copy_of_trained):
    def sheet(**overrides: object) -> str:
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return str(foresee_attention(copy_of_trained, None, silent, source="invert", overrides=given).sheet)

    size = {"generate__width": 64, "generate__height": 64}  # of the picture alone, as it is without
    names = [
        sheet(), sheet(data__resolution=128, **size), sheet(invert__prompts=["S* in the snow A*"]), sheet(seed=1),
        sheet(generate__avoid=0.5), sheet(generate__steps=2),
    ]  # fmt: skip
    (copy_of_trained.images / "photo-0.png").rename(copy_of_trained.images / "beach.png")
    names.append(sheet())  # which says over what it is
    assert len(set(names)) == len(names)
    assert sheet(**size) == names[-1]


@pytest.mark.parametrize("source", ["invert", "finetune"])
def test_the_picture_is_the_one_that_is_drawn_without_looking(model, trained, source):
    concept = find_concept(trained, source, silent)
    install(concept, model)
    names = concept.tokens().concept_names
    text = "a photo of " + " ".join(names)
    settings = {"size": (64, 64), "steps": 3, "guidance": 5.0, "sampler": "ddim"}
    with torch.no_grad():
        own, empty = model.encode_text(model.tokenize([text, ""])).split(1)
    plain = sample(model, own, empty, [4], **settings)
    latents, maps = maps_of_picture(model, own, empty, 4, [Probe(text, names)], **settings)
    assert torch.equal(latents, plain)
    assert maps.shape == (1, *plain.shape[-2:])
    assert torch.equal(sample(model, own, empty, [4], **settings), plain)


def test_the_shares_of_all_tokens_of_a_prompt_sum_to_one(model, trained):
    concept = find_concept(trained, "invert", silent)
    install(concept, model)
    tokens = concept.tokens()
    text = " ".join(["dog", *tokens.concept_names, *tokens.auxiliary_names(0)])
    everything = [["<|startoftext|>"], ["dog</w>"], tokens.concept_names, tokens.auxiliary_names(0), ["<|endoftext|>"]]
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = maps_of_photograph(model, latents, 0, "key", [Probe(text, names) for names in everything])
    torch.testing.assert_close(maps.sum(0), torch.ones(16, 16))
    assert (maps.flatten(1).amin(1) > 0).all()


def test_a_map_depends_on_the_photograph_and_the_token(model, trained):
    concept = find_concept(trained, "invert", silent)
    install(concept, model)
    names, auxiliary = concept.tokens().concept_names, concept.tokens().auxiliary_names(1)
    text = " ".join(["a", *names, *auxiliary])
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(1, 4, 16, 16, generator=generator) for _ in range(2))
    probes = [Probe(text, names), Probe(text, auxiliary)]
    first, again, second = (maps_of_photograph(model, latents, 0, "key", probes) for latents in (one, one, other))
    assert torch.equal(first, again)
    assert (first - second).abs().max() > 1e-5
    assert (first[0] - first[1]).abs().max() > 1e-5


def test_without_auxiliary_tokens_there_is_the_concept_alone(make_workspace):
    workspace = make_workspace(invert__auxiliary_vectors=0)
    invert.run(workspace, silent, overrides={"invert.steps": 1})
    outcome = attention.run(workspace, None, silent)
    assert {share.token for share in outcome.shares} == {"S*"}
    with Image.open(sheets(workspace)[0]) as image:
        assert np.asarray(image).std() > 10
        assert 3 * TILE < image.height < 4 * TILE


def test_before_any_training_the_next_command_is_said(make_workspace):
    code, _, errors = cictl(make_workspace())
    assert code == 3
    assert "stage 1 has not been run" in errors and "cictl invert" in errors


def test_other_photographs_have_no_tokens_to_look_for(copy_of_trained):
    (copy_of_trained.images / "photo-0.png").unlink()
    code, _, errors = cictl(copy_of_trained)
    assert (
        code == 3
        and "are not those that stage 1 was trained with" in errors
        and f"cictl invert -C {copy_of_trained.root} --restart" in errors
    )


@pytest.mark.parametrize(("prompt", "said"), [
    ("a photo of a dog", "does not mention S*"),
    ("a photo of s*", "did you mean S* where it says s*?"),
    ("a photo of S* A*", "every A* is asked about anyway"),
    ("a photo of S* in the snow on the beach in the snow on the beach in the snow on", "is too long"),
])  # fmt: skip
def test_a_prompt_that_cannot_be_looked_for_is_refused(trained, prompt, said):
    code, _, errors = cictl(trained, prompt)
    assert code == 2
    assert said in " ".join(errors.split())
    assert "Traceback" not in errors


def test_stage_2_must_have_been_run_to_look_with_it(make_workspace):
    workspace = make_workspace()
    invert.run(workspace, silent, overrides={"invert.steps": 1})
    code, _, errors = cictl(workspace, "--stage", "finetune")
    assert code == 3 and "stage 2 has not been run" in errors

"""A workspace whose model is on the hub stays with the commit that it was trained with."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import pytest

from cictl.errors import Interrupted, StateError
from cictl.events import DownloadProgress, Note, Warned
from cictl.models import hub as hub_module
from cictl.models.locate import base_request, locate_base, locate_clip
from cictl.records import latest_checkpoint
from cictl.workflow import baseline, check, finetune, generate, invert, status
from tests.hub_server import Repository
from tests.models.test_hub import UNET, hub, served  # noqa: F401
from tests.support import Recorder, left_by, silent, write_settings


@pytest.fixture
def workspace(hub, make_workspace):  # noqa: F811
    return make_workspace(model__id="owner/tiny", model__clip="owner/tiny-clip", invert__steps=2, finetune__steps=2)


def recorded(workspace, stage: str = "invert") -> str:
    checkpoint, _ = latest_checkpoint(workspace.stage_folder(stage))
    return checkpoint.manifest["fingerprint"]["fields"]["identity.model"]


def move(repository: Repository, branch: str = "main", weights: str = UNET) -> str:
    """Another commit on ``branch``, with other weights."""
    files = dict(repository.commits[repository.branches["main"]])
    files[weights] = files[weights][:-1] + bytes([files[weights][-1] ^ 1])
    return repository.commit(files, branch)


def test_when_the_branch_moves_the_workspace_stays_and_says_so_until_a_restart(hub, workspace):  # noqa: F811
    repository = hub.repositories["owner/tiny"]
    first = repository.branches["main"]
    invert.run(workspace, silent)
    assert recorded(workspace) == first
    second = move(repository)
    assert locate_base("owner/tiny").identity == second  # another workspace has fetched it meanwhile

    recorder = Recorder()
    invert.run(workspace, recorder, overrides={"invert.steps": 3})
    ((warning,),) = [recorder.texts(Warned)]
    assert f"main has moved on the hub, to commit {second}" in warning
    assert f"stays with {first}" in warning
    finetune.run(workspace, silent)
    assert recorded(workspace, "invert") == recorded(workspace, "finetune") == first
    assert status.run(workspace).problem == ""
    drawn = Recorder()
    generate.run(workspace, ["a photo of S*"], drawn)
    assert any("has moved on the hub" in text for text in drawn.texts(Warned))

    invert.run(workspace, silent, restart=True)
    assert recorded(workspace) == second
    with pytest.raises(StateError, match="changed since"):
        finetune.run(workspace, silent, overrides={"finetune.steps": 3})


def test_a_clip_whose_branch_moves_is_read_at_the_commit_that_the_tokens_were_trained_with(hub, workspace):  # noqa: F811
    def clip(workspace) -> str:
        return latest_checkpoint(workspace.stage_folder("invert"))[0].manifest["fingerprint"]["fields"]["identity.clip"]

    repository = hub.repositories["owner/tiny-clip"]
    first = repository.branches["main"]
    invert.run(workspace, silent)
    second = move(repository, weights="model.safetensors")
    assert locate_clip("owner/tiny-clip").identity == second  # another workspace has fetched it meanwhile
    write_settings(workspace, {"model.clip_revision": "main"})  # as none is
    invert.run(workspace, silent, overrides={"invert.steps": 3})
    assert left_by(workspace, "invert").step == 3 and clip(workspace) == first
    invert.run(workspace, silent, restart=True)
    assert clip(workspace) == second


def test_a_method_that_is_new_begins_with_the_commit_that_stage_1_was_trained_with(hub, workspace):  # noqa: F811
    repository = hub.repositories["owner/tiny"]
    first = repository.branches["main"]
    invert.run(workspace, silent)
    locate_base("owner/tiny", move(repository))
    quick = {"textual_inversion.steps": 1, "evaluate.noun": "dog"}
    baseline.run(workspace, "textual-inversion", silent, overrides=quick)
    assert recorded(workspace, "textual-inversion") == first


def test_a_folder_by_a_models_name_is_taken_for_no_commit_of_it(hub, workspace, base, tmp_path, monkeypatch):  # noqa: F811
    invert.run(workspace, silent)
    move(hub.repositories["owner/tiny"])
    shutil.copytree(base, tmp_path / "elsewhere" / "owner" / "tiny")
    monkeypatch.chdir(tmp_path / "elsewhere")
    recorder = Recorder()
    with pytest.raises(StateError) as caught:
        generate.run(workspace, ["a photo of S*"], recorder)
    assert caught.value.slug == "base-changed" and not recorder.texts(Warned)


def test_a_check_looks_at_the_commits_that_the_workspace_stays_with(hub, workspace):  # noqa: F811
    repository = hub.repositories["owner/tiny"]
    first = repository.branches["main"]
    invert.run(workspace, silent)
    second = move(repository)
    ref = locate_base("owner/tiny", offline=True).folder.parents[1] / "refs" / "main"
    ref.write_text(second)  # as a program leaves it that has begun to fetch it

    report = check.run(workspace, silent)
    assert [one.message for one in report.findings if one.about == "model"] == [f"owner/tiny, {first[:12]}"]
    _, counted = check.expect(workspace, "invert", silent, {"invert.steps": 3}, done=2)
    assert "counted on the model's layers" in counted
    _, counted = check.expect(workspace, "invert", silent, {}, fresh=True)
    assert "the model is not here yet" in counted


def test_the_commit_may_be_written_down_and_other_weights_may_not(hub, workspace):  # noqa: F811
    repository = hub.repositories["owner/tiny"]
    first = repository.branches["main"]
    invert.run(workspace, silent)
    write_settings(workspace, {"model.revision": first})
    invert.run(workspace, silent, overrides={"invert.steps": 3})
    assert left_by(workspace, "invert").step == 3

    repository.branches["other"] = first
    locate_base("owner/tiny", "other")
    second = move(repository, "other")
    write_settings(workspace, {"model.revision": "other"})
    for _ in range(2):  # while this machine thinks that it is the same commit, and when it knows better
        with pytest.raises(StateError) as caught:
            invert.run(workspace, silent, overrides={"invert.steps": 4})
        assert left_by(workspace, "invert").step == 3
    assert f"identity.model: {first} -> {second}" in caught.value.message
    assert f"model.revision {first} is what it was" in caught.value.hint
    with pytest.raises(StateError) as caught:
        finetune.run(workspace, silent)
    assert f"model.revision to {first}" in caught.value.hint


def test_a_signal_ends_a_download_and_the_next_run_goes_on(hub, workspace):  # noqa: F811
    def interrupt(event):
        if isinstance(event, DownloadProgress) and event.file == UNET:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        invert.run(workspace, interrupt)
    assert caught.value.stopped_with == 143
    assert "stopped while downloading" in caught.value.message
    invert.run(workspace, silent)
    assert left_by(workspace, "invert").step == 2


def test_a_first_ctrl_c_ends_the_waiting_for_another_processs_download(hub, workspace, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hub_module, "_SECONDS_BETWEEN_LOOKS", 0.01)
    held, let_go = threading.Event(), threading.Event()
    request = base_request("owner/tiny", None)

    def hold() -> None:
        with hub_module._alone(request, "", [], silent):
            held.set()
            let_go.wait(20)  # then the training would go on, and nothing be raised

    def interrupt(event):
        if isinstance(event, Note) and "waiting" in event.message:
            os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(20)
    try:
        with pytest.raises(Interrupted) as caught:
            invert.run(workspace, interrupt)
    finally:
        let_go.set()
        other.join()
    assert caught.value.stopped_with == 130
    assert hub.fetched() == []
    invert.run(workspace, silent)
    assert left_by(workspace, "invert").step == 2

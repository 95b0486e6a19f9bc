"""What `cictl check` says of a model that is not here yet, and whether the disks have room for all that is to come."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from cictl.engine.speed import Speed
from cictl.events import DownloadProgress, PhaseStarted, ignore
from cictl.models.downloads import foresee_download
from cictl.models.hub import ROOM_TO_SPARE, cache_folder
from cictl.models.locate import base_request, clip_request, locate_base
from cictl.sizes import size_in_words
from cictl.workflow import check, room
from cictl.workflow.findings import CheckReport, Finding
from tests.models.test_hub import hub, served  # noqa: F401
from tests.support import Recorder


@pytest.fixture(autouse=True)
def quick_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e11, 2e-6))


@pytest.fixture
def workspace(hub, make_workspace):  # noqa: F811
    """One whose models are on the hub alone."""
    return make_workspace(model__id="owner/tiny", model__clip="owner/tiny-clip")


def about(report: CheckReport, what: str) -> Finding:
    [finding] = [finding for finding in report.findings if finding.about == what]
    return finding


def test_a_model_on_the_hub_is_asked_for_its_size_and_not_for_its_files(hub, workspace):  # noqa: F811
    report = check.run(workspace, ignore)
    assert report.exit_code == 0
    assert hub.fetched() == [] and not cache_folder().exists()
    base = foresee_download(base_request("owner/tiny", None), ignore).bytes
    clip = foresee_download(clip_request("owner/tiny-clip", None), ignore).bytes
    for what, size in (("model", base), ("CLIP", clip)):
        assert about(report, what).level == "warning"
        assert f"{size_in_words(size)} to download" in about(report, what).message
        assert str(cache_folder()) in about(report, what).hint
    assert f"{size_in_words(base + clip + ROOM_TO_SPARE)} for the download" in about(report, "disk").message
    assert "memory and time are known once the model is there" in about(report, "estimates").message
    assert {estimate.stage for estimate in report.estimates} == {"invert", "finetune"}

    fetched = Recorder()
    locate_base("owner/tiny", observe=fetched)
    assert {event.total for event in fetched.events if isinstance(event, DownloadProgress)} == {base}
    assert foresee_download(base_request("owner/tiny", None), ignore).bytes == 0
    assert about(check.run(workspace, ignore), "model").level == "ok"


def test_a_hub_that_cannot_be_reached_leaves_an_estimate_that_says_so(workspace, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    asked = Recorder()
    report = check.run(workspace, asked)
    assert report.exit_code == 0
    assert "5.1 GiB to download, as Stable Diffusion 1.5 has, since 127.0.0.1:9 cannot be" in about(report, "model").message
    assert "1.6 GiB to download, as CLIP ViT-L/14 has" in about(report, "CLIP").message
    assert len([text for text in asked.texts(PhaseStarted) if "asking" in text]) == 1  # no second wait


def test_a_model_that_cannot_be_had_is_the_error_that_the_training_would_end_with(make_workspace, hub, monkeypatch):  # noqa: F811
    report = check.run(make_workspace(model__id="owner/nobody", model__clip="owner/tiny-clip"), ignore)
    assert about(report, "model").slug == "model-absent-or-private"
    assert report.exit_code == 4 and not report.estimates
    assert "known once the model is there" in about(report, "estimates").message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    report = check.run(make_workspace("offline", model__id="owner/tiny"), ignore)
    assert about(report, "model").slug == "hub-switched-off"


def test_a_clip_that_no_training_reads_is_not_to_be_downloaded(workspace):
    report = check.run(workspace, ignore, overrides={"invert.contrastive_weight": 0})
    assert not [finding for finding in report.findings if finding.about == "CLIP"]


@pytest.mark.parametrize("same", [True, False])
def test_a_full_disk_is_said_with_what_needs_it(workspace, monkeypatch, same):
    monkeypatch.setattr("cictl.workflow.room.shutil.disk_usage", lambda folder: SimpleNamespace(free=2**20))
    if not same:
        monkeypatch.setattr("cictl.workflow.room._disk_of", lambda folder: folder)
    found = [finding for finding in check.run(workspace, ignore).findings if finding.about == "disk"]
    assert [finding.level for finding in found] == ["warning"] * (1 if same else 2)
    assert "for checkpoints and snapshots" in found[0].message
    assert "for the download" in found[-1].message and "HF_HOME" in found[-1].hint


def test_what_the_disk_needs_shrinks_by_what_is_there(make_workspace, trained):
    fresh, more_steps = make_workspace(), {"invert.steps": 20}
    new, begun = (check.run(workspace, ignore, overrides=more_steps).estimates for workspace in (fresh, trained))
    assert [one.checkpoint for one in new] == [one.checkpoint for one in begun]
    assert room._to_write(trained, begun) < room._to_write(fresh, new)
    assert "needed" not in about(check.run(trained, ignore), "disk").message
    more = [dataclasses.replace(one, snapshots=2**30) for one in new]
    assert room._to_write(fresh, more) > room._to_write(fresh, new) + 2**30
    large = [dataclasses.replace(one, checkpoint=size * 2**30, snapshots=0) for one, size in zip(new, (1, 2), strict=True)]
    at_most = 2 * 1 + 2 * 2 + 2  # GiB: each stage keeps two, and a third of the second is written before its first goes
    assert 0 < room._to_write(fresh, large) - at_most * 2**30 < 2**24

"""Models on the hub, from a stand-in for it: what is fetched, what is said, and what goes wrong."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from cictl.errors import ModelAccessError, ResourceError
from cictl.events import DownloadProgress, Note, Warned
from cictl.models import hub as hub_module
from cictl.models import hub_errors, hub_transfer
from cictl.models.locate import locate_base, locate_clip
from cictl.sizes import size_in_words
from tests.hub_server import Hub, Repository, serving
from tests.support import Recorder, silent

CANARY = "hf_canaryCanaryCanaryCanaryCanary01"
UNET = "unet/diffusion_pytorch_model.safetensors"
READ = {
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "tokenizer/merges.txt", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json",
    "unet/config.json", UNET, "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(base: Path) -> Iterator[Hub]:
    with serving(Hub()) as hub:
        hub.add("owner/tiny", base, without=("clip/",))
        hub.add("owner/tiny-clip", base / "clip")
        files = hub.repositories["owner/tiny"].commits[hub.repositories["owner/tiny"].branches["main"]]
        files |= {  # what is never read
            "unet/diffusion_pytorch_model.bin": b"pickle", "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
            "watermark/model.safetensors": b"no", "tokenizer/extra.pkl": b"pickle", "README.md": b"words",
        }  # fmt: skip
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, an empty cache, and the hub's library made to use both in this process."""
    served.reset()
    kept = {name: (dict(one.commits), dict(one.branches)) for name, one in served.repositories.items()}
    use(served.hub, tmp_path, monkeypatch)
    yield served
    served.repositories.clear()
    served.repositories.update({name: Repository(*both) for name, both in kept.items()})


def use(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub_transfer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(hub_transfer, "_SECONDS_BETWEEN_EVENTS", 0.0)


def refused(model: str = "owner/tiny", revision: str | None = None) -> ModelAccessError:
    with pytest.raises(ModelAccessError) as caught:
        locate_base(model, revision)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    return caught.value


def progress(recorder: Recorder) -> list[DownloadProgress]:
    return [event for event in recorder.events if isinstance(event, DownloadProgress)]


def test_a_name_becomes_a_commit_and_only_what_is_read_is_fetched(hub, base):
    recorder = Recorder()
    located = locate_base("owner/tiny", observe=recorder)
    assert located.identity == hub.repositories["owner/tiny"].branches["main"]
    assert {path.relative_to(located.folder).as_posix() for path in located.folder.rglob("*") if path.is_file()} == READ
    assert sorted(hub.fetched()) == sorted(READ)
    assert (located.folder / UNET).read_bytes() == (base / UNET).read_bytes()


def test_the_total_is_known_before_the_first_byte_is_asked_for(hub):
    asked_before = []
    recorder = Recorder()

    def observe(event):
        recorder(event)
        if isinstance(event, DownloadProgress):
            asked_before.append(len(hub.fetched()))

    folder = locate_base("owner/tiny", observe=observe).folder
    events = progress(recorder)
    assert asked_before[0] == 0
    assert {event.total for event in events} == {sum((folder / name).stat().st_size for name in READ)}
    assert events[0].done == 0
    assert events[-1].done == events[-1].total
    assert sum(event.done == event.total for event in events) == 1  # only when the bytes have been verified
    assert [event.done for event in events] == sorted(event.done for event in events)
    clip = Recorder()
    folder = locate_clip("owner/tiny-clip", observe=clip).folder
    assert progress(clip)[0].total == sum(path.stat().st_size for path in folder.iterdir())


def test_a_commit_that_is_here_is_not_asked_for_and_nothing_is_shown(hub):
    commit = locate_base("owner/tiny").identity
    hub.asked.clear()
    recorder = Recorder()
    assert locate_base("owner/tiny", commit, observe=recorder).identity == commit
    assert hub.asked == []
    assert recorder.events == []


def test_a_branch_that_is_here_is_asked_for_but_nothing_is_fetched(hub):
    locate_base("owner/tiny")
    hub.asked.clear()
    recorder = Recorder()
    locate_base("owner/tiny", observe=recorder)
    assert len(hub.asked) == 1
    assert progress(recorder) == []


def test_files_that_a_new_commit_shares_with_an_old_one_are_not_fetched_again(hub):
    old = locate_base("owner/tiny")
    files = dict(hub.repositories["owner/tiny"].commits[old.identity])
    new = hub.repositories["owner/tiny"].commit(files | {"unet/config.json": files["unet/config.json"] + b"\n"})
    hub.asked.clear()
    located = locate_base("owner/tiny")
    assert located.identity == new != old.identity
    assert hub.fetched() == ["unet/config.json"]
    assert (located.folder / UNET).read_bytes() == (old.folder / UNET).read_bytes()


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_cut_connection_is_told_and_the_next_run_goes_on(hub, base, ranges):
    size = (base / UNET).stat().st_size
    hub.cut, hub.cuts, hub.knows_ranges = {UNET: size // 3}, 1, ranges
    end_at_the_cut(hub)
    assert hub_module.snapshot_on_disk(hub_request()) is None
    hub.asked.clear()
    second = Recorder()
    located = locate_base("owner/tiny", observe=second)
    ((note,),) = [second.texts(Note)]
    assert f"owner/tiny: going on with what is there, {len(READ) - 1} of {len(READ)} files" in note
    sent = [asked.headers.get("range") for asked in hub.asked if asked.server == "cdn" and asked.method == "GET"]
    assert len(sent) == 1
    assert sent[0] is not None and int(re.sub(r"\D", "", sent[0])) > 0
    assert (located.folder / UNET).read_bytes() == (base / UNET).read_bytes()
    assert progress(second)[-1].done == progress(second)[-1].total


def end_at_the_cut(hub) -> None:
    """As a kill would, with a part of the file there."""

    def stop(event):
        if isinstance(event, DownloadProgress) and hub.cuts == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate_base("owner/tiny", observe=stop)


def test_as_much_as_is_said_comes_and_has_to_find_room(hub, base, monkeypatch):
    """Before anything is here, where a part of it is, and where another commit has the same files."""
    room = SimpleNamespace(free=0)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: room)

    def fetched() -> int:
        foreseen, recorder = hub_module.to_download(hub_request(), silent), Recorder()
        room.free = foreseen + hub_module.ROOM_TO_SPARE - 1
        needed, free = size_in_words(room.free + 1), size_in_words(room.free)
        with pytest.raises(ResourceError, match=f"needs {needed}, 256 MiB of it to stay free, and the disk .* has {free}$"):
            locate_base("owner/tiny")
        assert hub.fetched() == []
        room.free += 1
        locate_base("owner/tiny", observe=recorder)
        assert progress(recorder)[-1].total - progress(recorder)[0].done == foreseen
        return foreseen

    whole = sum((base / name).stat().st_size for name in READ)
    assert hub_module.to_download(hub_request(), silent) == whole
    room.free, hub.cut, hub.cuts = 2**60, {UNET: (base / UNET).stat().st_size // 3}, 1
    end_at_the_cut(hub)
    hub.asked.clear()
    here = sum(path.stat().st_size for path in Path(constants.HF_HUB_CACHE).glob("*/blobs/*"))
    assert 0 < fetched() == whole - here
    repository = hub.repositories["owner/tiny"]
    files = repository.commits[repository.branches["main"]]
    repository.commit(files | {"unet/config.json": (config := files["unet/config.json"] + b"\n")})
    hub.asked.clear()
    assert fetched() == len(config)


def hub_request():
    from cictl.models.locate import base_request

    return base_request("owner/tiny", None)


def test_who_waits_for_another_processs_download_is_told_how_far_it_is_and_fetches_nothing_again(hub, monkeypatch):
    monkeypatch.setattr(hub_module, "_SECONDS_BETWEEN_LOOKS", 0.01)
    recorder, waiting = Recorder(), threading.Event()

    def observe(event):
        recorder(event)
        if isinstance(event, DownloadProgress):
            waiting.set()

    request = hub_request()
    commit, files = hub_module.listing(request)
    with hub_module._alone(request, commit, files, silent):
        other = threading.Thread(target=locate_base, args=("owner/tiny",), kwargs={"observe": observe})
        other.start()
        assert waiting.wait(30)
        assert "waiting" in recorder.texts(Note)[0] and hub.fetched() == []
        hub_module._fetch_files(request, commit, files, silent, lambda folder: None)
    other.join(30)
    assert sorted(hub.fetched()) == sorted(READ)
    events = progress(recorder)
    assert events[0].done == 0 and events[-1].done == events[-1].total == sum(file.size for file in files)
    assert sum(event.done == event.total for event in events) == 1  # a panel closes a download at its end, and no earlier
    alone = Recorder()
    locate_base("owner/tiny", observe=alone)
    assert not any(isinstance(event, Note) for event in alone.events)


def test_a_connection_that_is_cut_now_and_then_is_taken_up_again_within_the_run(hub, base):
    """Nobody gives up as long as bytes come, however often it is."""
    hub.cut = {UNET: (base / UNET).stat().st_size // 12 + 1}
    located = locate_base("owner/tiny")
    assert (located.folder / UNET).read_bytes() == (base / UNET).read_bytes()
    assert sum(asked.server == "cdn" and "unet" in asked.path and asked.method == "GET" for asked in hub.asked) == 12


def test_a_connection_that_stays_cut_says_where_and_that_the_same_command_goes_on(hub, base):
    hub.cut = {UNET: 0}
    error = refused()
    assert f"cut while fetching {UNET} of owner/tiny, after 0 of {(base / UNET).stat().st_size:,} bytes" in error.message
    assert "same command again: it goes on" in error.hint
    assert hub_module.snapshot_on_disk(hub_request()) is None
    hub.cut = {}
    hub.asked.clear()
    recorder = Recorder()
    locate_base("owner/tiny", observe=recorder)
    assert hub.fetched() == [UNET]
    assert f"{len(READ) - 1} of {len(READ)} files" in recorder.texts(Note)[0]


def test_a_file_that_arrives_other_than_listed_is_refused_and_deleted(hub):
    hub.spoil = {UNET}
    error = refused()
    assert f"{UNET} of owner/tiny arrived damaged" in error.message
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    hub.spoil = set()
    locate_base("owner/tiny")


def test_a_file_that_does_not_end_where_it_should_is_refused_and_not_gone_on_with(hub, base):
    hub.longer = {UNET}
    assert f"{UNET} of owner/tiny arrived damaged" in refused().message
    hub.longer = set()
    assert (locate_base("owner/tiny").folder / UNET).read_bytes() == (base / UNET).read_bytes()


GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model owner/tiny is restricted."}
REFUSALS = {
    "gated": (403, GATED, "is gated", "accept them at https://huggingface.co/owner/tiny, then: hf auth login"),
    "private": (401, {"X-Error-Code": "RepoNotFound"}, "does not exist on 127.0.0.1", "hf auth login"),
    "absent": (404, {"X-Error-Code": "RepoNotFound"}, "or is private", "check the spelling of model.id"),
    "bare 404": (404, {}, "does not exist", "check the spelling of model.id"),
    "bad token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "your access token", "hf auth login"),
    "forbidden": (403, {}, "forbids access", "then: hf auth login"),
    "rate": (429, {"Retry-After": "37"}, "too many requests", "in 37 seconds"),
    "long rate": (429, {"Retry-After": "301"}, "too many requests", "in 6 minutes"),
    "rate without": (429, {}, "too many requests", "in a few minutes"),
    "500": (500, {}, "a problem of its own (500)", "in a few minutes"),
    "503": (503, {"Retry-After": "3"}, "a problem of its own (503)", "in a few minutes"),
}


@pytest.mark.parametrize(("status", "headers", "message", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_has_its_own_words(hub, status, headers, message, hint):
    hub.refuse = {"owner/tiny": (status, headers)}
    error = refused()
    assert message in error.message
    assert "owner/tiny" in error.message
    assert hint in error.hint


def test_whose_token_was_sent_is_not_told_to_log_in_but_to_look_whose_it_is(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    hub.refuse["owner/tiny"] = (403, GATED)
    assert "hf auth whoami" in refused().hint


def test_a_tokenizer_may_be_of_one_file_or_of_several(hub, base):
    repository = hub.repositories["owner/tiny"]
    files = repository.commits[repository.branches["main"]]
    for name in ("vocab.json", "merges.txt"):
        files = {key: content for key, content in files.items() if key != f"tokenizer/{name}"}
    commit = repository.commit(files)
    assert locate_base("owner/tiny").identity == commit
    repository.commit({key: content for key, content in files.items() if not key.startswith("tokenizer/")})
    assert "has no tokenizer/*" in refused().message


def test_an_unknown_repository_is_absent_or_private(hub):
    assert "owner/nothing does not exist on 127.0.0.1" in refused("owner/nothing").message


def test_a_missing_revision_names_the_key_to_correct(hub):
    error = refused(revision="v2")
    assert "owner/tiny has no revision v2" in error.message
    assert "model.revision" in error.hint
    with pytest.raises(ModelAccessError) as caught:
        locate_clip("owner/tiny-clip", "v3")
    assert "model.clip_revision" in caught.value.hint


def test_with_the_hub_switched_off_the_message_says_so(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused()
    assert "switched off (HF_HUB_OFFLINE)" in error.message
    assert "unset HF_HUB_OFFLINE" in error.hint
    assert hub.asked == []


def test_a_hub_that_refuses_connections(hub, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    use(f"http://127.0.0.1:{port}", tmp_path, monkeypatch)
    error = refused()
    assert f"the hub at 127.0.0.1:{port} cannot be reached: it refuses connections" in error.message
    assert "HF_ENDPOINT" in error.hint


def test_a_hub_whose_name_is_not_known(hub, tmp_path, monkeypatch):
    use("http://nowhere.invalid", tmp_path, monkeypatch)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *a, **k: (_ for _ in ()).throw(socket.gaierror(-2, "Name or service not known"))
    )
    assert "the hub at nowhere.invalid cannot be reached: its name is not known to the network (DNS)" in refused().message


def test_a_hub_whose_certificate_is_not_accepted(hub, tmp_path, monkeypatch):
    use("https://nowhere.invalid", tmp_path, monkeypatch)
    wrong = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: (_ for _ in ()).throw(wrong))
    assert "the hub at nowhere.invalid cannot be reached: its certificate is not accepted (" in refused().message


def test_a_network_that_answers_in_the_hubs_place(hub):
    hub.refuse["owner/tiny"] = (200, {"Content-Type": "text/html"})
    assert "cannot be reached: what answers there is no hub" in refused().message


def test_a_hub_that_does_not_answer(hub, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        assert "it did not answer in time" in refused().message


@pytest.mark.parametrize("refusal", [(503, {}), (403, GATED)], ids=["503", "gated"])
def test_what_was_fetched_before_is_used_when_the_hub_fails_and_a_warning_says_so(hub, refusal):
    commit = locate_base("owner/tiny").identity
    hub.refuse = {"owner/tiny": refusal}
    recorder = Recorder()
    assert locate_base("owner/tiny", observe=recorder).identity == commit
    assert f"going on with commit {commit}, which main was before" in recorder.texts(Warned)[0]


def test_a_repository_of_pickles_is_refused_with_what_to_do(hub):
    files = next(iter(hub.repositories["owner/tiny"].commits.values()))
    kept = {name: content for name, content in files.items() if not name.endswith(".safetensors")}
    hub.repositories["owner/pickles"] = Repository()
    hub.repositories["owner/pickles"].commit(kept)
    error = refused("owner/pickles")
    assert "only safetensors is read" in error.message
    assert "unet/diffusion_pytorch_model.bin" in error.message
    assert "https://huggingface.co/spaces/safetensors/convert" in error.hint
    hub.repositories["owner/half"] = Repository()
    hub.repositories["owner/half"].commit({k: v for k, v in files.items() if k != UNET and not k.endswith(".bin")})
    assert "other variants (unet/diffusion_pytorch_model.fp16.safetensors)" in refused("owner/half").message
    assert hub.fetched() == []


def test_another_kind_of_model_is_refused_before_its_weights_are_fetched(hub):
    files = dict(next(iter(hub.repositories["owner/tiny"].commits.values())))
    config = {**json.loads(files["unet/config.json"]), "addition_embed_type": "text_time"}
    hub.repositories["owner/xl"] = Repository()
    large = json.dumps(config).encode() + b" " * max(map(len, files.values()))  # larger than any of the weights
    hub.repositories["owner/xl"].commit({**files, "unet/config.json": large})
    assert "it is Stable Diffusion XL" in refused("owner/xl").message
    assert hub.fetched() and not any(name.endswith(".safetensors") for name in hub.fetched())


@pytest.mark.parametrize(("name", "left", "said"), [(UNET, 4000, "is not whole"), ("unet/config.json", 40, "cannot be read as")])
def test_a_file_that_another_program_left_cut_off_in_the_cache_is_named_and_fetched_anew_once_it_is_deleted(
    hub, base, name, left, said
):
    located = locate_base("owner/tiny")
    blob = (located.folder / name).resolve()
    blob.write_bytes(blob.read_bytes()[:left])
    error = refused("owner/tiny", located.identity)
    assert f"{blob} {said}" in error.message and f"delete {blob}, then" in error.hint
    blob.unlink()
    assert (locate_base("owner/tiny", located.identity).folder / name).read_bytes() == (base / name).read_bytes()


def test_a_whole_model_in_a_cache_that_may_only_be_read_is_used(hub, monkeypatch):
    commit = locate_base("owner/tiny").identity
    storage = Path(constants.HF_HUB_CACHE) / "models--owner--tiny"
    (storage / "refs" / "main").unlink()

    def forbidden(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    monkeypatch.setattr(hub_module, "write_atomic", forbidden)
    assert locate_base("owner/tiny").identity == commit


def test_what_is_no_model_is_refused_before_anything_is_fetched(hub):
    hub.repositories["owner/words"] = Repository()
    hub.repositories["owner/words"].commit({"README.md": b"words"})
    assert "is not a model in diffusers layout" in refused("owner/words").message
    assert "no id that the hub could have" in refused("owner/a b").message


def test_a_hub_that_names_a_path_for_a_hash_is_refused(hub, monkeypatch):
    monkeypatch.setattr("tests.hub_server._git", lambda content: "../../../evil")
    assert "does not say" in refused().message


def test_the_token_goes_to_the_hub_and_not_to_its_storage_nor_into_messages(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    locate_base("owner/tiny")
    assert (hub.tokens("hub"), hub.tokens("cdn")) == ({f"Bearer {CANARY}"}, {None})
    hub.refuse = {"owner/other": (418, {"Echo": "1"}), "owner/tiny-clip": (403, {"Echo": "1"})}
    for model in ("owner/other", "owner/tiny-clip"):
        error = refused(model)
        assert "you sent Bearer <token>" in error.message
        assert CANARY not in error.message + error.hint
    monkeypatch.setenv("HF_TOKEN", f"{CANARY}é")  # which cannot be sent
    error = refused("owner/tiny-clip")
    assert "your access token holds a character" in error.message
    assert CANARY not in error.message + error.hint


def test_what_the_library_warns_of_is_told_without_the_token_or_a_signed_address(monkeypatch):
    recorder = Recorder()
    monkeypatch.setenv("HF_TOKEN", CANARY)
    with hub_errors.library_warnings(recorder):
        logging.getLogger("huggingface_hub.utils._http").warning("%s at https://x/y?X-Signature=s3cret\nagain", CANARY)
    assert recorder.texts(Warned) == ["<token> at https://x/y again"]


def cictl(hub: Hub, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "cictl", *arguments], capture_output=True, text=True, check=False,
        env={**inherited, "PYTHONPATH": root, "HF_ENDPOINT": hub.hub, "HF_HOME": str(home), "HF_TOKEN": CANARY, **environment},
    )  # fmt: skip


QUICK = (
    "model.clip=owner/tiny-clip", "data.resolution=64", "invert.steps=2", "invert.auxiliary_vectors=2", "generate.steps=2",
    "generate.count=1", "model.device=cpu",
)  # fmt: skip


def test_from_an_empty_cache_to_a_picture_with_the_hub_then_without_it(base, photographs, tmp_path):
    home, root = tmp_path / "home", tmp_path / "my-teapot"
    settings = [f"--set={setting}" for setting in QUICK]
    said = []

    def run(*arguments: str, code: int = 0) -> str:
        done = cictl(hub, home, *arguments)
        said.append(done.stdout + done.stderr)
        assert done.returncode == code, said[-1]
        return said[-1]

    with serving(Hub()) as hub:
        commit = hub.add("owner/tiny", base, without=("clip/",))
        clip_commit = hub.add("owner/tiny-clip", base / "clip")
        run("init", str(root), "--model", "owner/tiny", "--images", *map(str, photographs))
        hub.refuse = {"owner/tiny": (418, {"Echo": "1"})}
        output = run("invert", "-C", str(root), "-vv", "--debug", *settings, code=4)
        assert "(418: you sent Bearer <token>)" in output
        hub.refuse = {}
        output = run("invert", "-C", str(root), "-vv", "--debug", *settings)
        assert "fetching owner/tiny  0 B/" in output
        assert "fetching owner/tiny-clip  0 B/" in output
        manifest = next(root.glob("checkpoints/invert/step-0000002/manifest.json"))
        fields = json.loads(manifest.read_text())["fingerprint"]["fields"]
        assert (fields["identity.model"], fields["identity.clip"]) == (commit, clip_commit)
        assert hub.tokens("hub") == {f"Bearer {CANARY}"}

    assert "fetching" not in run("invert", "-C", str(root), "--set=invert.steps=3")
    run("generate", "-C", str(root), "a photo of S*")
    assert list(root.glob("outputs/*.png"))
    assert CANARY not in "".join(said)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".png", ".yaml", ".jsonl", ".json", ".safetensors"}
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]

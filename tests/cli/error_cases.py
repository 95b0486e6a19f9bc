"""The ways to every error of cictl, and the errors that have none; see :mod:`tests.cli.catalogue`."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from PIL import Image
from safetensors.torch import load_file, save_file

from cictl.processes import join
from cictl.records import RESULT, checkpoint_folders
from cictl.workflow import baseline, export, invert
from tests.cli.catalogue import NAME, Case, Place, Prepare, stopped_at_once
from tests.evaluation_models import make_clip
from tests.hub_server import Repository
from tests.models.ldm import write_ldm
from tests.support import quick, silent, write_settings

UNET = "unet/diffusion_pytorch_model.safetensors"
_INVERT_ON = "cictl invert --set model.id={}"
_MEASURE = "cictl evaluate --prompts prompts.txt -n 1 --set evaluate.dinov2=null --set evaluate.clip=./clip"
_LAST_NORM = "model.diffusion_model.out.0.bias"

# -- what cases have in common --------------------------------------------------------------------------


def nothing(place: Place) -> None:
    """An empty folder."""


def as_module(place: Place) -> None:
    """Typed as ``python -m cictl``."""
    place.patch("sys.argv", ["cictl/__main__.py"])


def new(place: Place) -> None:
    place.workspace()


def with_file(name: str, content: bytes | str = "") -> Prepare:
    """A workspace, and beside it a file."""

    def prepare(place: Place) -> None:
        place.workspace()
        (place.home / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def settings(text: str) -> Prepare:
    """A workspace whose ci.yaml is ``text``."""

    def prepare(place: Place) -> None:
        place.workspace().config_file.write_text(text)

    return prepare


def changed(state: str = "trained", **changes: Any) -> Prepare:
    return lambda place: place.workspace(state, **changes)


def photographs(**files: bytes | str) -> Prepare:
    """A workspace with these photographs and no others; ``_`` in a name is a dot, a text the one to copy."""

    def prepare(place: Place) -> None:
        folder = place.workspace().images
        known = {path.name: path.read_bytes() for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_bytes(known[content] if isinstance(content, str) else content)

    return prepare


def full(target: str, number: int = errno.ENOSPC) -> Callable[[Place], None]:
    """The disk is full where ``target`` writes, or what ``number`` says."""

    def prepare(place: Place) -> None:
        def fail(path: object, *others: object, **options: object) -> None:
            raise OSError(number, os.strerror(number), str(path))

        place.patch(target, fail, create=True)

    return prepare


def both(*steps: Prepare) -> Prepare:
    def prepare(place: Place) -> None:
        for step in steps:
            step(place)

    return prepare


def header(shapes: Mapping[str, Sequence[int]]) -> bytes:
    """A safetensors file with these shapes, and no numbers."""
    fields = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text


def prompts(*lines: str) -> Prepare:
    """A file of prompts beside the workspace."""
    return lambda place: (place.home / "prompts.txt").write_text("\n".join(lines))


def measured(part: str, spoil: Callable[[Path], object]) -> Prepare:
    """A trained workspace, a prompt, and a CLIP to measure with at ./clip, of which ``part`` is spoiled."""

    def prepare(place: Place) -> None:
        place.workspace("trained")
        prompts("a photo of S*")(place)
        spoil(Path(make_clip(place.home / "clip", place.yard.base)) / part)

    return prepare


def without_tokenizer(path: Path) -> None:
    for name in (path.name, "vocab.json", "merges.txt"):
        (path.parent / name).unlink(missing_ok=True)


def damaged_photographs(place: Place) -> None:
    """A folder of photographs, of which one was cut off, and one is none."""
    folder = shutil.copytree(place.yard.photographs, place.home / "photos")
    cut_off(folder / "photo-1.png")
    (folder / "page.jpg").write_text("<html>")


def photograph_gone(place: Place) -> None:
    folder = place.workspace("trained").images
    next(folder.iterdir()).unlink()


def launched(rank: int, count: int) -> Prepare:
    """A workspace, and the environment that a launcher of ``count`` processes gives, without where they meet."""

    def prepare(place: Place) -> None:
        place.workspace()
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(count))
        join.cache_clear()  # it knows from an earlier case that this process is alone

    return prepare


def model_file(content: bytes, name: str = "model.safetensors") -> Prepare:
    return with_file(name, content)


def ldm(spoil: Callable[[dict[str, Any]], None]) -> Prepare:
    """A whole checkpoint in one file, spoiled, and read with the configs of the tiny base."""

    def prepare(place: Place) -> None:
        place.workspace()
        file = write_ldm(place.yard.base, place.home / "model.safetensors")
        tensors = load_file(file)
        spoil(tensors)
        save_file(tensors, file)
        place.patch("cictl.models.locate.SD1_CONFIGS", place.yard.base)

    return prepare


def spoiled(part: str, spoil: Callable[[Path], object], then: Prepare = new) -> Prepare:
    """A copy of the base at ./model, of which ``part`` is spoiled."""
    return both(then, lambda place: spoil(place.copy_of_base() / part))


def lacking(*names: str) -> Callable[[Path], None]:
    """Take weights out of a file."""

    def spoil(path: Path) -> None:
        tensors = load_file(path)
        save_file({name: t for name, t in tensors.items() if not name.startswith(names)}, path, {"format": "pt"})

    return spoil


def reshaped(name: str) -> Callable[[Path], None]:
    """Give a weight another shape."""

    def spoil(path: Path) -> None:
        tensors = load_file(path)
        [key] = [key for key in tensors if key.removeprefix("text_model.") == name]
        save_file({**tensors, key: tensors[key][:3].clone()}, path, {"format": "pt"})

    return spoil


def garbage(path: Path) -> None:
    path.write_bytes(b"\x10" + b"\0" * 7 + b"{not a header ..}")


def narrow_text_encoder(folder: Path) -> None:
    """A text encoder of half the width in the place of the base's."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_pretrained(folder)
    config.hidden_size, config.num_attention_heads = 16, 2
    shutil.rmtree(folder)
    CLIPTextModel(config).save_pretrained(folder)


def inpainting(folder: Path) -> None:
    """A UNet in the place of the base's that also takes a mask and what it covers."""
    from diffusers import UNet2DConditionModel

    config = {**UNet2DConditionModel.load_config(folder), "in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(folder)


def another_text_encoder(place: Place) -> None:
    """The base at ./model has a text encoder that is not that of its CLIP, at ./model/clip."""
    path = place.copy_of_base() / "text_encoder" / "model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def with_another_word(folder: Path, word: str = "<another-word>") -> int:
    """The tokenizer knows one token more; returns how many that makes."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([word])
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def with_the_name(folder: Path) -> None:
    """The base has a token of this name already."""
    from transformers import CLIPTextModel

    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    text_encoder.resize_token_embeddings(with_another_word(folder / "tokenizer", f"<{NAME}>"))
    text_encoder.save_pretrained(folder / "text_encoder")


def on_the_hub(files: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Prepare:
    """A workspace, and on the hub owner/other, which has what ``files`` makes of a model's."""

    def prepare(place: Place) -> None:
        place.workspace()
        hub = place.online()
        whole = hub.repositories["owner/tiny"]
        hub.repositories["owner/other"] = Repository()
        hub.repositories["owner/other"].commit(files(whole.commits[whole.branches["main"]]))
        place.stack.callback(hub.repositories.pop, "owner/other")

    return prepare


def renamed(suffix: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Other suffixes for the weights."""
    return lambda files: {name.replace(".safetensors", suffix): content for name, content in files.items()}


def refused(status: int, **headers: str) -> Prepare:
    """A workspace, and a hub that answers so (``_`` for a dash)."""

    def prepare(place: Place) -> None:
        place.workspace()
        place.online().refuse = {"owner/tiny": (status, {key.replace("_", "-"): value for key, value in headers.items()})}

    return prepare


def online(**changes: Any) -> Prepare:
    """A workspace, and a hub with these attributes."""

    def prepare(place: Place) -> None:
        place.workspace()
        hub = place.online()
        for key, value in changes.items():
            setattr(hub, key, value)

    return prepare


def without_checkpoints(state: str, stage: str, keep: int) -> Prepare:
    """A workspace of which only the oldest ``keep`` checkpoints of a stage are left."""

    def prepare(place: Place) -> None:
        folders = checkpoint_folders(place.workspace(state).stage_folder(stage))
        for folder in folders[: len(folders) - keep]:
            shutil.rmtree(folder)

    return prepare


def damaged(place: Place) -> None:
    """Every checkpoint of stage 1 has a flipped bit."""
    for folder in checkpoint_folders(place.workspace("trained").stage_folder("invert")):
        content = bytearray((folder / RESULT).read_bytes())
        content[-1] ^= 1
        (folder / RESULT).write_bytes(content)


def inverted_again(place: Place) -> None:
    """Stage 1 was trained anew after stage 2."""
    invert.run(place.workspace("trained"), silent, restart=True, overrides={"seed": 3})


def another_photograph(state: str) -> Prepare:
    def prepare(place: Place) -> None:
        images = place.workspace(state).images
        (images / "photo-0.png").unlink()
        Image.new("RGB", (80, 80), "teal").save(images / "other.png")

    return prepare


def busy(place: Place) -> None:
    place.stack.enter_context(place.workspace().lock("cictl invert"))


def stopped(place: Place) -> None:
    """SIGTERM has come before the first step."""
    place.workspace()
    place.patch("cictl.engine.runtime.graceful_stop", stopped_at_once)


def of_a_library(*_: object) -> None:
    """Fails as an import in peft's code does."""
    exec("raise ImportError(\"cannot import name 'HybridCache'\", name='transformers')", {"__name__": "peft.peft_model"})


def raising(target: str, error: Exception | Callable[..., None], state: str = "new") -> Prepare:
    def prepare(place: Place) -> None:
        place.workspace(state)
        place.patch(target, mock.Mock(side_effect=error))

    return prepare


def blanked(place: Place) -> None:
    """A safety checker that flags everything."""
    place.workspace("trained")
    checker = SimpleNamespace(blank=lambda pictures: pictures * 0)
    for module in ("plans", "base_model"):
        place.patch(f"cictl.workflow.{module}.ships_checker", lambda located: True)
    place.patch("cictl.models.safety.SafetyChecker.load", lambda located, device: checker)


def edited_export(place: Place) -> None:
    """An export whose file was changed."""
    workspace = place.workspace("trained")
    export.run(workspace, silent, formats=["embedding"])
    [file] = (workspace.outputs / "export" / "embedding").rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def half_written(place: Place) -> None:
    """What is read back is not what was written."""
    place.workspace("trained")
    place.patch("cictl.exporters.writing._same_bytes", lambda path, content: False)


def cut_off(path: Path) -> None:
    """The end of a file is missing."""
    path.write_bytes(path.read_bytes()[:-200])


def no_commit(place: Place) -> None:
    """owner/other is at a commit that is none."""
    on_the_hub(lambda files: files)(place)
    repository = place.yard.hub.repositories["owner/other"]
    repository.commits["unknown"] = repository.commits[repository.branches["main"]]
    repository.branches["main"] = "unknown"


def without_auxiliary(place: Place) -> None:
    """Stage 1 was trained without auxiliary tokens."""
    workspace = place.workspace()
    write_settings(workspace, {**quick(place.yard.base), "invert.auxiliary_vectors": 0})
    invert.run(workspace, silent, overrides={"invert.steps": 1})


def method_trained(place: Place) -> None:
    """Textual Inversion was trained, one step."""
    baseline.run(place.workspace(), "textual-inversion", silent, overrides={"textual_inversion.steps": 1, "evaluate.noun": "dog"})


def other_class_pictures(place: Place) -> None:
    """Custom Diffusion was trained with two class pictures, of which one is another now."""
    workspace = place.workspace()
    overrides = {"custom_diffusion.steps": 1, "custom_diffusion.class_pictures": 2, "evaluate.noun": "dog"}
    baseline.run(workspace, "custom-diffusion", silent, overrides=overrides)
    path = sorted((workspace.outputs / "class").glob("*.png"))[0]
    with Image.open(path) as image:
        Image.new("RGB", image.size, "red").save(path)


# -- the cases ------------------------------------------------------------------------------------------

CASES: tuple[Case, ...] = (
    # the command line
    Case("command-line", "A command that there is not", "cictl invrt", 2, nothing),
    Case("command-line", "An option that there is not", "cictl generate 'S*' --sed 3", 2, nothing),
    Case("command-line", "A value that an option does not take", "cictl export --dtype fp8", 2, nothing),
    Case("command-line", "An argument that is missing", "cictl init", 2, nothing),
    Case("completion-of-a-module", "Completion for `python -m cictl`", "cictl --install-completion", 2, as_module),
    Case("command-line", "An option before the command", "cictl -C my-teapot status", 2),
    Case("command-line", "A folder without a name, from a variable that is not set", "cictl init ''", 2, nothing),
    Case("command-line", "A number that is none", "cictl invert --steps many", 2, new),
    Case("set-without-equals", "A --set without a value", "cictl invert --set invert.steps", 2, new),
    Case("set-unreadable", "A --set whose value is no YAML", "cictl invert --set 'invert.steps=[1'", 2, new),
    # prompts
    Case("prompt-missing", "No prompt", "cictl generate", 2),
    Case("prompt-empty", "An empty prompt", "cictl generate ' '", 2),
    Case("prompt-without-concept", "A prompt without S*", "cictl generate 'a cat in the snow'", 2),
    Case("prompt-without-concept", "S* in lower case", "cictl generate 'a photo of s* in the snow'", 2),
    Case("prompt-without-concept", "S* with a space", "cictl generate 'a photo of S * in the snow'", 2),
    Case("prompt-without-concept", "S* inside a word", "cictl generate 'a photo of catS*'", 2),
    Case("prompt-without-concept", "Markup in a prompt", "cictl generate '[red]a cat[/red]'", 2),
    Case("prompt-without-quotes", "A prompt without quotes", "cictl generate S* in the snow", 2),
    Case("prompt-without-quotes", "A word beside a prompt", "cictl generate 'a sketch of S*' beach", 2),
    Case("command-line", "The one prompt of a command without quotes", "cictl attention S* in the snow", 2),
    Case("out-is-images", "Pictures among the photographs", "cictl generate 'a photo of S*' --out my-teapot/images", 2),
    Case("out-is-images", "The sheet of an evaluation among them", "cictl evaluate --out my-teapot/images", 2),
    Case("out-is-images", "The sample beside an export among them", "cictl export --out my-teapot/images", 2),
    Case("prompt-with-concept", "S* for the untouched base model", "cictl generate 'a photo of S*' --stage base", 2),
    Case("prompt-too-long", "A prompt of the training that is longer than the model reads",
         f"cictl invert --set 'invert.prompts=[\"{'a photo of the ' * 8}S* A*\"]'", 2, new),
    Case("layers-unknown", "A layer in ci.yaml that the model has not", "cictl finetune --set finetune.layers=up_blocks.9", 2,
         changed("inverted")),
    Case("prompts-file-unreadable", "A file of prompts that is not there", "cictl generate --prompts prompts.txt", 2),
    Case("prompts-file-not-utf8", "A file of prompts in another encoding", "cictl generate --prompts prompts.txt", 2,
         with_file("prompts.txt", b"S* in M\xfcnchen")),
    Case("pictures-all-blanked", "Only pictures that the safety checker flags", "cictl generate 'S*' -n 2", 1, blanked),
    # names
    Case("name-invalid", "A name with markup", "cictl init teapot --name '[red]teapot[/]'", 2, nothing),
    Case("name-invalid", "A name with a space and capitals", "cictl init teapot --name 'My Teapot'", 2, nothing),
    Case("name-invalid", "An emoji for a name", "cictl init teapot --name \U0001fad6", 2, nothing),
    Case("name-invalid", "A name that is a path", "cictl export --name ../teapot", 2),
    Case("name-reserved", "A name that Windows keeps", "cictl init teapot --name con", 2, nothing),
    Case("name-in-vocabulary", "A name whose token the base model has already",
         _INVERT_ON.format("./model") + " --set invert.contrastive_weight=0", 2,
         spoiled("", with_the_name)),
    Case("start-not-a-word", "A start of S* that is no word", "cictl invert --set 'concept.start=\" \"'", 2, new),
    Case("start-unknown", "A start of S* that the base model knows the letters of",
         "cictl invert --set 'concept.start=red kettle'", 2, new),
    # workspaces
    Case("workspace-not-found", "No workspace anywhere near", "cictl status", 3, nothing),
    Case("workspace-not-there", "A workspace that is not there", "cictl status -C teapot", 3, nothing),
    Case("workspace-not-there", "A folder that is no workspace", "cictl status -C teapot", 3,
         lambda place: (place.home / "teapot").mkdir()),
    Case("workspace-not-there", "A file that is no workspace", "cictl status -C my-teapot/ci.yaml", 3, new),
    Case("permission-denied", "A folder of the workspace that may not be read", "cictl status", 5,
         raising("cictl.workflow.status.latest_checkpoint", PermissionError(errno.EACCES, os.strerror(errno.EACCES),
                                                                            f"{NAME}/checkpoints/invert"))),
    Case("workspace-ambiguous", "Several workspaces below", "cictl invert", 3,
         both(new, lambda place: shutil.copytree(place.root, place.home / "other"))),
    Case("workspace-exists", "A new workspace where there is one", f"cictl init {NAME}", 3, new),
    Case("workspace-busy", "Two trainings at once", "cictl invert", 75, busy),
    Case("workspace-not-lockable", "A workspace that is somebody else's", "cictl invert", 5,
         raising("filelock.FileLock.acquire", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))),
    Case("workspace-not-writable", "A full disk at the start of a training", "cictl invert", 5,
         both(new, full("cictl.workspace.write_atomic"))),
    Case("archive-not-written", "A full disk where the old training is to be put aside", "cictl invert --restart", 5,
         both(changed(), full("cictl.workflow.restart.write_atomic"))),
    Case("init-stray-argument", "Two folders", "cictl init teapot photographs", 2, nothing),
    Case("init-folder-is-file", "A workspace where a file is", "cictl init teapot", 2,
         lambda place: (place.home / "teapot").write_text("a file")),
    Case("init-folder-taken", "A folder with things that a workspace would overwrite", "cictl init teapot", 3,
         lambda place: (place.home / "teapot" / "outputs").mkdir(parents=True)),
    Case("init-not-written", "A folder that cannot be made", "cictl init file/teapot", 5,
         lambda place: (place.home / "file").write_text("a file")),
    Case("demo-folder-taken", "A demo in the workspace of something else", f"cictl demo {NAME}", 3, new),
    # ci.yaml
    Case("settings-invalid", "A key that there is not", "cictl invert", 2, settings("invert:\n  step: 300\n")),
    Case("settings-invalid", "A value of the wrong kind", "cictl invert", 2, settings("invert:\n  steps: many\n")),
    Case("settings-invalid", "A value of --set of the wrong kind", "cictl invert --set invert.steps=x", 2, new),
    Case("settings-invalid", "Several errors at once", "cictl invert", 2,
         settings("seed: -1\nmodel:\n  dtype: fp8\ninvert:\n  learning_rat: 5e-4\n  batch_size: 4\n  accumulation: 3\n"
                  "generate:\n  steps: 0\n  prompt: a cat\n")),
    Case("settings-invalid", "What is no YAML", "cictl invert", 2, settings("invert:\n  steps: [1, 2\nseed: 0\n")),
    Case("settings-invalid", "A key twice", "cictl invert", 2, settings("seed: 1\nseed: 2\n")),
    Case("settings-not-utf8", "ci.yaml in another encoding", "cictl invert", 2,
         lambda place: place.workspace().config_file.write_bytes(b"# M\xfcnchen\nseed: 1\n")),
    # photographs
    Case("photographs-none", "No photographs", "cictl invert", 2, photographs()),
    Case("photographs-too-few", "One photograph", "cictl invert", 2, photographs(a_png="photo-0.png")),
    Case("photographs-unusable", "Photographs that cannot be read, and one twice", "cictl invert", 2,
         photographs(a_png="photo-0.png", b_png="photo-1.png", c_png="photo-0.png", empty_jpg=b"", page_jpg=b"<html>",
                     moving_gif=b"GIF89a", notes_txt=b"a teapot")),
    Case("photographs-unusable", "A photograph that was cut off", "cictl invert", 2,
         both(new, lambda place: cut_off(place.root / "images" / "photo-1.png"))),
    Case("photographs-folder-missing", "A workspace without its folder of photographs", "cictl invert", 2,
         both(new, lambda place: shutil.rmtree(place.root / "images"))),
    Case("photographs-folder-is-file", "A file where the photographs should be", "cictl invert", 2,
         both(new, lambda place: shutil.rmtree(place.root / "images"), lambda place: (place.root / "images").write_text(""))),
    Case("photographs-not-copied", "Photographs to copy that are not there", "cictl init teapot --images a.jpg notes.txt", 2,
         lambda place: (place.home / "notes.txt").write_text("a teapot")),
    Case("photographs-not-copied", "A damaged photograph in a folder to copy", "cictl init teapot --images photos", 2,
         damaged_photographs),
    Case("photographs-differ", "Other photographs than stage 1 was trained with", "cictl finetune", 3,
         another_photograph("inverted")),
    Case("photographs-gone", "A look at the tokens of photographs that are gone", "cictl preview-aux", 3,
         another_photograph("inverted")),
    # too early, too late, or changed
    Case("stage-1-not-run", "Stage 2 before stage 1", "cictl finetune", 3, new),
    Case("stage-1-not-run", "Pictures before stage 1", "cictl generate 'a photo of S*'", 3, new),
    Case("stage-1-not-run", "An export before stage 1", "cictl export", 3, new),
    Case("stage-1-not-begun", "Pictures before the first checkpoint", "cictl generate 'a photo of S*'", 3,
         without_checkpoints("half", "invert", keep=1)),
    Case("stage-1-unfinished", "Stage 2 before stage 1 is done", "cictl finetune", 3, changed("half")),
    Case("stage-2-not-run", "Pictures of stage 2 before it was run", "cictl generate 'a photo of S*' --stage finetune", 3,
         changed("inverted")),
    Case("format-needs-stage-2", "A LoRA before stage 2", "cictl export --format lora", 3, changed("inverted")),
    Case("stage-2-outdated", "Stage 1 was trained anew after stage 2", "cictl generate 'a photo of S*'", 3, inverted_again),
    Case("step-not-kept", "A checkpoint that is not kept", "cictl export --step 5", 3),
    Case("auxiliary-tokens-none", "A look at auxiliary tokens that there are not", "cictl preview-aux", 3,
         without_auxiliary),
    Case("training-changed", "A setting that shapes the training was changed", "cictl invert", 3,
         changed(invert__learning_rate=0.02, data__resolution=72)),
    Case("training-changed", "A photograph was added", "cictl invert", 3, another_photograph("trained")),
    Case("base-changed", "Another base model than the concept was learned on",
         "cictl generate 'a photo of S*' --set model.id=toybox", 3),
    Case("checkpoints-damaged", "Checkpoints with a flipped bit", "cictl generate 'a photo of S*'", 3, damaged),
    Case("interrupted", "SIGTERM", "cictl invert", 143, stopped),
    # exports
    Case("format-unknown", "A format that there is not", "cictl export --format ckpt", 2),
    Case("rank-not-a-number", "A rank that is no number", "cictl export --format lora --rank many", 2),
    Case("rank-too-small", "A rank of nothing", "cictl export --format lora --rank 0", 2),
    Case("export-exists", "An export where there is another", "cictl export --format embedding", 3, edited_export),
    Case("exports-exist", "Another export in the place of one of all", "cictl export --all", 3, edited_export),
    Case("export-not-read-back", "A disk that gives back something else", "cictl export --format embedding", 1, half_written),
    Case("export-not-written", "A full disk at an export", "cictl export --format embedding", 5,
         both(changed(), full("cictl.exporters.writing.open"))),
    # the device, and the base model in a folder
    Case("device-missing", "A GPU that there is not", "cictl invert --set model.device=cuda", 2,
         both(new, lambda place: place.patch("torch.cuda.is_available", lambda: False),
              lambda place: place.patch("torch.backends.cuda.is_built", lambda: False))),
    Case("toybox-missing", "An installation without the toybox's weights", _INVERT_ON.format("toybox"), 4,
         both(new, lambda place: place.patch("cictl.models.locate.EMBEDDED", place.home))),
    Case("model-not-found", "A model that is nowhere", _INVERT_ON.format("./nowhere"), 4, new),
    Case("model-not-found", "A model in the home of nobody", _INVERT_ON.format("~nobody-of-that-name/model"), 4, new),
    Case("model-not-found", "A model with a misspelt id", _INVERT_ON.format("stable-diffusion"), 4, new),
    Case("model-without-layout", "A folder that is no model", _INVERT_ON.format("./model"), 4,
         both(new, lambda place: (place.home / "model").mkdir())),
    Case("model-part-unreadable", "A UNet with a weight of another shape", _INVERT_ON.format("./model"), 4,
         spoiled(UNET, reshaped("conv_out.bias"))),
    Case("model-part-unreadable", "A text encoder with a weight of another shape", _INVERT_ON.format("./model"), 4,
         spoiled("text_encoder/model.safetensors", reshaped("final_layer_norm.bias"))),
    Case("model-incomplete", "A model that lacks weights", _INVERT_ON.format("./model"), 4,
         spoiled(UNET, lacking("mid_block"))),
    Case("model-without-files", "A model without its tokenizer", _INVERT_ON.format("./model"), 4,
         spoiled("tokenizer", shutil.rmtree)),
    Case("model-config-unreadable", "A model with a damaged config", _INVERT_ON.format("./model"), 4,
         spoiled("unet/config.json", cut_off)),
    Case("model-tokenizer-too-large", "The tokenizer of another model", _INVERT_ON.format("./model"), 4,
         spoiled("tokenizer", with_another_word)),
    Case("model-file-truncated", "A folder whose download ended early", _INVERT_ON.format("./model"), 4,
         spoiled(UNET, cut_off)),
    Case("model-tokenizer-unreadable", "A model with a tokenizer that cannot be read", _INVERT_ON.format("./model"), 4,
         spoiled("tokenizer/tokenizer.json", garbage)),
    Case("model-not-sd1", "Parts that do not belong together", _INVERT_ON.format("./model"), 4,
         spoiled("text_encoder", narrow_text_encoder)),
    Case("model-not-sd1", "A model that fills in a part of a picture", _INVERT_ON.format("./model"), 4,
         spoiled("unet", inpainting)),
    # the base model, in one file
    Case("model-file-is-a-pickle", "A .ckpt", _INVERT_ON.format("model.ckpt"), 4, model_file(b"PK\x03\x04rest", "model.ckpt")),
    Case("model-file-is-a-pickle", "A .bin", _INVERT_ON.format("model.bin"), 4, model_file(b"\x80\x02rest", "model.bin")),
    Case("model-file-not-safetensors", "A login page in the place of a model", _INVERT_ON.format("model.safetensors"), 4,
         model_file(b"<!doctype html><title>Log in</title>")),
    Case("model-file-without-header", "A file with a header that makes no sense", _INVERT_ON.format("model.safetensors"), 4,
         model_file(b"\x10" + b"\0" * 7 + b"{not a header ..")),
    Case("model-file-truncated", "A download that ended early", _INVERT_ON.format("model.safetensors"), 4,
         model_file(header({"model.diffusion_model.out.2.bias": (4,)})[:60])),
    Case("model-file-is-another-kind", "A LoRA", _INVERT_ON.format("lora.safetensors"), 4,
         model_file(header({"lora_unet_down_blocks_0.lora_down.weight": (4, 320)}), "lora.safetensors")),
    Case("model-file-is-another-kind", "Stable Diffusion XL", _INVERT_ON.format("model.safetensors"), 4,
         model_file(header({"conditioner.embedders.0.weight": (2,) * 3, "model.diffusion_model.a": (2,) * 3,
                            "first_stage_model.a": (2,) * 3}))),
    Case("model-file-of-velocity", "A model with v-prediction", _INVERT_ON.format("model.safetensors"), 4,
         model_file(header({"model.diffusion_model.a": (2,) * 3, "first_stage_model.a": (2,) * 3, "v_pred": (0,)}))),
    Case("model-file-is-a-part", "A UNet alone", _INVERT_ON.format("model.safetensors"), 4,
         model_file(header({f"model.diffusion_model.{index}": (2,) * 3 for index in range(3)}))),
    Case("model-file-not-ldm", "Weights of something else", _INVERT_ON.format("model.safetensors"), 4,
         model_file(header({f"layer.{index}": (2,) * 3 for index in range(3)}))),
    Case("model-file-incomplete", "A checkpoint that lacks weights", _INVERT_ON.format("model.safetensors"), 4,
         ldm(lambda tensors: tensors.pop(_LAST_NORM))),
    Case("model-file-incomplete", "A checkpoint that lacks a block", _INVERT_ON.format("model.safetensors"), 4,
         ldm(lambda tensors: [tensors.pop(name) for name in list(tensors) if "time_embed.0" in name])),
    Case("model-file-of-other-shape", "A model of another size", _INVERT_ON.format("model.safetensors"), 4,
         ldm(lambda tensors: tensors.update({_LAST_NORM: tensors[_LAST_NORM][:2]}))),
    # CLIP, for Eq. 2
    Case("model-is-a-file", "A single file for CLIP", "cictl invert --set model.clip=clip.safetensors", 4,
         with_file("clip.safetensors", header({"text_projection.weight": (2, 2)}))),
    Case("clip-without-projection", "A CLIP without its projections", "cictl invert --set model.clip=./model/clip", 4,
         spoiled("clip/model.safetensors", lacking("text_projection"))),
    Case("clip-incomplete", "A CLIP that lacks weights", "cictl invert --set model.clip=./model/clip", 4,
         spoiled("clip/model.safetensors", lacking("vision_model.post_layernorm"))),
    Case("clip-without-preprocessor", "A CLIP that does not say how pictures are prepared",
         "cictl invert --set model.clip=./model/clip", 4, spoiled("clip/preprocessor_config.json", Path.unlink)),
    Case("clip-without-image-tower", "A CLIP whose weights cannot be read", "cictl invert --set model.clip=./model/clip", 4,
         spoiled("clip/model.safetensors", garbage)),
    Case("clip-of-another-base", "The CLIP of another base model",
         "cictl invert --set model.id=./model --set model.clip=toybox", 4,
         both(new, another_text_encoder)),
    # the hub
    Case("hub-switched-off", "A model that is not here, with the hub switched off", _INVERT_ON.format("owner/tiny"), 4, new),
    Case("hub-unreachable", "No network", _INVERT_ON.format("owner/tiny"), 4,
         both(new, lambda place: place.online("http://127.0.0.1:1"))),
    Case("model-absent-or-private", "A model that there is not, or that is private", _INVERT_ON.format("owner/tinny"), 4,
         online()),
    Case("model-gated", "A gated model", _INVERT_ON.format("owner/tiny"), 4, refused(403, X_Error_Code="GatedRepo")),
    Case("model-disabled", "A model that the hub has disabled", _INVERT_ON.format("owner/tiny"), 4,
         refused(403, X_Error_Message="Access to this resource is disabled.")),
    Case("model-forbidden", "A model that one may not have", _INVERT_ON.format("owner/tiny"), 4, refused(403)),
    Case("model-revision-missing", "A revision that there is not",
         _INVERT_ON.format("owner/tiny") + " --set model.revision=v9", 4, online()),
    Case("model-id-impossible", "An id that no model can have", _INVERT_ON.format("owner/ti..ny"), 4, online()),
    Case("hub-rate-limited", "Too many requests", _INVERT_ON.format("owner/tiny"), 4, refused(429, Retry_After="300")),
    Case("hub-broken", "A hub that is out of order", _INVERT_ON.format("owner/tiny"), 4, refused(503)),
    Case("hub-refused", "An answer that nobody expected", _INVERT_ON.format("owner/tiny"), 4, refused(418)),
    Case("hub-without-commit", "A mirror that names no commit", _INVERT_ON.format("owner/other"), 4,
         no_commit),
    Case("hub-without-hash", "A mirror that lists no hashes", _INVERT_ON.format("owner/tiny"), 4,
         both(online(), lambda place: place.patch("tests.hub_server._git", lambda content: ""))),
    Case("token-not-accepted", "An access token that has expired", _INVERT_ON.format("owner/tiny"), 4,
         refused(401, X_Error_Message="Invalid credentials in Authorization header")),
    Case("token-malformed", "An access token with a letter that none has", _INVERT_ON.format("owner/tiny"), 4,
         both(online(), lambda place: os.environ.update(HF_TOKEN="hf_m\u00fcnchen"))),
    Case("model-only-as-pickle", "A model in pickles alone", _INVERT_ON.format("owner/other"), 4,
         on_the_hub(renamed(".bin"))),
    Case("model-only-as-pickle", "A folder of pickles", _INVERT_ON.format("./model"), 4,
         spoiled(UNET, lambda path: path.rename(path.with_suffix(".bin")))),
    Case("model-only-as-variant", "A model in half precision alone", _INVERT_ON.format("owner/other"), 4,
         on_the_hub(renamed(".fp16.safetensors"))),
    Case("model-without-files", "A repository that is no model", _INVERT_ON.format("owner/other"), 4,
         on_the_hub(lambda files: {"README.md": b"words"})),
    Case("download-cut-off", "A connection that breaks again and again", _INVERT_ON.format("owner/tiny"), 4,
         online(cut={UNET: 0})),
    Case("download-damaged", "A file that is not what the hub listed", _INVERT_ON.format("owner/tiny"), 4, online(spoil={UNET})),
    Case("download-without-room", "A disk that is too small for the model", _INVERT_ON.format("owner/tiny"), 5,
         both(online(), lambda place: place.patch("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000)))),
    Case("download-not-written", "A disk that is full while downloading", _INVERT_ON.format("owner/tiny"), 5,
         both(online(), full("cictl.models.hub_transfer.open"))),
    # disk and memory
    Case("checkpoint-not-written", "A full disk at a checkpoint", "cictl invert", 5,
         both(new, full("cictl.engine.checkpoint.write_atomic"))),
    Case("checkpoint-not-written", "A folder of checkpoints that may not be written to", "cictl invert", 5,
         both(new, full("cictl.engine.checkpoint.write_atomic", errno.EACCES))),
    Case("output-not-written", "A full disk where the output goes to", "cictl status", 5,
         raising("cictl.workflow.status.run", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))),
    Case("log-not-written", "A full disk at the log", "cictl invert", 5, both(new, full("cictl.workflow.event_log.open"))),
    Case("picture-not-written", "A full disk at a picture", "cictl generate 'a photo of S*'", 5,
         both(changed(), full("cictl.data.png.write_atomic"))),
    Case("memory-full", "Too little memory", "cictl invert", 5, raising("cictl.engine.training.fit", MemoryError())),
    # evaluation and attention
    Case("prompt-set-unknown", "A prompt set that there is not", "cictl evaluate --prompts dreambooth", 2),
    Case("prompt-set-of-the-toybox", "The toybox's prompts for photographs of one's own", "cictl evaluate --prompts toybox", 2),
    Case("prompt-set-empty", "A prompt set with nothing in it", "cictl evaluate --prompts prompts.txt", 2,
         both(changed(), prompts("# none yet"))),
    Case("prompt-without-concept", "A prompt set with a prompt that lacks S*", "cictl evaluate --prompts prompts.txt", 2,
         both(changed(), prompts("a photo of S*", "a photo of s* in the snow"))),
    Case("nothing-to-measure-with", "Neither network", "cictl evaluate --set evaluate.dinov2=null --set evaluate.clip=null", 2),
    Case("base-without-noun", "What the untouched base draws, without a word for it", "cictl evaluate --stage base", 2),
    Case("toybox-without-dinov2", "A DINOv2 that there is not", "cictl evaluate --set evaluate.dinov2=toybox", 4),
    Case("metric-unreadable", "A CLIP to measure with that is damaged", _MEASURE, 4, measured("model.safetensors", garbage)),
    Case("metric-incomplete", "A CLIP to measure with that lacks weights", _MEASURE, 4,
         measured("model.safetensors", lacking("vision_model.post_layernorm"))),
    Case("metric-without-preprocessor", "A CLIP to measure with that does not say how pictures are prepared", _MEASURE, 4,
         measured("preprocessor_config.json", lambda path: path.write_text("{"))),
    Case("metric-tokenizer-of-another", "A CLIP to measure with beside the tokenizer of another", _MEASURE, 4,
         measured("tokenizer.json", without_tokenizer)),
    Case("metric-tokenizer-unreadable", "A CLIP to measure with whose tokenizer is damaged", _MEASURE, 4,
         measured("tokenizer.json", lambda path: path.write_text("{"))),
    Case("results-not-written", "A full disk at the results", _MEASURE, 5,
         both(measured("model.safetensors", lambda path: None), full("cictl.workflow.results.write_atomic"))),
    Case("evaluation-all-blanked", "Only pictures that the safety checker flags",
         "cictl evaluate -n 1 --set evaluate.dinov2=null --set evaluate.clip=toybox", 1, blanked),
    Case("prompt-with-auxiliary", "A* in a prompt", "cictl attention 'a photo of S* A*'", 2),
    Case("attention-photographs-differ", "Another photograph since training", "cictl attention", 3, photograph_gone),
    # other methods
    Case("command-line", "A method that there is not", "cictl baseline dreambox", 2, new),
    Case("noun-missing", "A method that needs a word for what S* is", "cictl baseline dreambooth", 2, new),
    Case("method-not-trained", "Pictures of a method that was not trained",
         "cictl generate 'a photo of S*' --stage disenbooth", 3),
    Case("training-changed", "Another word than a method was trained with", "cictl baseline textual-inversion --noun cat", 3,
         method_trained),
    Case("method-unknown", "A comparison with a method that there is not", "cictl compare --methods dreambox", 2),
    Case("memory-full", "A comparison with a method that does not fit into the memory",
         "cictl compare --noun dog --methods base,textual-inversion --prompts prompts.txt -n 1 --set evaluate.dinov2=null "
         "--set evaluate.clip=./clip", 5,
         both(measured("model.safetensors", lambda path: None),
              lambda place: place.patch("cictl.engine.training.fit", mock.Mock(side_effect=MemoryError())))),
    Case("noun-missing", "A comparison with methods that need a word for what S* is", "cictl compare", 2),
    Case("base-without-steps", "A step of the base model", "cictl generate 'a photo of a dog' --stage base --step 4", 2),
    Case("class-pictures-all-blanked", "Only class pictures that the safety checker flags",
         "cictl baseline custom-diffusion --noun dog --set custom_diffusion.class_pictures=2", 1, blanked),
    Case("class-pictures-changed", "Class pictures that are not those of the training so far",
         "cictl baseline custom-diffusion --steps 2", 3, other_class_pictures),
    # several processes
    Case("one-process-only", "A launcher that starts several processes of a command for one", "cictl status", 2, launched(0, 2)),
    Case("processes-contradictory", "An environment that contradicts itself", "cictl invert", 2, launched(5, 2)),
    Case("processes-not-found", "Several processes by hand, without where they meet", "cictl invert", 2, launched(0, 2)),
    Case("loss-not-finite", "A training that loses its way", "cictl invert --set invert.temperature=1e-40", 1, new),
    # trackers
    Case("tracker-not-installed", "A tracker that is not installed", "cictl invert --set 'tracking.to=[mlflow]'", 2,
         both(new, lambda place: place.patch("cictl.workflow.tracking.find_spec", lambda name: None))),
    Case("tracker-not-started", "A tracker that cannot reach its server", "cictl invert --set 'tracking.to=[tensorboard]'", 1,
         raising("accelerate.Accelerator.init_trackers", OSError("no route to host"))),
    Case("library-not-loaded", "A library of a version that does not fit another's", "cictl status", 1,
         raising("cictl.workflow.status.run", of_a_library)),
    # bugs
    Case("unexpected", "A bug of cictl", "cictl status", 1,
         raising("cictl.workflow.status.run", ZeroDivisionError("division by zero"))),
)  # fmt: skip


UNPROVOKED: Mapping[str, str] = {
    "batch-not-divided": "needs several processes; tests/cli/test_several_processes.py has some",
    "device-unusable": "needs a GPU; tests/engine/test_runtime.py pretends one",
    "graph-not-recorded": "needs a GPU; tests/engine/test_recorded.py pretends one",
    "processes-exceed-gpus": "needs several processes; tests/engine/test_runtime.py pretends some",
    "device-for-several-processes": "needs several processes; tests/engine/test_runtime.py has some",
    "process-lost": "needs several processes; tests/cli/test_several_processes.py has some",
    "attention-prompt-too-long": "a prompt of a page; tests/cli/test_attention_command.py has one",
    "base-not-single-file": "needs a base model of a layout that no single file has; tests/exporters/test_layouts.py has one",
    "checker-incomplete": "needs a safety checker; tests/workflow/test_safety_checker.py has one",
    "checker-unreadable": "needs a safety checker; tests/workflow/test_safety_checker.py has one",
    "checkpoints-restless": "needs a training that replaces its checkpoints faster than they can be read, five times in a row",
    "clip-of-another-width": "needs a base model with another CLIP; tests/methods/test_baselines.py has one",
    "clip-unreadable": "the file must break between two looks at it",
    "clip-without-text-tower": "the file must break between two looks at it",
    "dtype-unknown": "for callers from Python; the command line refuses it before (`command-line`)",
    "model-file-damaged": "the file must break between two looks at it",
    "model-file-unreadable": "for root every file is readable",
    "photograph-spoiled": "the file must break between two looks at it",
    "photographs-folder-unreadable": "for root every folder is readable",
    "settings-missing": "ci.yaml must vanish after the workspace was found by it",
    "settings-unreadable": "for root every file is readable",
}

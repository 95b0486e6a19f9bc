"""A tiny base model, photographs, and a workspace on which both stages were trained; made once a session."""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # figures and bits that tests compare are those of the CPU
os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported: its kernels are run by Python
os.environ.pop("COLUMNS", None)  # that of whoever runs the tests, by which what is printed would be folded
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cictl.models.locate import Located, locate_base, locate_clip
from cictl.models.stable_diffusion import StableDiffusion
from cictl.workflow import finetune, init, invert
from cictl.workspace import Workspace
from tests.support import quick, silent, write_settings
from tests.tiny import make_base, make_photographs

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny base model."""
    return make_base(tmp_path_factory.mktemp("model") / "tiny-base")


@pytest.fixture(scope="session")
def located(base: Path) -> Located:
    return locate_base(str(base))


@pytest.fixture(scope="session")
def clip(base: Path) -> Located:
    return locate_clip(str(base / "clip"))


@pytest.fixture
def model(located: Located) -> StableDiffusion:
    """A model of one's own, to inject into."""
    return StableDiffusion.load(located, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three photographs."""
    return make_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def make_workspace(tmp_path: Path, base: Path, photographs: list[Path]) -> Callable[..., Workspace]:
    """Makes a workspace with quick settings; ``changes`` are dotted keys of ci.yaml."""

    def make(name: str = "my-teapot", **changes: Any) -> Workspace:
        workspace = init.run(tmp_path / name, model=str(base), images=photographs, name="my-teapot")
        write_settings(workspace, {**quick(base), **{key.replace("__", "."): value for key, value in changes.items()}})
        return workspace

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path, photographs: list[Path]) -> Workspace:
    """Both stages done, S* of two vectors, A_i* of two. To be read, not changed: take ``copy_of_trained``."""
    root = tmp_path_factory.mktemp("trained") / "my-teapot"
    workspace = init.run(root, model=str(base), images=photographs, name="my-teapot")
    write_settings(workspace, quick(base))
    invert.run(workspace, silent)
    finetune.run(workspace, silent)
    return workspace


@pytest.fixture
def copy_of_trained(tmp_path: Path, trained: Workspace) -> Workspace:
    shutil.copytree(trained.root, tmp_path / "copy")
    return Workspace(tmp_path / "copy")

"""Who is timed against whom, in which settings."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.side_by_side.folders import Folders
from benchmarks.side_by_side.turns import Program
from benchmarks.steps.programs import run_cictl, run_peer

Stage = Literal["invert", "finetune"]
SCRIPTS: dict[Stage, str] = {"invert": "textual_inversion.py", "finetune": "train_custom_diffusion.py"}
_FOLDERS: dict[Stage, str] = {"invert": "examples/textual_inversion", "finetune": "examples/custom_diffusion"}
_NEVER = "1000000"  # steps
_EXAMPLES = "github.com/huggingface/diffusers"


@dataclass(frozen=True)
class Setting:
    """How a peer's script is called.

    Attributes:
        name: in tables.
        options: beside those that every setting has.
        resized: whether it gets photographs of the resolution that it trains at.
        dtype: of its frozen networks.
    """

    name: str
    options: tuple[str, ...]
    resized: bool
    dtype: str


_KEPT = {"model.memory": "full"}  # auto would go by what the programs that wait beside it have left
_DOCUMENTED = Setting("as documented, fp32", (), False, "fp32")
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "cuda": (
        _DOCUMENTED,
        Setting("bf16", ("--mixed_precision=bf16",), False, "bf16"),
        Setting(
            "bf16, resized, workers, TF32",
            ("--mixed_precision=bf16", "--dataloader_num_workers=4", "--allow_tf32"),
            True,
            "bf16",
        ),
    ),
    # One thread of a CPU: bf16 is emulated there, and TF32 does not exist.
    "cpu": (_DOCUMENTED, Setting("fp32, resized, a worker", ("--dataloader_num_workers=1",), True, "fp32")),
}


@dataclass(frozen=True)
class Run:
    """What all programs of a run have in common.

    Attributes:
        folders: models and photographs.
        work: for workspaces and outputs.
        device: cpu or cuda.
        batch: samples a step.
        block: steps a block.
        settings: of cictl, by dotted key.
    """

    folders: Folders
    work: Path
    device: str
    resolution: int
    batch: int
    block: int
    settings: dict[str, Any]

    def ours(self, stage: Stage) -> Program:
        """cictl's stage in its own default precision, in a new workspace."""
        workspace = self._workspace(stage)
        if stage == "invert":
            self.gradient.unlink(missing_ok=True)  # of an earlier run
        if stage == "finetune":
            self._invert_briefly(workspace)
        dtype = "bf16" if self.device == "cuda" else "fp32"
        group = {f"{stage}.steps": int(_NEVER), f"{stage}.batch_size": self.batch}
        intervals = {"tracking.interval": self.block, "checkpoint.interval": int(_NEVER)}
        arguments = {
            "workspace": workspace,
            "stage": stage,
            "settings": {**self._common, **_KEPT, **group, **intervals, **self.settings},
            "gradient": self.gradient if stage == "invert" else None,
        }
        return Program(f"cictl {stage}", run_cictl, arguments, dtype)

    def peers(self, stage: Stage, scripts: Path) -> list[Program]:
        """The peer's script in each setting."""
        return [
            Program(
                f"{SCRIPTS[stage]}, {setting.name}",
                run_peer,
                {"script": scripts / SCRIPTS[stage], "arguments": self._options(stage, setting), "block": self.block},
                setting.dtype,
            )
            for setting in SETTINGS[self.device]
        ]

    @property
    def gradient(self) -> Path:
        """Where the gradient of the first step of stage 1 is written."""
        return self.work / "gradient.safetensors"

    @property
    def workspace(self) -> Path:
        """Of stage 1."""
        return self.work / "workspace-invert"

    @property
    def _common(self) -> dict[str, Any]:
        device = {"cpu": "cpu", "cuda": "cuda"}[self.device]
        return {"model.clip": str(self.folders.clip), "data.resolution": self.resolution, "model.device": device}

    def _workspace(self, stage: Stage) -> Path:
        from cictl.workflow import init

        folder = self.work / f"workspace-{stage}"
        shutil.rmtree(folder, ignore_errors=True)
        init.run(folder, model=str(self.folders.base), images=sorted(self.folders.photographs.iterdir()), name="teapot")
        return folder

    def _invert_briefly(self, workspace: Path) -> None:
        """What stage 2 needs of stage 1: tokens, trained or not."""
        short = {**self._common, "data.resolution": 64, "invert.steps": 1, "invert.batch_size": 1}
        settings = [part for key, value in short.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "cictl", "invert", "-C", str(workspace), *settings]
        root = str(Path(__file__).parents[2])
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"stage 1 before stage 2: {done.stderr}")

    def _options(self, stage: Stage, setting: Setting) -> list[str]:
        photographs = self.folders.small if setting.resized else self.folders.many
        shared = [
            f"--pretrained_model_name_or_path={self.folders.base}", f"--resolution={self.resolution}",
            f"--train_batch_size={self.batch}", "--lr_scheduler=constant", "--lr_warmup_steps=0", "--initializer_token=toy",
            f"--max_train_steps={_NEVER}", f"--checkpointing_steps={_NEVER}", f"--output_dir={self.work / 'peer'}", "--seed=0",
        ]  # fmt: skip
        own = {
            "invert": [
                f"--train_data_dir={photographs}", "--learnable_property=object", "--placeholder_token=<cat-toy>",
                "--learning_rate=5e-4", f"--save_steps={_NEVER}",
            ],
            "finetune": [
                f"--instance_data_dir={photographs}", "--instance_prompt=photo of a <new1> toy", "--modifier_token=<new1>",
                "--learning_rate=1e-5", "--hflip",
            ],
        }  # fmt: skip
        return [*shared, *own[stage], *setting.options]


def require_scripts(folder: Path, stages: Sequence[Stage]) -> str:
    """An empty text if the peers' scripts lie in ``folder``, or what to do."""
    missing = [stage for stage in stages if not (folder / SCRIPTS[stage]).is_file()]
    if not missing:
        return ""
    files = "\n".join(f"  {_FOLDERS[stage]}/{SCRIPTS[stage]}" for stage in missing)
    return (
        f"{folder} lacks {' and '.join(SCRIPTS[stage] for stage in missing)}, which cictl does not ship.\n"
        f"Copy these files of {_EXAMPLES} into it, at the newest tag that is not newer than the installed diffusers\n"
        f"(v0.40.0 was used for the results in benchmarks/results):\n{files}"
    )


def script_hashes(folder: Path, stages: Sequence[Stage]) -> dict[str, str]:
    """The SHA-256 of each script, as it was run."""
    return {SCRIPTS[stage]: hashlib.sha256((folder / SCRIPTS[stage]).read_bytes()).hexdigest() for stage in stages}

"""Component ``data``: a pool of rendered pictures with their scenes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from pathlib import Path

import numpy as np

from cictl.files import write_atomic
from cictl.toybox.world.render import render
from cictl.toybox.world.scene import Scene, sample_scene

SHARD = 500
POOL_SEED = 1
_HELD_OUT_SEED = 2


def render_shard(seed: int, number: int, size: int = SHARD) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    """Shard ``number`` of a pool: scenes, pictures [n, 64, 64, 3] of bytes, and the things' masks [n, 64, 64]."""
    rng = np.random.default_rng([seed, number])
    scenes = [sample_scene(rng) for _ in range(size)]
    drawn = [render(scene, rng) for scene in scenes]
    return scenes, np.stack([picture for picture, _ in drawn]), np.stack([mask for _, mask in drawn])


def held_out_pool(count: int) -> tuple[list[Scene], np.ndarray]:
    """Pictures that no training sees, for validation."""
    scenes, pictures, _ = render_shard(_HELD_OUT_SEED, 0, count)
    return scenes, pictures


def make_pool(work: Path, pictures: int, processes: int) -> None:
    """Render the shards that are not in ``work``/pool yet."""
    (work / "pool").mkdir(parents=True, exist_ok=True)
    shards = [number for number in range(pictures // SHARD) if not _shard_file(work, number, "json").exists()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, number in enumerate(pool.imap_unordered(_Writer(work), shards), 1):
            print(f"data: {done}/{len(shards)} shards (shard {number})", flush=True)


def load_pool(work: Path) -> tuple[list[Scene], np.ndarray, np.ndarray]:
    """All shards there are: scenes, pictures, masks."""
    scenes: list[Scene] = []
    pictures, masks = [], []
    for path in sorted((work / "pool").glob("*.json")):
        scenes += [_scene(record) for record in json.loads(path.read_text())]
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            pictures.append(arrays["pictures"])
            masks.append(np.unpackbits(arrays["masks"], axis=-1).astype(bool))
    return scenes, np.concatenate(pictures), np.concatenate(masks)


class _Writer:
    def __init__(self, work: Path) -> None:
        self.work = work

    def __call__(self, number: int) -> int:
        scenes, pictures, masks = render_shard(POOL_SEED, number)
        np.savez(_shard_file(self.work, number, "npz"), pictures=pictures, masks=np.packbits(masks, axis=-1))
        records = [dataclasses.asdict(scene) for scene in scenes]
        write_atomic(_shard_file(self.work, number, "json"), json.dumps(records).encode())  # last: the shard is whole
        return number


def _shard_file(work: Path, number: int, suffix: str) -> Path:
    return work / "pool" / f"{number:05d}.{suffix}"


def _scene(record: dict[str, object]) -> Scene:
    companion = record.pop("companion")
    return Scene(**record, companion=tuple(companion) if companion else None)  # type: ignore[arg-type]

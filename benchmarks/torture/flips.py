"""One bit turned over, anywhere in a checkpoint or an export: is it noticed?"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from benchmarks.torture.workspaces import Yard
from cictl.config import STAGES
from cictl.errors import StateError
from cictl.events import ignore
from cictl.records import checkpoint_folders, read_checkpoint
from cictl.workflow import export


@dataclass
class Outcome:
    """How many bits were turned over in what, and which were not noticed."""

    checkpoints: int = 0
    exports: int = 0
    missed: list[str] = field(default_factory=list)


def torture(yard: Yard, flips: int, seed: int = 0) -> Outcome:
    """Turn over ``flips`` bits, one at a time, in files drawn at random; each is set right again."""
    rng, outcome = random.Random(seed), Outcome()
    export.run(yard.whole, ignore)
    exports = sorted((yard.whole.outputs / "export").rglob("*.safetensors"))
    newest = [checkpoint_folders(yard.whole.stage_folder(stage))[0] for stage in STAGES]
    saved = [path for folder in newest for path in sorted(folder.iterdir())]
    for number in range(flips):
        path = rng.choice(exports if number % 5 == 0 else saved)
        place, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
        intact = path.read_bytes()
        broken = bytearray(intact)
        broken[place] ^= 1 << bit
        path.write_bytes(broken)
        if path in exports:
            outcome.exports += 1
            noticed = _export_is_noticed(yard)
        else:
            outcome.checkpoints += 1
            noticed = read_checkpoint(path.parent)[0] is None
        if not noticed:
            outcome.missed.append(f"bit {bit} of byte {place} of {path.name}")
        path.write_bytes(intact)
    return outcome


def _export_is_noticed(yard: Yard) -> bool:
    """The same export again must not say "already done"; it refuses, or writes the file anew."""
    try:
        return not export.run(yard.whole, ignore).already_done
    except StateError:
        return True

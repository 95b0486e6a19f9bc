"""Train the toybox: ``python -m cictl.toybox.recipe COMPONENT --work FOLDER``.

In this order, each going on where it was stopped:
data, vae, latents, text, unet, clip, judge, pack, evaluate.
What was packed is trained further after unpack: with data, latents, and more minutes for a component.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

_MINUTES = {"vae": 12.0, "text": 5.0, "unet": 90.0, "clip": 10.0, "judge": 20.0}


def main() -> None:
    """One command a component."""
    parser = argparse.ArgumentParser(prog="python -m cictl.toybox.recipe", description=__doc__)
    parser.add_argument("component", choices=["data", "latents", "pack", "unpack", "evaluate", *_MINUTES])
    parser.add_argument("--work", type=Path, required=True, help="folder of the training's state")
    parser.add_argument("--minutes", type=float, help=f"of wall clock, in all; default {_MINUTES}")
    parser.add_argument("--pictures", type=int, default=40_000, help="size of the pool (data)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each, without a GPU")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path(__file__).parents[2] / "models" / "weights" / "toybox",
        help="of the weights (pack, unpack, evaluate)",
    )
    parser.add_argument("--count", type=int, default=500, help="pictures that the judge reads (evaluate)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps (evaluate)")
    parser.add_argument("--guidance", type=float, default=3.0, help="(evaluate)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile (unet)")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given.work.mkdir(parents=True, exist_ok=True)
    minutes = given.minutes or _MINUTES.get(given.component, 0.0)

    if given.component == "data":
        from cictl.toybox.recipe.data import make_pool

        make_pool(given.work, given.pictures, given.processes)
        return
    if given.component == "pack":
        from cictl.toybox.recipe.pack import pack

        pack(given.work, given.to)
        return
    if given.component == "unpack":
        from cictl.toybox.recipe.pack import unpack

        unpack(given.to, given.work)
        return
    if given.component == "evaluate":
        from cictl.toybox.recipe.evaluate import evaluate

        evaluate(given.work, given.to, given.count, given.steps, given.guidance)
        return

    from cictl.toybox.recipe import clip, judge, text, unet, vae
    from cictl.toybox.recipe.loop import launch

    if given.component == "text":
        text.write_tokenizer(given.work / "tokenizer")
    trainers: dict[str, Callable[..., None]] = {
        "judge": judge.train_judge,
        "vae": vae.train_vae,
        "latents": vae.write_latents,
        "text": text.train_text,
        "unet": unet.train_unet,
        "clip": clip.train_clip,
    }
    settings = {"latents": (), "unet": (minutes, not given.no_compile)}.get(given.component, (minutes,))
    launch(trainers[given.component], given.work, given.processes, *settings)


if __name__ == "__main__":
    main()

"""All randomness of training, as a function of (seed, stage, step, sample) and of nothing else.

Nothing has a state that would have to be saved, so a run that was stopped goes on with the same bits. Draws
are made on the CPU, where they do not depend on the device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class EncodedPhotographs:
    """The N photographs as the training sees them, in the order of their keys.

    Attributes:
        keys: the key of each photograph.
        mean, std: of the VAE's posterior, already scaled, [N V, C, H, W]: the V views of the first photograph, then those
            of the second, and so on.
        embeddings: tau_I(x_i), CLIP image embeddings, [N, D]; None where no loss asks for them.
        views: V, how many ways each photograph is seen in (mirrored, smaller, ...), of which one is drawn each time.
    """

    keys: tuple[str, ...]
    mean: Tensor
    std: Tensor
    embeddings: Tensor | None = None
    views: int = 1


@dataclass(frozen=True)
class Batch:
    """What one forward pass trains on; B samples.

    Attributes:
        photographs: index of each sample's photograph, B integers.
        choices: a number in [0, 1) for each sample, by which a prompt is chosen.
        latents: z_0, drawn anew from the posterior, [B, C, H, W].
        noise: eps, [B, C, H, W].
        timesteps: t, [B].
        rows: of each sample's view in the encoded photographs, B integers; where V = 1, ``photographs``.
        class_pictures: as many samples of pictures that keep what the noun meant, if a loss asks for them.
    """

    photographs: list[int]
    choices: list[float]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    rows: list[int]
    class_pictures: Batch | None = None


def randomness(seed: int, *names: object) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``names`` alone, well mixed."""
    text = "/".join(str(name) for name in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)


def draw_batch(
    photographs: EncodedPhotographs, *, seed: int, stage: str, step: int, samples: range, batch_size: int, timesteps: int
) -> Batch:
    """The samples ``samples`` of the ``batch_size`` that step ``step`` trains on.

    Which process or which part of an accumulated batch draws a sample makes no difference to it. Every
    photograph is seen once before any is seen again.

    Args:
        timesteps: how many the noise schedule has; t is uniform over them.
    """
    count = len(photographs.keys)
    chosen, rows, choices, times, noises, latents = [], [], [], [], [], []
    for sample in samples:
        epoch, place = divmod(step * batch_size + sample, count)
        order = torch.randperm(count, generator=randomness(seed, stage, "epoch", epoch))
        index = int(order[place])
        generator = randomness(seed, stage, step, sample)
        shape = photographs.mean.shape[1:]
        chosen.append(index)
        choices.append(float(torch.rand((), generator=generator)))
        times.append(torch.randint(timesteps, (), generator=generator))
        noises.append(torch.randn(shape, generator=generator))
        latents.append(torch.randn(shape, generator=generator))
        view = int(torch.randint(photographs.views, (), generator=generator)) if photographs.views > 1 else 0
        rows.append(index * photographs.views + view)
    device = photographs.mean.device
    resampled = torch.stack(latents).to(device, non_blocking=True) * photographs.std[rows] + photographs.mean[rows]
    return Batch(
        photographs=chosen,
        choices=choices,
        latents=resampled,
        noise=torch.stack(noises).to(device, non_blocking=True),
        timesteps=torch.stack(times).to(device, non_blocking=True),
        rows=rows,
    )


def evaluation_batch(
    photographs: EncodedPhotographs, *, seed: int, stage: str, samples: range, count: int, timesteps: int
) -> Batch:
    """The samples ``samples`` of the ``count`` that a training is judged by; the same however often it is.

    Args:
        timesteps: how many the noise schedule has. They are cut into ``count`` equal stretches, and each sample has its t in
            one of them, so that the batch is of the whole schedule.
    """
    of_its_own = f"{stage}/evaluation"
    drawn = draw_batch(photographs, seed=seed, stage=of_its_own, step=0, samples=samples, batch_size=count, timesteps=timesteps)
    stretch = torch.tensor(list(samples), device=drawn.timesteps.device)
    return replace(drawn, timesteps=(stretch * timesteps + drawn.timesteps) // count)

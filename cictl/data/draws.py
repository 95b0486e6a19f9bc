"""All randomness of training, as a function of (seed, stage, step, sample) and of nothing else.

Nothing has a state that would have to be saved, so a run that was stopped goes on with the same bits. Draws
are made on the CPU, where they do not depend on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cictl.config import Timesteps


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
    """What one forward pass trains on: B samples, all on the device.

    Attributes:
        photographs: index of each sample's photograph, [B].
        choices: a number in [0, 1) for each sample, by which a prompt is chosen, [B].
        latents: z_0, drawn anew from the posterior, [B, C, H, W].
        noise: eps, [B, C, H, W].
        timesteps: t, [B].
        rows: of each sample's view in the encoded photographs, [B]; where V = 1, ``photographs``.
        class_pictures: as many samples of pictures that keep what the noun meant, if a loss asks for them.
    """

    photographs: Tensor
    choices: Tensor
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    rows: Tensor
    class_pictures: Batch | None = None

    def chosen(self, count: int) -> Tensor:
        """Which of ``count`` prompts each sample has, [B]."""
        return (self.choices * count).long()

    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, for what can be given nothing but tensors."""
        own = [value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)]
        return (*own, *(self.class_pictures.tensors() if self.class_pictures else ()))

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Batch:
        """The batch whose :meth:`tensors` these are."""
        names = [field.name for field in fields(cls) if field.name != "class_pictures"]
        own, others = tensors[: len(names)], tensors[len(names) :]
        return cls(**dict(zip(names, own, strict=True)), class_pictures=cls.of(others) if others else None)


def randomness(seed: int, *names: object) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``names`` alone, well mixed."""
    text = "/".join(str(name) for name in (seed, *names))
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)


def stratified_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """A timestep in each of ``count`` equal parts of the schedule, in random order, [count].

    Each alone is uniform over the schedule, so that the mean of any function of it stays what it was; a batch covers the
    schedule evenly. Kingma et al. 2021 (arXiv 2107.00630, App. I.1) shift a grid by one offset for the whole batch; here
    each part has an offset of its own, since a grid would also tie the samples of a batch to one another.

    Args:
        timesteps: T, how many the noise schedule has.
    """
    parts = torch.randperm(count, generator=generator)
    offsets = torch.rand(count, generator=generator, dtype=torch.float64)
    return ((parts + offsets) * timesteps / count).long().clamp(max=timesteps - 1)


def draw_batch(
    photographs: EncodedPhotographs,
    *,
    seed: int,
    stage: str,
    step: int,
    samples: range,
    batch_size: int,
    timesteps: int,
    spread: Timesteps = "uniform",
) -> Batch:
    """The samples ``samples`` of the ``batch_size`` that step ``step`` trains on.

    Which process or which part of an accumulated batch draws a sample makes no difference to it. Every
    photograph is seen once before any is seen again.

    Args:
        timesteps: how many the noise schedule has; t is uniform over them.
        spread: uniform draws each t alone, stratified by :func:`stratified_timesteps`. All else is drawn alike.
    """
    strata = None
    if spread == "stratified":
        strata = stratified_timesteps(batch_size, timesteps, randomness(seed, stage, step, "timesteps"))
    count = len(photographs.keys)
    chosen, views, choices, times, noises, latents = [], [], [], [], [], []
    for sample in samples:
        epoch, place = divmod(step * batch_size + sample, count)
        order = torch.randperm(count, generator=randomness(seed, stage, "epoch", epoch))
        generator = randomness(seed, stage, step, sample)
        shape = photographs.mean.shape[1:]
        chosen.append(order[place])
        choices.append(torch.rand((), generator=generator))
        time = torch.randint(timesteps, (), generator=generator)
        times.append(time if strata is None else strata[sample])
        noises.append(torch.randn(shape, generator=generator))
        latents.append(torch.randn(shape, generator=generator))
        if photographs.views > 1:
            views.append(torch.randint(photographs.views, (), generator=generator))
    device = photographs.mean.device
    own = _send(chosen, device)
    rows = own * photographs.views + _send(views, device) if views else own
    return Batch(
        photographs=own,
        choices=_send(choices, device),
        latents=_send(latents, device) * photographs.std[rows] + photographs.mean[rows],
        noise=_send(noises, device),
        timesteps=_send(times, device),
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


def _send(drawn: Sequence[Tensor], device: torch.device) -> Tensor:
    """A batch of what was drawn, on ``device``, without waiting for it: a GPU reads along only in pinned memory.

    Apple's GPU is waited for: it would read what has been let go of by then (pytorch/pytorch#189690).
    """
    batch = torch.stack(list(drawn))
    return (batch.pin_memory() if device.type == "cuda" else batch).to(device, non_blocking=device.type != "mps")

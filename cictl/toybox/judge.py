"""The judge's network: it reads a picture of the toybox's world."""

from __future__ import annotations

from torch import Tensor, nn


class Judge(nn.Module):
    """A small convolutional classifier: pictures [B, 3, 64, 64] in [-1, 1] to logits [B, outputs]."""

    def __init__(self, outputs: int) -> None:
        super().__init__()

        def layer(inputs: int, channels: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
            return nn.Sequential(convolution, nn.GroupNorm(8, channels), nn.ReLU())

        self.features = nn.Sequential(
            layer(3, 24, 2), layer(24, 48, 2), layer(48, 48, 1), layer(48, 96, 2), layer(96, 96, 1), layer(96, 128, 2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, 256), nn.ReLU(), nn.Linear(256, outputs))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures))

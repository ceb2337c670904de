"""The detector's network: for every cell of two grids, whether a face's middle lies there, and where its square is.

`training.py` trains it, `models.detector.grid` runs the exported file. 60,000 parameters.
"""

import torch
from torch import Tensor, nn

from models.detector.levels import OUTPUTS


class GridNetwork(nn.Module):
    """(N, 1, H, W) float32, grey in [-1, 1], H and W multiples of 16 -> a (N, 4, H / stride, W / stride) map per level."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            _conv(1, 12, 3, 2),
            Block(12, 24, 3, 2),
            Block(24, 24, 3),
            Block(24, 48, 3, 2),
            Block(48, 48, 5),
            Block(48, 48, 5),
        )
        self.coarse = nn.Sequential(Block(48, 80, 5, 2), Block(80, 80, 5), Block(80, 80, 5), Block(80, 80, 5), Block(80, 80, 5))
        self.fine_head = nn.Sequential(Block(48, 48, 3), nn.Conv2d(48, OUTPUTS, 1))
        self.coarse_head = nn.Sequential(Block(80, 80, 3), nn.Conv2d(80, OUTPUTS, 1))
        for head in (self.fine_head, self.coarse_head):
            last = head[-1]
            if isinstance(last, nn.Conv2d) and last.bias is not None:
                nn.init.normal_(last.weight, std=0.01)
                with torch.no_grad():
                    last.bias.copy_(torch.tensor([-4.0, 0.0, 0.0, 0.0]))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(pictures)
        return self.fine_head(fine), self.coarse_head(self.coarse(fine))


class Block(nn.Module):
    """A depthwise and a pointwise convolution with batch norm, which folds away at export; added to its input if it fits."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.adds = stride == 1 and before == after
        self.layers = nn.Sequential(
            nn.Conv2d(before, before, kernel, stride, kernel // 2, groups=before, bias=False),
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, maps: Tensor) -> Tensor:
        made: Tensor = self.layers(maps)
        return torch.relu(made + maps if self.adds else made)


def _conv(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    layers = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    return nn.Sequential(*layers)

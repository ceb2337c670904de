"""Random flips, shifts, rotations and scales of a batch of faces: one warp for all, each face with its own. Training calls it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION = math.radians(10)
SCALE = 0.1
SHIFT = 0.08
"""Largest rotation in radians, relative change of size, and shift as part of the side."""


def augment(faces: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 1, S, S) -> (B, 1, S, S), bilinear, edges repeated. Each output depends on its own input and its place in the batch.

    DP-SGD may use it with a fresh secret seed: then the warps are independent of who is in the batch.
    """
    n = len(faces)
    if n == 0:
        return faces
    draws = torch.rand((n, 5), generator=generator, device=generator.device).mul_(2).sub_(1)
    angle, size = draws[:, 0] * ROTATION, 1 + draws[:, 1] * SCALE
    flip = torch.where(draws[:, 4] < 0, -1.0, 1.0)
    theta = torch.stack(
        [
            torch.stack([flip * size * angle.cos(), -size * angle.sin(), 2 * SHIFT * draws[:, 2]], 1),
            torch.stack([flip * size * angle.sin(), size * angle.cos(), 2 * SHIFT * draws[:, 3]], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(faces.shape), align_corners=False)
    return F.grid_sample(faces, grid, mode="bilinear", padding_mode="border", align_corners=False)

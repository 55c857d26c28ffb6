"""Small random changes that a visualisation has to survive, so that it is no trick of single pixels.

A transformation takes pictures and a generator and returns pictures of the same size; `chain` makes one of several.
Every picture gets its own draw.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

Batch = Float[Tensor, "n 3 height width"]
Transform = Callable[[Batch, torch.Generator], Batch]


def pad(pixels: int, value: float = 0.5) -> Transform:
    """Shrink the view so that a border of grey of so many pixels comes into it."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        size = tuple(pictures.shape[2:])
        wide = F.pad(pictures, (pixels,) * 4, value=value)
        return F.interpolate(wide, size=size, mode="bilinear", align_corners=False, antialias=True)

    return apply


def jitter(pixels: float) -> Transform:
    """Move by up to so many pixels either way; what comes in mirrors the edge."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        by = (2 * _uniform(2 * len(pictures), generator).view(-1, 2) - 1) * pixels
        by = by * 2 / torch.tensor([pictures.shape[3], pictures.shape[2]])
        turn = torch.eye(2).expand(len(pictures), 2, 2)
        return _sampled(pictures, torch.cat([turn, by[:, :, None]], 2))

    return apply


def scale(smallest: float, largest: float) -> Transform:
    """Magnify about the centre by a factor between two, evenly drawn."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        factor = smallest + (largest - smallest) * _uniform(len(pictures), generator)
        matrices = torch.zeros(len(pictures), 2, 3)
        matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / factor
        return _sampled(pictures, matrices)

    return apply


def rotate(degrees: float) -> Transform:
    """Turn about the centre by up to so many degrees either way."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        angle = (2 * _uniform(len(pictures), generator) - 1) * degrees * torch.pi / 180
        sine, cosine, none = angle.sin(), angle.cos(), torch.zeros_like(angle)
        # In a picture that is not square, coordinates from -1 to 1 are of unequal length.
        aspect = pictures.shape[3] / pictures.shape[2]
        rows = [cosine, -sine / aspect, none, sine * aspect, cosine, none]
        return _sampled(pictures, torch.stack(rows, 1).view(-1, 2, 3))

    return apply


def noise(deviation: float) -> Transform:
    """Add independent normal noise to every pixel."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        return pictures + deviation * torch.randn(pictures.shape, generator=generator).to(pictures)

    return apply


def colour(most: float) -> Transform:
    """Change each colour's contrast by a factor within 1 +- most, and its level by up to half of `most`."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        draws = (2 * _uniform(6 * len(pictures), generator) - 1).view(2, len(pictures), 3, 1, 1).to(pictures) * most
        mean = pictures.mean((2, 3), keepdim=True)
        return (pictures - mean) * (1 + draws[0]) + mean + draws[1] / 2

    return apply


def overlay(frames: UInt8[Tensor, "frames 3 height width"], most: float) -> Transform:
    """Lay real pictures over, each with an opacity between nothing and `most`.

    What still drives a unit behind other things is large and clear; it is what other subjects see as well.
    """

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        drawn = torch.randint(len(frames), (len(pictures),), generator=generator)
        opacity = most * _uniform(len(pictures), generator).view(-1, 1, 1, 1).to(pictures)
        return (1 - opacity) * pictures + opacity * frames[drawn].to(pictures) / 255

    return apply


def chain(transforms: Sequence[Transform]) -> Transform:
    """Apply transformations in their order; none of them leaves pictures as they are."""

    def apply(pictures: Batch, generator: torch.Generator) -> Batch:
        for one in transforms:
            pictures = one(pictures, generator)
        return pictures

    return apply


def _uniform(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    return torch.rand(n, generator=generator)


def _sampled(pictures: Batch, matrices: Float[Tensor, "n 2 3"]) -> Batch:
    grid = F.affine_grid(matrices.to(pictures), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

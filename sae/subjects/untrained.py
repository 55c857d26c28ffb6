"""The control subject: the same model with weights drawn anew, by the model's own initialisation and a fixed seed.

What a dictionary finds in it is owed to the inputs and to the architecture, not to anything that was learned.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

SEED = 0
N_FRAMES = 64
N_LEAVES = 60
SMALLEST, LARGEST = 0.02, 0.5


@contextmanager
def drawing() -> Iterator[None]:
    """Make what is drawn inside depend on nothing but `SEED`, and leave torch's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def dead_leaves(height: int, width: int) -> UInt8[Tensor, "n 3 height width"]:
    """Return pictures of discs that hide one another, the simplest model with the statistics of natural images.

    Colours are uniform and radii follow r^-3, between 0.02 and 0.5 of the picture. Lee, Mumford & Huang: Occlusion
    models for natural images, International Journal of Computer Vision 41, 2001.
    """
    generator = torch.Generator().manual_seed(SEED)
    y = ((torch.arange(height) + 0.5) / height)[:, None]
    x = ((torch.arange(width) + 0.5) / width)[None, :]
    picture = torch.rand(N_FRAMES, 3, 1, 1, generator=generator).expand(-1, -1, height, width)
    for _ in range(N_LEAVES):
        at_x, at_y, size, *colour = torch.rand(6, N_FRAMES, 1, 1, generator=generator)
        radius_squared = 1 / (SMALLEST**-2 + size * (LARGEST**-2 - SMALLEST**-2))
        inside = (x - at_x) ** 2 + (y - at_y) ** 2 < radius_squared
        picture = torch.where(inside[:, None], torch.stack(colour, 1), picture)
    return (picture * 255).round().byte()


@torch.no_grad()
def settle_batch_norms(model: Any, pixels: Tensor) -> None:
    """Give the image tower's batch norms, if it has any, the statistics of normalised frames.

    Fresh statistics (mean 0, variance 1) leave a random ResNet without any normalisation: its activations shrink a
    hundredfold and point in a single direction, a control too easily beaten.
    """
    norms = [module for module in model.visual.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = None
    model.encode_image(pixels)
    model.eval()

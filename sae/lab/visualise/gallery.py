"""Visualisations as images for cards, and as a gallery beside the data that drives the same latents."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from sae.features.live.given import png
from sae.lab.visualise.judge import as_frames
from sae.lab.visualise.optimise import Visualised
from sae.lab.visualise.studio import Made

N_EXAMPLES = 4
"""Data examples beside each latent."""
ROWS = 12
"""Latents that a gallery shows, the first ones."""


def images(latents: Sequence[int], way: str, made: Visualised, copies: int) -> dict[str, bytes]:
    """Return images by name: latent-N-WAY, further ones -2, -3, and intermediate ones latent-N-WAY-step-S."""
    frames, found = as_frames(made.pictures), {}
    steps = {step: as_frames(pictures) for step, pictures in made.kept.items()}
    for place, latent in enumerate(latents):
        for copy in range(copies):
            name = f"latent-{latent}-{way}" + (f"-{copy + 1}" if copy else "")
            found[name] = png(frames[place * copies + copy])
        for step, pictures in steps.items():
            found[f"latent-{latent}-{way}-step-{step}"] = png(pictures[place * copies])
    return found


def faceted_images(made: Made) -> dict[str, bytes]:
    """Return images by name: latent-N-WAY-FACET."""
    pairs = zip(made.chosen.numbers.tolist(), made.frames, strict=True)
    return {f"latent-{latent}-{made.way}-{made.facet}": png(frame) for latent, frame in pairs}


def draw(titles: Sequence[str], made: Sequence[Made], examples: UInt8[Tensor, "shown 3 height width"]) -> Any:
    """Draw one row per latent: its pictures, then a gap, then its strongest examples."""
    from matplotlib.figure import Figure

    n_rows, n_made = min(len(titles), ROWS), len(made)
    columns = n_made + N_EXAMPLES
    figure = Figure(figsize=(0.92 * columns + 1.4, 0.92 * n_rows + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr]
    grid = figure.add_gridspec(n_rows, columns + 1, width_ratios=[1.0] * n_made + [0.12] + [1.0] * N_EXAMPLES)
    frames = torch.cat([one.frames for one in made]).view(n_made, -1, *examples.shape[1:])
    for row in range(n_rows):
        shown = [*frames[:, row], *examples[row * N_EXAMPLES : (row + 1) * N_EXAMPLES]]
        for column, frame in enumerate(shown):
            axes = figure.add_subplot(grid[row, column + (column >= n_made)])
            axes.imshow(frame.permute(1, 2, 0).numpy(), interpolation="lanczos")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(titles[row], fontsize=8, rotation=0, ha="right", va="center", labelpad=6)
            if row == 0 and column < n_made:
                axes.set_title(made[column].facet or made[column].way, fontsize=9)
            if row == 0 and column == n_made:
                axes.set_title("strongest on data", fontsize=9, loc="left")
    return figure

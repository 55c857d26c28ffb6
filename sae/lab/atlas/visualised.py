"""Cells of an atlas drawn by feature visualisation, and whether the subject finds in a picture the cell that it is of.

The objective is that of Carter et al. 2019 (*Activation Atlas*): the dot product of the picture's vector with the
cell's mean, times their cosine to a power. Both are less the mean of all items, where the article multiplies by the
inverse covariance. Where a layer has several positions, a
picture's vector is the mean over its patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.dictionaries.linear import Directions
from sae.evaluation.sample import Units
from sae.lab.atlas.cells import Atlas
from sae.lab.spread import Spread
from sae.lab.visualise.chosen import chosen
from sae.lab.visualise.judge import as_frames
from sae.lab.visualise.studio import Studio

WAY = "fourier"
AT_ONCE = 64
"""Pictures optimised side by side."""
N_CONTROLS = 96
"""Pictures of each control."""
CONTROLS = ("shuffled cells", "random directions")
LEADS = 0.5
"""Share of a cell's items from which on their concept is what its picture should show."""

Frames = UInt8[Tensor, "n 3 height width"]


@dataclass(frozen=True)
class Seen:
    """Pictures of some of many directions, and how near the subject's vectors of them lie to all of these.

    Attributes:
        name: of the kind.
        frames: the pictures.
        own: the direction that each is of.
        cosines: between each picture's vector and every direction.
    """

    name: str
    frames: Frames
    own: Int[Tensor, " n"]
    cosines: Float[Tensor, "n directions"]

    @property
    def nearest(self) -> Int[Tensor, " n"]:
        return self.cosines.argmax(1)

    @property
    def own_cosine(self) -> Float[Tensor, " n"]:
        return self.cosines.gather(1, self.own[:, None])[:, 0]

    def figures(self) -> dict[str, float]:
        share = Spread.of((self.nearest == self.own).double())
        return share.figures(f"{self.name}, nearest to its own") | {
            f"{self.name}, cosine to its own": float(self.own_cosine.mean()),
            f"{self.name}, pictures": float(len(self.own)),
        }


@dataclass(frozen=True)
class Easel:
    """Draws directions, and has the subject look at pictures.

    Attributes:
        studio: where they are drawn.
        centre: from which directions go.
    """

    studio: Studio
    centre: Float[Tensor, " d_in"]

    def draw(self, name: str, directions: Float[Tensor, "directions d_in"], own: Int[Tensor, " n"]) -> Seen:
        """Visualise some of many directions."""
        bench = self.studio.bench
        dictionary = Directions.of(directions, self.centre).to(bench.dictionary.W_dec.device)
        frames = []
        for first in range(0, len(own), AT_ONCE):
            part = own[first : first + AT_ONCE]
            title = f"{name}, {first + 1} to {first + len(part)} of {len(own)}"
            units = Units(title, dictionary, bench.sample)
            drawn = chosen(units, part, torch.full_like(part, -1), torch.zeros(len(part)))
            frames.append(as_frames(self.studio.made(drawn, WAY).pictures))
        return self.look(name, torch.cat(frames), directions, own)

    @torch.no_grad()
    def look(
        self, name: str, frames: Frames, directions: Float[Tensor, "directions d_in"], own: Int[Tensor, " n"]
    ) -> Seen:
        """Run pictures through the subject, and compare what it makes of them with directions."""
        hookpoint, found = self.studio.hookpoint, []
        for part in frames.split(AT_ONCE):
            x = self.studio.sees.see(part.float() / 255, [hookpoint])[hookpoint].float().cpu()
            found.append(x[:, self.studio.prefix :].mean(1) - self.centre)
        cosines = F.normalize(torch.cat(found), dim=1) @ F.normalize(directions, dim=1).T
        return Seen(name, frames, own, cosines)


def visualised(studio: Studio, atlas: Atlas, nearest: Frames, seed: int) -> list[Seen]:
    """Draw every cell, beside the real pictures nearest to the means and two controls.

    These are the means of cells whose items were shuffled, which tell how far optimisation gets with any mean of so
    many items, and random directions; each is looked for among as many of its kind as there are cells.

    Args:
        studio: whose aim is the mean over patches.
        atlas: whose cells.
        nearest: a real picture of every cell.
        seed: of the controls.
    """
    generator = torch.Generator().manual_seed(seed)
    easel, n, d_in = Easel(studio, atlas.x.mean(0)), len(atlas.cells), atlas.x.shape[1]
    cells = atlas.averaged(atlas.x).float() - easel.centre
    dealt = atlas.x[torch.randperm(len(atlas.x), generator=generator)]
    shuffled = atlas.averaged(dealt).float() - easel.centre
    random = torch.randn(n, d_in, generator=generator)
    every, some = torch.arange(n), torch.randperm(n, generator=generator)[:N_CONTROLS]
    return [
        easel.draw("visualised", cells, every),
        easel.look("nearest picture", nearest, cells, every),
        *(easel.draw(name, of, some) for name, of in zip(CONTROLS, (shuffled, random), strict=True)),
    ]


def leading(atlas: Atlas, labels: Int[Tensor, " items"]) -> Int[Tensor, " cells"]:
    """Return the label that at least half of a cell's items have, -1 where there is none."""
    found = []
    for cell in range(len(atlas.cells)):
        values = labels[atlas.members(cell)]
        counts = values[values >= 0].bincount(minlength=1)
        found.append(int(counts.argmax()) if counts.max() >= max(1, LEADS * len(values)) else -1)
    return torch.tensor(found)


def judged(studio: Studio, seen: Sequence[Seen], concept: Int[Tensor, " cells"]) -> dict[str, float]:
    """Return the share of pictures of cells in which each judge sees the concept that leads there.

    Beside it stands the same for the pictures of one cell and the concept of another, where that is another one.
    """
    led = concept >= 0
    others = concept[led][:, None] != concept[led]
    if not others.any():
        return {}
    figures = {"cells with a concept": float(led.sum())}
    for one in seen:
        for name, judge in studio.judges.items():
            right: Bool[Tensor, "n n"] = judge.classes(one.frames[led])[:, None] == concept[led]
            figures |= Spread.of(right.diagonal().double()).figures(f"{one.name}, {name} sees the concept")
            figures[f"{one.name}, {name} sees another cell's"] = float(right[others].double().mean())
    return figures


def said(figures: Mapping[str, float]) -> str:
    """Tell the shares in a sentence, and what judges see in another."""
    own = {name: figures[f"{name}, nearest to its own"] for name in ("visualised", "nearest picture", *CONTROLS)}
    controls = " and of ".join(f"{name} {own[name]:.0%}" for name in CONTROLS)
    told = (
        f" The subject's vector of a cell's visualisation is nearest to that cell's mean in {own['visualised']:.0%} "
        f"(nearest real picture {own['nearest picture']:.0%}; visualisations of {controls}, each among its own kind)."
    )
    for name in figures:
        if name.startswith("visualised, ") and name.endswith(" sees the concept"):
            judge = name.removeprefix("visualised, ").removesuffix(" sees the concept")
            other = figures[f"visualised, {judge} sees another cell's"]
            told += f" {judge} sees the cell's concept in {figures[name]:.0%} (another cell's in {other:.1%})."
    return told

"""The concept world as inputs: numbered images, with captions where a tokenizer is given."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sae.errors import InputsError, nearest
from sae.inputs.base import Classes
from sae.inputs.concepts.labels import BOOKKEEPING, numbered
from sae.inputs.concepts.sampling import VERSION
from sae.inputs.concepts.scene import Scene
from sae.inputs.concepts.vocabulary import COMPANION_RATES
from sae.inputs.concepts.world import World
from sae.inputs.concepts.written import Written, caption, written
from sae.inputs.writing import write
from sae.tensors import Batch, Kind

MASK_NAMES = ("concept", "text", "companion", "badge", "eyes", "mouth", "background")
"""Parts of a picture whose place is known; the background is what no figure or writing covers."""

Tokenize = Callable[[list[str]], Int[Tensor, "example pos"]]
WRITTEN = "written"
"""Family of labels: the word across a picture."""
LOOKS: Mapping[str, Callable[[str], Any]] = {
    "glasses": lambda value: value == "yes",
    "hair_colour": str,
    "hair": str,
    "skin": int,
}
"""Factors of a role's appearance, and how a scene holds the values that labels name."""
_NAMING = {"concept", "text", "companion", WRITTEN}
"""Families of labels whose values are concepts."""


class ConceptInputs:
    """Scenes 0 to `n_examples` of one split as images, and as captions where `tokenize` is given.

    Args:
        world: the world to take scenes from.
        split: "subject", "dictionary" or "score".
        n_examples: how many scenes.
        tokenize: turns captions into token numbers padded with 0; begins each with a start token and ends it with an
            end token, as CLIP's tokenizers do.
        uniform: draw concepts with equal chances rather than by Zipf frequency.
        facet: only this facet.
        written: write a word across about this share of the pictures that show none (see `written.py`).
    """

    def __init__(
        self,
        world: World,
        split: str,
        n_examples: int,
        tokenize: Tokenize | None = None,
        *,
        uniform: bool = False,
        facet: str | None = None,
        written: float = 0.0,
    ):
        if n_examples < 1:
            raise InputsError(f"ConceptInputs: n_examples is {n_examples}; at least 1 is needed")
        if not 0 <= written <= 1:
            raise InputsError(f"ConceptInputs: written is a share in [0, 1], got {written}")
        world.scene(split, 0, facet=facet)
        self.world, self.split, self.n_examples = world, split, n_examples
        self.tokenize, self.uniform, self.facet, self.written = tokenize, uniform, facet, written
        self.label_names = world.label_names | ({WRITTEN: world.label_names["concept"]} if written else {})
        self.bookkeeping = BOOKKEEPING
        self.mask_names = MASK_NAMES
        self.classes = Classes("concept", [world.prompts(concept) for concept in world.concepts])
        self.fingerprint: str = hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return self.n_examples

    def scene(self, index: int) -> Scene:
        """Return the scene of an example."""
        if not 0 <= index < self.n_examples:
            raise InputsError(f"ConceptInputs: no example {index}; there are {self.n_examples}")
        return self.world.scene(self.split, index, facet=self.facet, uniform=self.uniform)

    def picture(self, scene: Scene) -> UInt8[np.ndarray, "size size 3"]:
        """Return the picture of a scene, with what is written across it."""
        image, across = self.world.render(scene).image, self.across(scene)
        return image if across is None else write(image, across.writing)[0]

    def caption(self, scene: Scene) -> str:
        """Return the caption of a scene."""
        return caption(self.world, scene, self.across(scene))

    def across(self, scene: Scene) -> Written | None:
        """Return what is written across a scene, if anything is."""
        return written(self.world, scene, self.written) if self.written else None

    def kindred(self, one: str, other: str) -> bool:
        """Whether two labels name related concepts, as what is shown, written or shown beside it."""
        (family, _, name), (other_family, _, other_name) = one.partition("="), other.partition("=")
        if not {family, other_family} <= _NAMING:
            return False
        return self.world.related(name, other_name)

    def associations(self) -> dict[str, dict[str, float]]:
        """Return, of each concept that brings others along in photos and sketches, these and at what rate."""
        return {
            one.name: {other: COMPANION_RATES[strength] for other, strength in one.associates}
            for one in self.world.concepts
            if one.associates
        }

    def kin(self) -> dict[str, str]:
        """Return the family of each concept; of a region also its climate, as landscapes of one climate look alike."""
        return {
            one.name: f"{one.family}, {one.map_position[1]:.2f} south" if one.family == "region" else one.family
            for one in self.world.concepts
        }

    def frequencies(self) -> dict[str, float]:
        """Return how often each concept is drawn by the world's seed, in training too."""
        shares = self.world.frequencies.tolist()
        return {one.name: share for one, share in zip(self.world.concepts, shares, strict=True)}

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return the two simple emotions that each mixed one shows, as eyes and as mouth."""
        simple = {one.parts[0]: one.name for one in self.world.concepts if len(set(one.parts)) == 1}
        return {
            one.name: tuple(simple[part] for part in one.parts)
            for one in self.world.concepts
            if len(set(one.parts)) > 1
        }

    def varied(self, index: int, family: str) -> dict[str, Batch]:
        """Return the picture of a role with each value of one factor of its appearance and nothing else changed.

        Text, companion and badge are left out. Nothing is returned where the picture does not show the factor.

        Raises:
            InputsError: the family is none of `LOOKS`.
        """
        if family not in LOOKS:
            raise InputsError(f"Concept world: {family!r} cannot be changed alone.{nearest(family, LOOKS)}")
        scene, found = replace(self.scene(index), text="", companion="", badge=False), {}
        if self.world.concept(scene.concept).family != "role" or not self.world.labels(scene)[family]:
            return {}
        for value in self.label_names[family]:
            other = replace(scene, **{family: LOOKS[family](value)})
            if self.world.labels(other)[family] == value:
                image = torch.from_numpy(self.world.render(other).image).permute(2, 0, 1)[None].contiguous()
                found[value] = Batch(first_example=index, images=image)
        return found

    def batch(self, start: int, stop: int) -> Batch:
        """Return examples start to stop: images [n, 3, size, size], and captions' tokens if there is a tokenizer."""
        scenes = [self.scene(index) for index in range(start, stop)]
        images = torch.from_numpy(np.stack([self.picture(scene) for scene in scenes])).permute(0, 3, 1, 2).contiguous()
        if self.tokenize is None:
            return Batch(first_example=start, images=images)
        tokens = self.tokenize([self.caption(scene) for scene in scenes])
        attended = (tokens != 0).flip(1).cummax(1).values.flip(1)
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[~attended] = int(Kind.SPECIAL)
        kind[:, 0] = int(Kind.BOS)
        kind[torch.arange(len(scenes)), attended.sum(1) - 1] = int(Kind.EOT)
        return Batch(first_example=start, tokens=tokens, attended=attended, kind=kind, images=images)

    def describe(self) -> dict[str, Any]:
        """Return what a manifest records."""
        return {
            "source": "concepts",
            "version": VERSION,
            "seed": self.world.seed,
            "size": self.world.size,
            "split": self.split,
            "n_examples": self.n_examples,
            "uniform": self.uniform,
            "captions": self.tokenize is not None,
            "facet": self.facet,
        } | ({WRITTEN: self.written} if self.written else {})

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return number, concept, facet and caption of each example; with `describe` it can be made again."""
        scenes = [(index, self.scene(index)) for index in range(start, stop)]
        return [
            {"index": index, "concept": scene.concept, "facet": scene.facet, "caption": self.caption(scene)}
            for index, scene in scenes
        ]

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the exact factors of examples start to stop.

        Families of `label_names` are int64 [examples], -1 where the picture does not show the factor; the continuous
        factors (`labels.NUMBERS`) are float64 [examples], NaN likewise.
        """
        scenes = [self.scene(index) for index in range(start, stop)]
        rows = [self.world.labels(scene) for scene in scenes]
        if self.written:
            found = [self.across(scene) for scene in scenes]
            rows = [row | {WRITTEN: one.writing.word if one else ""} for row, one in zip(rows, found, strict=True)]
        return numbered(rows, self.label_names)

    def masks(self, start: int, stop: int, grid: tuple[int, int]) -> Float[np.ndarray, "example pos parts"]:
        """Return how much of each cell each part of `mask_names` covers in examples start to stop, in [0, 1].

        Args:
            start: first example.
            stop: one past the last.
            grid: rows and columns of cells that the picture is cut into; cells follow row by row.

        Raises:
            InputsError: the cells do not divide the picture evenly.
        """
        if any(self.world.size % cells for cells in grid):
            raise InputsError(
                f"ConceptInputs: {grid[0]} x {grid[1]} cells do not divide a picture of {self.world.size} pixels evenly"
            )
        return np.stack([_shares(self._masks(self.scene(index)), grid) for index in range(start, stop)])

    def _masks(self, scene: Scene) -> dict[str, Float[np.ndarray, "size size"]]:
        """Return the masks of a scene; a word across it counts as text and covers everything else."""
        render, across = self.world.render(scene), self.across(scene)
        if across is None:
            return render.masks
        over = write(render.image, across.writing)[1].astype(np.float32)
        below = {name: mask * (1 - over) for name, mask in render.masks.items()}
        return below | {"text": below.get("text", 0) + over}


def _shares(
    masks: Mapping[str, Float[np.ndarray, "size size"]], grid: tuple[int, int]
) -> Float[np.ndarray, "pos parts"]:
    """Average masks over cells."""
    n_rows, n_columns = grid
    size = len(masks["concept"])
    found = dict.fromkeys(MASK_NAMES, np.zeros((size, size), np.float32)) | dict(masks)
    covered = sum(found[name] for name in ("concept", "text", "companion", "badge"))
    found["background"] = np.clip(1 - covered, 0, 1)
    stacked = np.stack([found[name] for name in MASK_NAMES], -1)
    cells = stacked.reshape(n_rows, size // n_rows, n_columns, size // n_columns, len(MASK_NAMES))
    return cells.mean((1, 3), dtype=np.float64).reshape(-1, len(MASK_NAMES)).astype(np.float32)

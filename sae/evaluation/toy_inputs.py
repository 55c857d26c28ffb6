"""Texts, pictures and pairs made of the rows of a toy: tokens whose contexts drive features, parts with exact masks,
concepts in facets, and pictures that differ in one feature alone.

Whatever way features of a toy fire together, they do so here; what is added says where, and how it is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.activations.store import Provenance
from sae.errors import EvaluationError
from sae.evaluation.facets import FACETS
from sae.evaluation.pairs import FACTOR
from sae.evaluation.patterns import REACH, WINDOW
from sae.evaluation.sample import Sample, halves
from sae.evaluation.toys import Drawn, Toy, feature_labels
from sae.tensors import Kind

N_FILLERS = 8
"""Tokens that mean nothing."""
PASSAGES_PER_EXAMPLE = 4
MAX_DRAWS = 1000
"""Times that rows are drawn before a condition counts as one that never holds."""


def toy_text(toy: Toy, n_passages: int, seed: int = 0) -> tuple[Sample, Drawn]:
    """Write rows of a toy as text: one feature-bearing row per passage of 16 tokens, told by the tokens up to it.

    At a random place of a passage stand four tokens, one for each of at most four features, in random order and places;
    the row of the last one is a row of the toy with just these features. So a feature is exactly four patterns, one
    per place: `its word for this place, so many tokens back`. All other rows are zero. Rows of the toy with more than
    four features are not used.

    Returns:
        The sample, whose items are tokens, and the row of the toy that each of them holds.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = _draw_where(toy, n_passages, generator, lambda rows: rows.fired.sum(1) <= REACH + 1)
    n_features, n_rows = len(toy.directions), n_passages * WINDOW
    passage = torch.arange(n_passages)
    at = passage * WINDOW + torch.randint(REACH, WINDOW, (n_passages,), generator=generator)
    token = torch.randint(N_FILLERS, (n_rows,), generator=generator)
    # Features of a row first, in random order, then nothing (feature number n_features); then places are dealt out.
    order = (drawn.fired + torch.rand(drawn.codes.shape, generator=generator)).argsort(1, descending=True)
    order = torch.where(drawn.fired.gather(1, order), order, n_features)[:, : REACH + 1]
    places = torch.rand(n_passages, REACH + 1, generator=generator).argsort(1)
    for back in range(REACH + 1):
        word = order.gather(1, places[:, back : back + 1])[:, 0]
        token[at - back] = N_FILLERS + back * (n_features + 1) + word
    x, codes = torch.zeros(n_rows, toy.directions.shape[1]), torch.zeros(n_rows, n_features)
    x[at], codes[at] = drawn.x, drawn.codes
    example = (passage // PASSAGES_PER_EXAMPLE).repeat_interleave(WINDOW)
    position = torch.arange(n_rows) % (PASSAGES_PER_EXAMPLE * WINDOW)
    labels = feature_labels(codes > 0)
    sample = Sample(
        x=x,
        rows=Provenance(example, position, torch.full((n_rows,), int(Kind.TOKEN), dtype=torch.uint8), token),
        pooled=False,
        labels=labels,
        factors=labels,
        label_names=dict.fromkeys(labels, ("on",)),
        match=halves(example, seed),
    )
    return sample, Drawn(x, codes, {})


@dataclass(frozen=True)
class ToyImages:
    """Pictures of rows of a toy: each shows one row in one cell of a grid, and in its class token.

    Exactly one *concept* fires in a picture, and exactly one *facet*: features that any toy has, told apart by name
    alone. All other features fire as they do in the toy. Masks are exact: every feature covers the cell where it fires.

    Attributes:
        sample: with the factors `concept`, `facet` and `held_out_facet`, and every feature as a family of labels.
        drawn: the row of the toy that each picture shows.
        concepts: features that take turns as concepts.
        cell: where on the grid.
        grid: rows and columns of cells.
        mask_names: the features.
    """

    sample: Sample
    drawn: Drawn
    concepts: Int[Tensor, " concepts"]
    cell: Int[Tensor, " items"]
    grid: tuple[int, int]
    mask_names: tuple[str, ...]

    def masks(self, start: int, stop: int, grid: tuple[int, int]) -> Float[np.ndarray, "items cells parts"]:
        """Return the share of every cell that each feature covers, 0 or 1 (see `inputs.base.Masked`).

        Raises:
            EvaluationError: the grid is not that of the pictures.
        """
        if grid != self.grid:
            raise EvaluationError(f"toy images: cells lie on a grid of {self.grid}, masks are asked for on {grid}.")
        here = torch.nn.functional.one_hot(self.cell[start:stop], grid[0] * grid[1])
        return (here[:, :, None] * self.drawn.fired[start:stop, None]).float().numpy()

    def joint(
        self, toy: Toy, gap: float = 2.0
    ) -> tuple[Float[Tensor, "items d_joint"], Float[Tensor, "concepts d_joint"]]:
        """Embed pictures by the features they show and concepts by their directions, a gap apart, as two towers do."""
        apart = torch.full((toy.directions.shape[1],), gap / toy.directions.shape[1] ** 0.5)
        images = self.drawn.codes @ toy.directions
        return images + apart, toy.directions[self.concepts] - apart


def toy_images(toy: Toy, n_images: int, grid: tuple[int, int] = (6, 6), seed: int = 0) -> ToyImages:
    """Draw pictures (see `ToyImages`): the last four leaders of a toy are the facets, the other leaders its concepts.

    Every concept has one facet that the subject counts as never having seen of it.

    Raises:
        EvaluationError: the toy never has exactly one concept and one facet at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    concepts, facets = toy.leaders[: -len(FACETS)], toy.leaders[-len(FACETS) :]

    def one_of_each(rows: Drawn) -> Bool[Tensor, " batch"]:
        return (rows.fired[:, concepts].sum(1) == 1) & (rows.fired[:, facets].sum(1) == 1)

    drawn = _draw_where(toy, n_images, generator, one_of_each)
    concept, facet = (drawn.fired[:, some].long().argmax(1) for some in (concepts, facets))
    held_out = facet == concept % len(FACETS)
    n_cells, numbers = grid[0] * grid[1], torch.arange(n_images)
    cell = torch.randint(n_cells, (n_images,), generator=generator)
    x = torch.zeros(n_images, 1 + n_cells, toy.directions.shape[1])
    x[:, 0] = x[numbers, 1 + cell] = drawn.x
    kind = torch.full((1 + n_cells,), int(Kind.PATCH), dtype=torch.uint8)
    kind[0] = int(Kind.CLASS)
    labels = {"concept": concept.numpy()} | feature_labels(drawn.fired)
    named = {"facet": facet.numpy(), "held_out_facet": held_out.long().numpy()}
    names = tuple(f"feature_{i}" for i in range(len(toy.directions)))
    sample = Sample(
        x=x.flatten(0, 1),
        rows=Provenance(
            numbers.repeat_interleave(1 + n_cells), torch.arange(1 + n_cells).repeat(n_images), kind.repeat(n_images)
        ),
        pooled=True,
        labels=labels,
        factors=labels | named | drawn.factors,
        label_names={"concept": tuple(names[i] for i in concepts), "facet": FACETS, "held_out_facet": ("no", "yes")}
        | dict.fromkeys(names, ("on",)),
        match=halves(numbers, seed),
    )
    return ToyImages(sample, drawn, concepts, cell, grid, names)


def toy_pairs(toy: Toy, n_pairs: int, seed: int = 0) -> Sample:
    """Draw pairs that differ in one feature alone: a row in which it fires, and the same row without it.

    Args:
        toy: whose rows; those that could not occur without the feature are not used.
        n_pairs: pairs per feature.
        seed: of rows and halves.

    Returns:
        A sample whose items 2i and 2i + 1 are a pair, with the number of its feature as label `pair_factor`.
    """
    generator, parts = torch.Generator().manual_seed(seed), []
    for feature, direction in enumerate(toy.directions):

        def can_do_without(rows: Drawn, feature: int = feature) -> Bool[Tensor, " batch"]:
            without = rows.fired
            without[:, feature] = False
            return rows.fired[:, feature] & toy.possible(without)

        drawn = _draw_where(toy, n_pairs, generator, can_do_without)
        parts.append(torch.stack([drawn.x, drawn.x - drawn.codes[:, feature, None] * direction], 1).flatten(0, 1))
    n_features, numbers = len(toy.directions), torch.arange(2 * n_pairs * len(toy.directions))
    factor = torch.arange(n_features).repeat_interleave(2 * n_pairs).numpy()
    return Sample(
        x=torch.cat(parts),
        rows=Provenance(
            numbers, torch.zeros_like(numbers), torch.full(numbers.shape, int(Kind.POOLED), dtype=torch.uint8)
        ),
        pooled=True,
        labels={FACTOR: factor},
        factors={FACTOR: factor},
        label_names={FACTOR: tuple(f"feature_{i}" for i in range(n_features))},
        match=halves(numbers // 2, seed),
    )


def _draw_where(
    toy: Toy, n_rows: int, generator: torch.Generator, keep: Callable[[Drawn], Bool[Tensor, " batch"]]
) -> Drawn:
    """Draw rows until enough of them meet a condition."""
    kept: list[Drawn] = []

    def batches() -> Iterator[Drawn]:
        for _ in range(MAX_DRAWS):
            drawn = toy.draw(max(n_rows, 1024), generator)
            yield drawn.where(keep(drawn))

    for drawn in batches():
        kept.append(drawn)
        if sum(len(part.x) for part in kept) >= n_rows:
            x, codes = (torch.cat([getattr(part, name) for part in kept])[:n_rows] for name in ("x", "codes"))
            factors = {name: np.concatenate([part.factors[name] for part in kept])[:n_rows] for name in drawn.factors}
            return Drawn(x, codes, factors)
    raise EvaluationError(f"toy: only {sum(len(part.x) for part in kept)} of {n_rows} rows could be drawn.")

"""Rows set aside: whole examples drawn at random, so that no neighbour of a held-out row is trained on."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from sae.activations.store import Vectors

_STREAM = 0x5E7A51DE
"""Keeps the draw apart from other uses of the same seed."""


def hold_out(vectors: Sequence[Vectors], n_vectors: int, seed: int) -> tuple[tuple[Vectors, ...], tuple[Vectors, ...]]:
    """Split rows that lie on the same places into those kept and about `n_vectors` held out, one example at least.

    Which examples are held out depends on their number and the seed alone, and is the same for all of the vectors.
    """
    if n_vectors == 0 or not len(vectors[0]):
        return tuple(vectors), ()
    n_examples = vectors[0].store.manifest.inputs.n_examples
    n_held = min(max(round(n_examples * n_vectors / len(vectors[0])), 1), n_examples)
    chosen = torch.from_numpy(drawn_examples(n_examples, n_held, seed))
    held = {"held_out": {"n_examples": n_held, "seed": seed}}
    return (
        tuple(v.restricted(v.index.keep(_marks(v, chosen, False)), **held) for v in vectors),
        tuple(v.restricted(v.index.keep(_marks(v, chosen, True)), only=held) for v in vectors),
    )


def drawn_examples(n_examples: int, n_held: int, seed: int) -> Int[np.ndarray, " held"]:
    """Return the numbers of the examples that are held out, in rising order."""
    drawn = np.random.default_rng([seed, _STREAM]).choice(n_examples, n_held, replace=False, shuffle=False)
    return np.sort(drawn)


def _marks(vectors: Vectors, chosen: Tensor, wanted: bool) -> Callable[[int], Tensor]:
    def mark(shard: int) -> Tensor:
        example = vectors.store.columns(vectors.hookpoint.grid, shard)["example"]
        return torch.isin(example, chosen) == wanted

    return mark

"""The examples on which latents are strongest, from a store or from a subject as it runs."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.activations.join import align
from sae.activations.side_by_side import together
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.dictionaries.base import Dictionary
from sae.errors import DictionaryError, HookpointError
from sae.evaluation.splicing import trained_rows
from sae.inputs.base import Inputs
from sae.subjects.base import Subject, find_hookpoint
from sae.tensors import Vectors


@dataclass(frozen=True)
class Chunk:
    """Vectors of whole examples, with where each one came from."""

    x: Vectors
    example: Int[Tensor, " batch"]
    position: Int[Tensor, " batch"]


@dataclass(frozen=True, order=True)
class Example:
    """One example as a latent sees it: its largest activation, and the activation at every position that has a row."""

    value: float
    example: int
    position: int = field(compare=False)
    positions: Int[Tensor, " rows"] = field(compare=False, repr=False)
    activations: Float[Tensor, " rows"] = field(compare=False, repr=False)


def stored_chunks(store: ActivationStore, hookpoint: str | Sequence[str], chunk_vectors: int = 8192) -> Iterator[Chunk]:
    """Read a store from its start in chunks that end where an example ends; BOS and special rows are left out.

    Several hookpoints are read side by side, as a crosscoder does; positions are those of the first.
    """
    vectors = together(align([store.vectors(name, TRAINING_KINDS) for name in _names(hookpoint)]))
    for start, rows in vectors.whole_examples(chunk_vectors):
        yield Chunk(vectors.read(start, start + len(rows)), rows.example, rows.position)


def live_chunks(
    subject: Subject, inputs: Inputs, hookpoint: str | Sequence[str], n_examples: int, batch_examples: int = 16
) -> Iterator[Chunk]:
    """Run a subject over the first examples of its inputs and yield the vectors, storing nothing.

    Raises:
        HookpointError: of several hookpoints, which are read side by side, some lie on other grids than the first.
    """
    names = _names(hookpoint)
    grids = {name: find_hookpoint(subject.hookpoints(), name, subject.id).grid for name in names}
    if len(set(grids.values())) > 1:
        raise HookpointError(f"{subject.id}: hookpoints on different grids ({grids}) are aligned in a store only.")
    for start in range(0, min(n_examples, len(inputs)), batch_examples):
        batch = inputs.batch(start, min(start + batch_examples, n_examples, len(inputs)))
        with torch.no_grad():
            found = subject.run(batch, names)
        example, position = trained_rows(subject, batch, names[0]).nonzero(as_tuple=True)
        x = torch.cat([found[name][example, position].float().cpu() for name in names], dim=1)
        yield Chunk(x, example.cpu() + start, position.cpu())


def top_examples(
    dictionary: Dictionary, chunks: Iterable[Chunk], latents: Sequence[int], n: int = 10
) -> dict[int, list[Example]]:
    """Find the examples with the largest activation of each latent, strongest first.

    An example counts once, by its largest activation; examples on which the latent is silent are left out. Memory is
    that of one chunk and n examples per latent.

    Raises:
        DictionaryError: the dictionary has no such latent.
    """
    for latent in latents:
        if not 0 <= latent < dictionary.d_sae:
            raise DictionaryError(f"{dictionary!r}: no latent {latent}; they are numbered 0 to {dictionary.d_sae - 1}.")
    best: dict[int, list[Example]] = {latent: [] for latent in latents}
    for chunk in chunks:
        with torch.no_grad():
            codes = dictionary.encode(chunk.x)
        rows = codes.rows
        for latent, found in best.items():
            of_latent = (codes.indices == latent) & (codes.values > 0)
            activation = torch.zeros(len(codes)).index_put_((rows[of_latent],), codes.values[of_latent].float())
            for example in chunk.example[activation > 0].unique().tolist():
                _offer(found, chunk, activation, example, n)
    return {latent: sorted(found, reverse=True) for latent, found in best.items()}


def _names(hookpoint: str | Sequence[str]) -> list[str]:
    return [hookpoint] if isinstance(hookpoint, str) else list(hookpoint)


def _offer(found: list[Example], chunk: Chunk, activation: Float[Tensor, " batch"], example: int, n: int) -> None:
    """Keep the example if it is among the n strongest so far."""
    where = (chunk.example == example).nonzero().squeeze(1)
    values = activation[where]
    peak = int(values.argmax())
    candidate = Example(float(values[peak]), example, int(chunk.position[where[peak]]), chunk.position[where], values)
    if len(found) < n:
        heapq.heappush(found, candidate)
    elif candidate > found[0]:
        heapq.heapreplace(found, candidate)

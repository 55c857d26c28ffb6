"""Kernels for CPUs: blocked selection, sums of weighted rows by embedding_bag, dots by a sampled sparse product.

Each output is summed by one thread in a fixed order, so results have the same bits for the same inputs and number of
threads.
"""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

BLOCK_ROWS = 512
"""Rows whose pre-activations exist at a time: the buffer stays in cache and is reused, whatever the batch."""

GROUP = 8
"""Entries per group when searching for the largest; a group takes one from each of as many stretches of a row."""

STRIPE_ROWS = 64
"""Rows that are worth a thread of their own when partitioned."""

PACKED = 8
"""Flags tested at a time when searching for active entries: a word of eight is skipped when all of it is zero."""


with warnings.catch_warnings():
    # torch calls this layout a beta once per process, at the first tensor of it; that need not be a user's worry.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0], [], torch.zeros(0), (0, 1), check_invariants=False)


def select_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    dead: Bool[Tensor, " d_sae"] | None,
    k_aux: int,
    absolute: bool = False,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """Return values and latents of the k largest pre-activations, then of at most k_aux among the dead.

    As many extra columns as there are dead latents, up to k_aux; none when nothing is dead. With k = 0 only the dead
    latents are computed. With `absolute` the k largest are those furthest from zero, on either side.
    """
    among = torch.empty(0, dtype=torch.int64) if dead is None else dead.nonzero().squeeze(1)
    k_aux = min(k_aux, len(among))
    if k == 0:
        values, chosen = select_topk(x, weight[among], bias[among], k_aux, None, 0) if k_aux else _nothing(x)
        return values, among[chosen.long()].to(torch.int32)
    values = x.new_empty(len(x), k + k_aux)
    indices = torch.empty(len(x), k + k_aux, dtype=torch.int32)
    for block, pre in _pre_blocks(x, weight, bias):
        values[block, :k], indices[block, :k] = _furthest(pre, k) if absolute else _largest(pre, k)
        if k_aux:
            values[block, k:], chosen = _largest(pre.index_select(1, among), k_aux)
            indices[block, k:] = among[chosen].to(torch.int32)
    return values, indices


def select_above(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, "..."],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the pre-activations above a threshold, one per latent or one for all, in compressed rows."""
    rows, columns, values = [], [], []
    for block, pre in _pre_blocks(x, weight, bias):
        flat = _active(pre > threshold)
        row = flat // pre.shape[1]
        rows.append(row + block.start)
        columns.append((flat - row * pre.shape[1]).to(torch.int32))
        values.append(pre.view(-1)[flat])
    return _offsets(torch.cat(rows), len(x)), torch.cat(columns), torch.cat(values)


def select_batch_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n: int,
    floor: Float[Tensor, ""],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the n largest positive pre-activations of the whole batch, in compressed rows.

    Nothing of size batch x d_sae is sorted: only what exceeds `floor`, a guess from below at the n-th largest, is
    looked at. Where the guess was too high the search starts again from zero, so the result does not depend on it.
    """
    offsets, indices, values = select_above(x, weight, bias, floor)
    if len(values) < n and floor > 0:
        offsets, indices, values = select_above(x, weight, bias, torch.zeros_like(floor))
    return largest_of(offsets, indices, values, n)


def largest_of(
    offsets: Int[Tensor, " batch_plus_1"], indices: Int[Tensor, " nnz"], values: Float[Tensor, " nnz"], n: int
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " kept"], Float[Tensor, " kept"]]:
    """Keep the n largest of compressed rows' entries, all if there are no more."""
    if len(values) <= n:
        return offsets, indices, values
    kept = values.topk(n, sorted=False).indices.sort().values
    return _offsets(_rows(offsets, indices)[kept], len(offsets) - 1), indices[kept], values[kept]


def decode(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "batch d_in"]:
    """Sum the weighted latent directions of every row."""
    return F.embedding_bag(
        indices, weight, offsets.to(indices.dtype), mode="sum", per_sample_weights=values, include_last_offset=True
    )


def gather_dots(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    grad: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, " nnz"]:
    """Multiply every entry's latent direction with the gradient of its row.

    A product of two dense matrices sampled at the entries; two thirds of the time of embedding_bag's own gradient to
    its weights, which is the same sum.
    """
    shape, zeros = (len(grad), len(weight)), grad.new_zeros(len(indices))
    entries = torch.sparse_csr_tensor(offsets.to(indices.dtype), indices, zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(entries, grad, weight.T, beta=0.0).values()


def accumulate(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    vectors: Float[Tensor, "batch d_in"],
    d_sae: int,
) -> Float[Tensor, "d_sae d_in"]:
    """Sum, for every latent, the weighted vectors of the rows it is active in: decode with the codes transposed."""
    if vectors.shape[1] == 1:  # one number per row needs no order; one thread adds them up
        weighted = values * vectors[_rows(offsets, indices).long(), 0]
        return values.new_zeros(d_sae).index_add_(0, indices, weighted)[:, None]
    order = indices.sort(stable=True).indices
    transposed_offsets = indices.new_zeros(d_sae + 1)
    transposed_offsets[1:] = indices.bincount(minlength=d_sae).cumsum(0)
    rows = _rows(offsets, indices).index_select(0, order)
    return decode(transposed_offsets, rows, values.index_select(0, order), vectors)


def _largest(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the exact k largest entries of every row and their columns, in no particular order.

    The k largest entries lie in the k groups with the largest maxima, so when k is small against the width it is
    enough to look into those.
    """
    batch, width = pre.shape
    if width % GROUP or k * GROUP**2 > width:
        columns = _partitioned(pre, k)
        return pre.gather(1, columns), columns
    n_groups = width // GROUP
    groups = _partitioned(pre.view(batch, GROUP, n_groups).amax(1), k)
    columns = (groups[:, None] + torch.arange(0, width, n_groups)[:, None]).view(batch, GROUP * k)
    values = pre.gather(1, columns)
    chosen = _partitioned(values, k)
    return values.gather(1, chosen), columns.gather(1, chosen)


def _partitioned(pre: Tensor, k: int) -> Int[Tensor, "rows k"]:
    """Return the columns of every row's k largest entries; numpy's vectorised partition takes a quarter of topk's time.

    numpy lets go of the interpreter's lock, so stripes of rows are partitioned side by side.
    """
    first = pre.shape[1] - k
    if first == 0:
        return torch.arange(k).expand(len(pre), k)
    rows = (pre.float() if pre.dtype == torch.bfloat16 else pre).numpy()  # numpy has no bfloat16
    stripes = np.array_split(rows, min(torch.get_num_threads(), max(len(rows) // STRIPE_ROWS, 1)))
    if len(stripes) == 1:
        return torch.from_numpy(_last_columns(stripes[0], first))
    found = _pool(len(stripes)).map(_last_columns, stripes, [first] * len(stripes))
    return torch.from_numpy(np.concatenate(list(found)))


def _last_columns(rows: np.ndarray, first: int) -> np.ndarray:
    return np.argpartition(rows, first, axis=1)[:, first:].copy()


@lru_cache(maxsize=4)
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="partition")


def _furthest(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    columns = _largest(pre.abs(), k)[1]
    return pre.gather(1, columns), columns


def _pre_blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield pre-activations block by block, always in the same buffer."""
    buffer = x.new_empty(min(BLOCK_ROWS, len(x)), len(weight))
    for start in range(0, max(len(x), 1), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        rows = x[block]
        yield block, torch.addmm(bias, rows, weight.T, out=buffer[: len(rows)])


def _active(flags: Bool[Tensor, "rows width"]) -> Int[Tensor, " active"]:
    """Return the flat positions of the true entries in order; made for few of them, a third of nonzero's time."""
    if flags.shape[1] % PACKED:
        return flags.view(-1).nonzero()[:, 0]
    words = flags.view(torch.int64).view(-1).nonzero()[:, 0]
    within = flags.view(-1, PACKED)[words].nonzero()
    return words[within[:, 0]] * PACKED + within[:, 1]


def _nothing(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int32)


def _offsets(rows: Int[Tensor, " nnz"], batch: int) -> Int[Tensor, " batch_plus_1"]:
    offsets = torch.zeros(batch + 1, dtype=torch.int64)
    offsets[1:] = rows.bincount(minlength=batch).cumsum(0)
    return offsets


def _rows(offsets: Tensor, indices: Tensor) -> Tensor:
    numbers = torch.arange(len(offsets) - 1, dtype=indices.dtype)
    return numbers.repeat_interleave(offsets.diff(), output_size=len(indices))

"""Exact area under the ROC curve of every unit for every label: of latents from codes, of neurons from vectors."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.codes import Codes


@dataclass(frozen=True)
class Entries:
    """The non-zero activations of many rows, gathered: entry i says that `latents[i]` was `values[i]` in `rows[i]`."""

    rows: Int[Tensor, " nnz"]
    latents: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    n_rows: int
    n_latents: int

    def restricted(self, keep: Bool[Tensor, " rows"]) -> "Entries":
        """Keep only some rows, renumbered in order."""
        number = keep.long().cumsum(0) - 1
        kept = keep[self.rows]
        rows = number[self.rows[kept]]
        return Entries(rows, self.latents[kept], self.values[kept], int(keep.sum()), self.n_latents)


class EntryCollector:
    """Collects entries chunk by chunk; several rows may be pooled into one by their maximum.

    Pooling (patches into an image) keeps, per latent, the largest activation over the rows of a group; rows on which a
    latent is silent count as 0, so a latent that is negative wherever it fires pools to 0 unless it fires everywhere.
    """

    def __init__(self, n_latents: int) -> None:
        self.n_latents = n_latents
        self.n_rows = 0
        self._chunks: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, codes: Codes, groups: Int[Tensor, " batch"] | None = None) -> None:
        """Add the codes of a chunk; `groups` numbers, from 0 within the chunk, the row each code is pooled into."""
        active = codes.values != 0
        rows, latents, values = codes.rows[active], codes.indices[active].long(), codes.values[active].float()
        n_new = len(codes)
        if groups is not None:
            n_new = int(groups.max()) + 1 if len(groups) else 0
            rows, latents, values = _pool_maximum(groups[rows], latents, values, groups, self.n_latents)
        self._chunks.append(((rows + self.n_rows).int().cpu(), latents.int().cpu(), values.cpu()))
        self.n_rows += n_new

    def entries(self) -> Entries:
        """Return everything collected."""
        if not self._chunks:
            empty = torch.zeros(0, dtype=torch.int64)
            return Entries(empty, empty, torch.zeros(0), 0, self.n_latents)
        rows, latents, values = (torch.cat(column) for column in zip(*self._chunks, strict=True))
        return Entries(rows.long(), latents.long(), values, self.n_rows, self.n_latents)


def _pool_maximum(
    rows: Tensor, latents: Tensor, values: Tensor, groups: Tensor, n_latents: int
) -> tuple[Tensor, Tensor, Tensor]:
    pairs, inverse = torch.unique(rows * n_latents + latents, return_inverse=True)
    pooled = torch.full((len(pairs),), -torch.inf, dtype=values.dtype, device=values.device)
    pooled.scatter_reduce_(0, inverse, values, "amax")
    fired = torch.bincount(inverse, minlength=len(pairs))
    sizes = torch.bincount(groups)
    silent_somewhere = fired < sizes[pairs // n_latents]
    pooled = torch.where(silent_somewhere, pooled.clamp(min=0), pooled)
    kept = pooled != 0
    return pairs[kept] // n_latents, pairs[kept] % n_latents, pooled[kept]


def auc_matrix(
    entries: Entries, labels: Bool[Tensor, "rows labels"], latent_block: int = 1024
) -> Float[Tensor, "latents labels"]:
    """Area under the ROC curve of each latent as a detector of each label.

    The probability that a row with the label has a larger activation than a row without it, ties counting half (Mann
    and Whitney 1947); a latent that never fires scores exactly 0.5. Columns whose label is on every row or on none are
    nan. Exact: every row counts, also the silent ones, without building rows x latents.
    """
    n_rows, n_labels = labels.shape
    positives = labels.sum(0).double()
    negatives = n_rows - positives
    out = torch.full((entries.n_latents, n_labels), 0.5, dtype=torch.float64)
    order = torch.argsort(entries.latents, stable=True)
    bounds = torch.searchsorted(entries.latents[order], torch.arange(0, entries.n_latents + latent_block, latent_block))
    targets = labels.to(torch.float32)
    for block, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        first = block * latent_block
        count = min(latent_block, entries.n_latents - first)
        if count <= 0 or start == stop:
            continue
        chosen = order[start:stop]
        rank_sums = _positive_rank_sums(
            entries.rows[chosen], entries.latents[chosen] - first, entries.values[chosen], targets, count
        )
        out[first : first + count] = (rank_sums - positives * (positives + 1) / 2) / (positives * negatives)
    out[:, (positives == 0) | (negatives == 0)] = torch.nan
    return out


def dense_auc_matrix(
    activations: Float[Tensor, "rows units"], labels: Bool[Tensor, "rows labels"], unit_block: int = 64
) -> Float[Tensor, "units labels"]:
    """Area under the ROC curve of each unit as a detector of each label: `auc_matrix` for units that rarely rest."""
    positives = labels.sum(0).double()
    negatives = len(labels) - positives
    blocks = []
    for block in activations.split(unit_block, dim=1):
        columns = block.T.contiguous()
        ordered = columns.sort(1).values
        ranks = (torch.searchsorted(ordered, columns) + torch.searchsorted(ordered, columns, right=True) + 1) / 2
        blocks.append((ranks.double() @ labels.double() - positives * (positives + 1) / 2) / (positives * negatives))
    return torch.cat(blocks)


def pool_dense(x: Float[Tensor, "rows units"], groups: Int[Tensor, " rows"]) -> Float[Tensor, "groups units"]:
    """Return the maximum of each unit over the rows of each group."""
    out = x.new_full((int(groups.max()) + 1, x.shape[1]), -torch.inf)
    return out.scatter_reduce_(0, groups[:, None].expand_as(x), x, "amax")


def _positive_rank_sums(
    rows: Tensor, latents: Tensor, values: Tensor, targets: Float[Tensor, "rows labels"], n_latents: int
) -> Float[Tensor, "latents labels"]:
    """Sum, per latent and label, the mid-ranks of the labelled rows among all rows."""
    n_rows = len(targets)
    by_value = torch.argsort(values, stable=True)
    order = by_value[torch.argsort(latents[by_value], stable=True)]
    rows, latents, values = rows[order], latents[order], values[order]
    active = torch.bincount(latents, minlength=n_latents)
    below_zero = torch.bincount(latents[values < 0], minlength=n_latents)
    silent = n_rows - active
    starts = active.cumsum(0) - active
    # Ranks among all rows: the silent ones tie between the negative and the positive activations.
    ranks = _tied_ranks(latents, values, starts) + torch.where(values > 0, silent[latents], 0)
    silent_rank = below_zero + (silent + 1) / 2
    # Relative to the silent rank a silent row contributes nothing, so the sums run over active rows only.
    weights = ranks - silent_rank[latents]
    relative = F.embedding_bag(rows, targets.double(), starts, mode="sum", per_sample_weights=weights)
    return relative + silent_rank[:, None] * targets.double().sum(0)


def _tied_ranks(latents: Tensor, values: Tensor, starts: Tensor) -> Float[Tensor, " nnz"]:
    """Rank the entries of each latent from 1, equal values sharing their mean rank; entries come sorted."""
    position = torch.arange(len(values), dtype=torch.float64) - starts[latents] + 1
    new_run = torch.ones(len(values), dtype=torch.bool)
    new_run[1:] = (values[1:] != values[:-1]) | (latents[1:] != latents[:-1])
    run = new_run.long().cumsum(0) - 1
    n_runs = int(run[-1]) + 1 if len(run) else 0
    sums = torch.zeros(n_runs, dtype=torch.float64).index_add_(0, run, position)
    return (sums / torch.bincount(run, minlength=n_runs))[run]

"""Gathering what is scored: one pass over a store for reconstruction, and the sample for everything with labels."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sae.activations.store import Provenance, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.dictionaries.linear import Linear
from sae.errors import EvaluationError
from sae.evaluation import reconstruction
from sae.evaluation.belonging import check_labels
from sae.evaluation.ground import Rows
from sae.evaluation.metric import Accumulator, Metric, Score
from sae.evaluation.sample import Sample, Units, halves
from sae.evaluation.splicing import trained_rows
from sae.inputs.base import Inputs, Labelled
from sae.log import progress
from sae.subjects.base import Subject

logger = logging.getLogger(__name__)

RECONSTRUCTION_METRICS: Sequence[type[Metric]] = (
    reconstruction.Fvu,
    reconstruction.ExplainedVariance,
    reconstruction.Cosine,
    reconstruction.NormRatio,
    reconstruction.L0,
)
MIN_EXAMPLES = 20
"""Examples below which a sample cannot be split into halves that say anything."""


@dataclass(frozen=True)
class Rebuilt:
    """What one pass over vectors says of a dictionary, and the codes of the first ones, in parts.

    `site_scores` has an FVU for each of several sites that are written.
    """

    scores: list[Score]
    firing: reconstruction.FiringRates
    kept: Sequence[Codes]
    site_scores: list[Score]

    def codes_of(self, n_vectors: int) -> Codes | None:
        """Return the codes of the first vectors, None where as many were not kept."""
        if sum(map(len, self.kept)) < n_vectors:
            return None
        return Codes.cat(self.kept).on(torch.arange(n_vectors))


def rebuild(dictionary: Dictionary, found: Rows, n_vectors: int, n_kept: int, chunk_vectors: int, seed: int) -> Rebuilt:
    """Encode and decode the first `n_vectors`, chunks of whole examples at a time; keep codes of the first `n_kept`,
    unless the dictionary is one whose codes are dense.

    Raises:
        EvaluationError: a vector is not finite.
    """
    accumulator, firing = Accumulator(RECONSTRUCTION_METRICS), reconstruction.FiringRates(dictionary.d_sae)
    widths = [part.d_in for part in found.targets.parts]
    sites = [Accumulator([reconstruction.Fvu]) for _ in widths] if len(widths) > 1 else []
    device, kept, selects = dictionary.W_dec.device, [], not isinstance(dictionary, Linear)
    with progress("encode", total=n_vectors, unit="vectors") as bar:
        for start, rows in found.inputs.whole_examples(chunk_vectors, n_vectors):
            x = _read(found.inputs, start, len(rows)).to(device)
            target = None if found.targets is found.inputs else _read(found.targets, start, len(rows)).to(device)
            chunk = reconstruction.reconstruction(dictionary, x, target)
            accumulator.update(chunk)
            firing.update(chunk.codes)
            if selects and start < n_kept:
                kept.append(chunk.codes.to("cpu"))
            for site, *parts in zip(sites, chunk.x.split(widths, 1), chunk.x_hat.split(widths, 1), strict=False):
                site.update(reconstruction.Reconstruction(parts[0], chunk.codes, parts[1]))
            bar.advance(len(rows))
    return Rebuilt(accumulator.scores(seed), firing, kept, [score for site in sites for score in site.scores(seed)])


def rebuild_rows(units: Units, chunk_vectors: int, seed: int) -> list[Score]:
    """Return the reconstruction scores of a control on a sample's rows."""
    accumulator = Accumulator(RECONSTRUCTION_METRICS)
    for chunk in units.reconstructions(chunk_vectors):
        accumulator.update(chunk)
    return accumulator.scores(seed)


def _read(vectors: Vectors, start: int, n_rows: int) -> Float[Tensor, "rows d_in"]:
    x = vectors.read(start, start + n_rows)
    bad = ~x.isfinite().all(1)
    if bad.any():
        row = start + int(bad.nonzero()[0])
        example = int(vectors.provenance(row, row + 1).example[0])
        raise EvaluationError(
            f"{vectors!r}: row {row} (example {example}) holds NaN or infinite values, {int(bad.sum())} rows of this "
            "chunk do; the subject overflowed, or the store was damaged (sae verify)."
        )
    return x


def take_sample(vectors: Vectors, inputs: Labelled, n_vectors: int, seed: int) -> Sample:
    """Take the first whole examples, about `n_vectors` rows, with the labels of their items.

    Raises:
        EvaluationError: too few examples to split, or labels that are missing or of an unexpected shape.
    """
    _, rows = next(vectors.whole_examples(n_vectors))
    distinct = torch.unique_consecutive(rows.example)
    if len(distinct) < MIN_EXAMPLES:
        raise EvaluationError(
            f"{vectors!r}: {len(distinct)} examples in the {len(rows)} vectors to score labels on; at least "
            f"{MIN_EXAMPLES} are needed for a half to match on and a half to score on."
        )
    first, last = int(distinct[0]), int(distinct[-1])
    labels = inputs.labels(first, last + 1)
    check_labels(labels, inputs, last + 1 - first, int(rows.position.max()) + 1)
    pooled = all(values.ndim == 1 for values in labels.values())
    if pooled:
        shown = (distinct - first).numpy()
        factors = {family: values[shown] for family, values in labels.items()}
    else:
        factors = _at_rows(labels, rows)
    return Sample(
        x=vectors.read(0, len(rows), vectors.dtype),
        rows=rows,
        pooled=pooled,
        labels={family: values for family, values in factors.items() if family not in inputs.bookkeeping},
        factors=factors,
        label_names=inputs.label_names,
        match=halves(distinct if pooled else rows.example, seed),
    )


def stored_for(vectors: Vectors, sample: Sample, name: str) -> Float[Tensor, "items width"] | None:
    """Read another hookpoint's vector of every item of a sample, such as its place in the joint space.

    None where the store was harvested without it.
    """
    store = vectors.store
    if name not in store.hookpoints:
        logger.info("%s: no %s, so what needs it is left out; add the hookpoint to the harvest.", store, name)
        return None
    found = store.vectors(name)
    place = torch.searchsorted(found.provenance(0, len(found)).example, sample.example)
    return found.read(0, len(found))[place]


def labels_of_rows(inputs: Labelled, rows: Provenance) -> dict[str, Shaped[np.ndarray, " rows"]]:
    """Return the labels of rows; those of an example hold for all its rows."""
    return _at_rows(inputs.labels(int(rows.example.min()), int(rows.example.max()) + 1), rows)


def _at_rows(labels: Mapping[str, np.ndarray], rows: Provenance) -> dict[str, Shaped[np.ndarray, " rows"]]:
    """Look labels up that begin with the first example of the rows."""
    example, position = (rows.example - rows.example.min()).numpy(), rows.position.numpy()
    return {
        family: values[example] if values.ndim == 1 else values[example, position] for family, values in labels.items()
    }


def vectors_of(
    subject: Subject, hookpoint: str, inputs: Inputs, sample: Sample, batch_examples: int
) -> Shaped[Tensor, "rows d_in"]:
    """Run another subject on the examples of a sample and return its vectors on the same rows.

    Raises:
        EvaluationError: the subject has other rows on these inputs.
    """
    examples = torch.unique_consecutive(sample.rows.example)
    first, last = int(examples[0]), int(examples[-1]) + 1
    parts = []
    with progress(f"run {subject.id}", total=last - first, unit="examples") as bar, torch.no_grad():
        for start in range(first, last, batch_examples):
            batch = inputs.batch(start, min(start + batch_examples, last))
            keep = trained_rows(subject, batch, hookpoint).cpu()
            parts.append(subject.run(batch, [hookpoint])[hookpoint].cpu()[keep].to(sample.x.dtype))
            bar.advance(len(batch))
    x = torch.cat(parts)
    if len(x) != len(sample.x):
        raise EvaluationError(f"{subject.id}: {len(x)} rows on the sample's examples, which have {len(sample.x)}.")
    return x

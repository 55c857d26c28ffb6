"""Directions to make cards of: from files, or from the labels of a sample."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae.errors import CatalogError, nearest
from sae.evaluation.sample import Sample

LABEL = "label:"
PROBE_ROWS = 16_384
"""Rows, spread evenly, that a probe is fitted to."""
PENALTY = 1e-3
"""Of a probe's weights, on vectors of mean square 1 per coordinate."""


@dataclass(frozen=True)
class Direction:
    """A direction, and the label that it was made for, if it was."""

    name: str
    vector: Float[Tensor, " d_in"]
    label: int | None = None


@dataclass(frozen=True)
class Sources:
    """What directions are asked for: files of tensors, and labels.

    Attributes:
        names: as they were given, in order.
        d_in: width that they must have.
        files: the directions of each file, read already.
        hashes: sha256 of each file.
    """

    names: Sequence[str]
    d_in: int
    files: dict[str, list[Direction]] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, names: Sequence[str], d_in: int) -> "Sources":
        """Read the files among the sources: safetensors whose tensors are [d_in] or [n, d_in].

        Raises:
            CatalogError: a file cannot be read, or holds something that is no direction of this width.
        """
        paths = {name: Path(name) for name in names if not name.startswith(LABEL)}
        files = {name: read_file(path, d_in) for name, path in paths.items()}
        return cls(
            names, d_in, files, {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
        )

    def __len__(self) -> int:
        return sum(len(self.files[name]) if name in self.files else 2 for name in self.names)

    def made(self, sample: Sample | None) -> list[Direction]:
        """Return all directions in the order of the sources; a label has two, see `of_label`.

        Args:
            sample: rows with labels, where there are any.

        Raises:
            CatalogError: there are no labels, or none of that name.
        """
        found = []
        for name in self.names:
            found += self.files[name] if name in self.files else of_label(name.removeprefix(LABEL), sample)
        return found


def read_file(path: Path, d_in: int) -> list[Direction]:
    """Read the directions of a file, each called by its tensor's key, and by its row where there are several."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as cause:
        hint = f"; a label is named {LABEL}FAMILY=VALUE" if "=" in path.name else ""
        raise CatalogError(f"{path}: cannot be read as safetensors ({cause}){hint}.") from cause
    found = []
    for key, tensor in sorted(tensors.items()):
        if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or tensor.shape[-1] != d_in:
            shape = f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
            raise CatalogError(f"{path}: {key} is {shape}; a direction here is [{d_in}], several are [n, {d_in}].")
        rows = tensor.reshape(-1, d_in).float()
        for number, row in enumerate(rows):
            name = key if len(rows) == 1 else f"{key} {number}"
            if not row.isfinite().all() or not row.any():
                what = "is zero" if row.isfinite().all() else "holds NaN or infinite values"
                raise CatalogError(f"{path}: {name} {what}, which is no direction.")
            found.append(Direction(name, row))
    if not found:
        raise CatalogError(f"{path}: holds no tensor.")
    return found


def of_label(label: str, sample: Sample | None) -> list[Direction]:
    """Return two directions towards a label: the difference of means, and that of a logistic probe.

    Both know nothing but the half of the sample to match on. The difference is the mean of the rows with the label
    minus that of the others; the probe is fitted with both kinds of rows counting equally.

    Raises:
        CatalogError: there are no labels, none of that name, or it makes no difference at all.
    """
    if sample is None:
        raise CatalogError(f"{LABEL}{label}: the inputs of this store have no labels, or none that is frequent enough.")
    if label not in sample.table.names:
        raise CatalogError(f"{LABEL}{label}: no such label.{nearest(label, sample.table.names)}")
    number = sample.table.names.index(label)
    difference = sample.label_excess[0][:, number].float()
    if not difference.any():
        raise CatalogError(f"{LABEL}{label}: the mean of its vectors is that of all, so they have no direction.")
    rows = sample.labelled_rows[0][0].nonzero()[:, 0]
    rows = rows[:: -(-len(rows) // PROBE_ROWS)]
    has_label = sample.table.columns[:, number][sample.item[rows]]
    probe = logistic_probe(sample.x[rows].float(), has_label)
    return [
        Direction(f"{label}: difference of means", difference, number),
        Direction(f"{label}: logistic probe", probe, number),
    ]


def logistic_probe(x: Float[Tensor, "rows d_in"], positive: Bool[Tensor, " rows"]) -> Float[Tensor, " d_in"]:
    """Return the weights of a logistic regression in which both classes count equally, with a small L2 penalty."""
    x = x - x.mean(0)
    x = x / x.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    share = positive.float().mean()
    weight = torch.where(positive, 0.5 / share, 0.5 / (1 - share)).nan_to_num(posinf=0.0)
    parameters = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = x @ parameters[:-1] + parameters[-1]
        value = F.binary_cross_entropy_with_logits(logits, positive.float(), weight)
        value = value + PENALTY / 2 * parameters[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type]
    return parameters.detach()[:-1]

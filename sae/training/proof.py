"""Proof that a saved dictionary does what the trained one did, on real vectors."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries import io
from sae.dictionaries.affine import Affine
from sae.dictionaries.base import Dictionary
from sae.errors import TrainingError
from sae.tensors import Vectors

TOLERANCE = 1e-3
"""Largest difference of a row's codes or reconstruction, over the root mean square of all rows: rounding of float32."""

TIES = 1e-3
"""Share of rows that may differ by more: where two latents are equally large, or one is at its threshold, rounding
decides what is kept."""

EARLY_TIES = 0.05
"""The same before training, when several times as many latents fire and few vectors are tried."""

PROVEN_EARLY = 512
"""Vectors on which folding is tried before training."""

_ROWS = 256


@dataclass(frozen=True)
class Proof:
    """How two dictionaries differed on some vectors: in the median, and the share that differed beyond `TOLERANCE`."""

    n_vectors: int
    codes: float
    reconstruction: float
    differing: float

    @classmethod
    @torch.no_grad()
    def of(cls, trained: Dictionary, folded: Dictionary, maps: Sequence[Affine], x: Vectors) -> "Proof":
        """Compare a dictionary trained behind maps, of inputs and maybe of targets, with its folded form."""
        inputs, outputs = maps[0].to(x.device), maps[-1].to(x.device)
        norms: list[Tensor] = []
        for part in x.split(_ROWS):
            z = inputs(part)
            codes, found = trained.encode(z), folded.encode(part)
            code, x_hat = codes.dense() * outputs.unit, outputs.undo(trained.output(codes, z))
            code_found, found_hat = found.dense(), folded.output(found, part)
            norms.append(_norms(code_found - code, code, found_hat - x_hat, x_hat - outputs.mean))
        code_error, code_size, error, size = torch.cat(norms, dim=1).double().unbind()
        code_error, error = code_error / _root_mean_square(code_size), error / _root_mean_square(size)
        differing = (~((code_error <= TOLERANCE) & (error <= TOLERANCE))).double().mean()
        return cls(len(x), float(code_error.median()), float(error.median()), float(differing))

    def check(self, what: str, ties: float = TIES) -> None:
        """Refuse dictionaries that differ.

        Raises:
            TrainingError: on more than this share of the rows.
        """
        if not self.differing <= ties:
            raise TrainingError(
                f"{what}: for vectors as they are, the dictionary differs from the trained one on {self.differing:.1%} "
                f"of {self.n_vectors:,} vectors by more than {TOLERANCE:g} (codes by {self.codes:.2g}, reconstructions "
                f"by {self.reconstruction:.2g} in the median). This architecture does not fold behind this "
                "normalisation: use normalisation expected_norm or none."
            )


def check_folding(dictionary: Dictionary, maps: Sequence[Affine], x: Vectors) -> None:
    """Refuse, before it is trained, an architecture that cannot be saved for vectors as they are.

    Raises:
        TrainingError: it does something else once its maps are folded into its weights.
    """
    Proof.of(dictionary, dictionary.fold(*maps), maps, x[:PROVEN_EARLY]).check(dictionary.config.kind, EARLY_TIES)


def save_proven(
    trained: Dictionary, maps: Sequence[Affine], folder: Path, provenance: Mapping[str, Any], x: Vectors
) -> Dictionary:
    """Save the dictionary for vectors as they are and return it, read again from its file.

    Raises:
        TrainingError: it does something else than the trained one; it is then left in `FOLDER.unproven`.
    """
    unproven, device = folder.with_name(f"{folder.name}.unproven"), trained.W_dec.device
    io.save_dictionary(trained.fold(*maps), unproven, provenance)
    saved = io.load_dictionary(unproven, device).requires_grad_(False)
    proof = Proof.of(trained, saved, maps, x.to(device))
    proof.check(str(unproven))
    io.save_dictionary(saved, folder, {"proof": dataclasses.asdict(proof)})
    shutil.rmtree(unproven)
    return saved


def _norms(*rows: Float[Tensor, "batch _"]) -> Float[Tensor, "n batch"]:
    return torch.stack([part.norm(dim=1) for part in rows])


def _root_mean_square(norms: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    return norms.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)

"""What a dictionary makes of batches that no store holds: the vectors of their rows, and the latents that fire."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.activations.store import TRAINING_KINDS
from sae.dictionaries.codes import Codes
from sae.errors import HookpointError
from sae.evaluation.sample import encoded
from sae.features.live.loaded import Loaded
from sae.tensors import Batch, Kind


@dataclass(frozen=True)
class Read:
    """Vectors and codes of the rows of some examples; what stores leave out (BOS, special) is left out.

    Attributes:
        x: what was read.
        codes: what the dictionary makes of it.
        example, position, kind: where each row comes from; examples are numbered from 0, rows of one are neighbours.
    """

    x: Float[Tensor, "rows d_in"]
    codes: Codes
    example: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]
    kind: UInt8[Tensor, " rows"]

    @property
    def pooled_rows(self) -> Bool[Tensor, " rows"]:
        """Rows that stand for an example together: its patches where it has a class token too, else all of them."""
        is_class = self.kind == int(Kind.CLASS)
        return is_class if bool(is_class.all()) else ~is_class


def read(loaded: Loaded, batches: Iterable[Batch]) -> Read:
    """Run the subject over batches, and encode.

    Raises:
        HookpointError: the dictionary reads hookpoints on several grids.
        SubjectError: a batch that the subject cannot take.
    """
    names, dictionary = loaded.hookpoints, loaded.dictionary
    grids = {loaded.subject.hookpoints()[name].grid for name in names}
    if len(grids) > 1:
        raise HookpointError(f"{loaded.subject.id}: hookpoints on several grids ({', '.join(sorted(grids))}).")
    x, example, position, kind, n_examples = [], [], [], [], 0
    for batch in batches:
        found, rows = loaded.subject.run(batch, names), loaded.subject.rows(batch, loaded.grid)
        keep = rows.of_kinds(TRAINING_KINDS)
        where, places = keep.nonzero(as_tuple=True)
        x.append(torch.cat([found[name][keep.to(found[name].device)].float().cpu() for name in names], dim=1))
        example.append(where.cpu() + n_examples)
        position.append(places.cpu())
        kind.append(rows.kind[keep].cpu())
        n_examples += len(batch)
    rows_x = torch.cat(x)
    return Read(rows_x, encoded(dictionary, rows_x), torch.cat(example), torch.cat(position), torch.cat(kind))

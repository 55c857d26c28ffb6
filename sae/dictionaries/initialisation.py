"""Where a dictionary starts from: the centre of the data, and directions spread at random."""

import torch
from jaxtyping import Float
from torch import Tensor

from sae.tensors import Vectors


def geometric_median(x: Vectors, tolerance: float = 1e-6, max_iterations: int = 100) -> Float[Tensor, " d_in"]:
    """Return the point with the smallest sum of distances to the rows of x, in float64.

    Weiszfeld's iteration from the mean: each step averages the rows with weights 1 / distance. Unlike the mean it is
    not pulled away by a few rows of huge norm. Stops when a step is shorter than `tolerance` times the mean distance.

    Weiszfeld, Sur le point pour lequel la somme des distances de n points donnés est minimum, Tohoku 43, 1937.
    """
    x = x.double()
    median = x.mean(0)
    for _ in range(max_iterations):
        distance = torch.linalg.vector_norm(x - median, dim=1)
        mean_distance = distance.mean()
        if mean_distance == 0:
            break
        weight = 1 / distance.clamp_min(1e-12 * mean_distance)  # a row at the median itself would weigh infinitely
        step = (weight @ x) / weight.sum() - median
        median = median + step
        if torch.linalg.vector_norm(step) <= tolerance * mean_distance:
            break
    return median


def random_unit_rows(n: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n d_in"]:
    """Return n directions, uniform on the sphere."""
    rows = torch.randn(n, d_in, generator=generator, device=generator.device)
    normalise_rows_(rows)
    return rows


def normalise_rows_(rows: Float[Tensor, "n d_in"]) -> None:
    """Scale every row to norm 1, in place; a row of zeros stays."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows.div_(norm.clamp_min(torch.finfo(rows.dtype).tiny))

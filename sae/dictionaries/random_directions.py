"""Random directions: a TopK dictionary that is drawn and never trained.

The control for what sparsity alone gives: same size, same k, same centre (the data's geometric median), but
directions uniform on the sphere.
"""

from dataclasses import dataclass
from typing import ClassVar

from sae.dictionaries.topk import TopK, TopKConfig


@dataclass(frozen=True, kw_only=True)
class RandomDirectionsConfig(TopKConfig):
    """Settings of random directions: those of TopK."""

    kind: ClassVar[str] = "random_directions"


class RandomDirections(TopK):
    """Keeps the k largest of random directions; drawn by `initialise`, and no tensor takes a gradient."""

    config_type = RandomDirectionsConfig
    fitted = True

    def __init__(self, config: RandomDirectionsConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.requires_grad_(False)

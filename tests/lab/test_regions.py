"""Which units a map shows."""

import torch

from sae.lab.tuning.regions import Regions, chosen


def test_units_to_show_do_not_depend_on_the_half_that_they_are_shown_on() -> None:
    generator = torch.Generator().manual_seed(0)
    place, match = torch.rand(12, 2, generator=generator), torch.randn(30, 12, generator=generator)
    names = tuple(f"place {number}" for number in range(12))
    halves = (torch.randn(30, 12, generator=generator) for _ in range(5))
    assert len({tuple(chosen(Regions("latents", names, place, match, one))) for one in halves}) == 1

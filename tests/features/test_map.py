import sys

import numpy as np
import pytest
import torch

from sae.errors import ConfigError
from sae.features.building.map import draw_map, laid_out

GROUPS, EACH = 6, 25
NAMES = ("red", "green", "blue", "round", "square", "long")


@pytest.fixture(scope="module")
def W_dec() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(GROUPS, 24, generator=generator).repeat_interleave(EACH, 0)
    return centres + 0.35 * torch.randn(GROUPS * EACH, 24, generator=generator)


def titles() -> list[str]:
    return [f"the {NAMES[i // EACH]} thing{i}" for i in range(GROUPS * EACH)]


@pytest.fixture(scope="module")
def drawn(W_dec: torch.Tensor):
    return draw_map(W_dec, titles())


def test_latents_that_write_alike_lie_together(drawn) -> None:
    place = np.stack([drawn.x, drawn.y], 1)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    group = np.arange(GROUPS * EACH) // EACH
    assert (group[distance.argmin(1)] == group).mean() > 0.97


def test_regions_are_of_one_group_and_named_by_what_it_has_of_its_own(drawn) -> None:
    group = np.arange(GROUPS * EACH) // EACH
    assert [region["id"] for region in drawn.clusters] == list(range(len(drawn.clusters)))
    sizes = [region["n"] for region in drawn.clusters]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == GROUPS * EACH
    for region in drawn.clusters:
        members = group[drawn.cluster == region["id"]]
        assert len(members) == region["n"]
        if len(set(members)) == 1 and len(members) > 1:
            assert region["title"] == f"{NAMES[members[0]]}"
    pure = [region for region in drawn.clusters if len(set(group[drawn.cluster == region["id"]])) == 1]
    assert len(pure) >= GROUPS


def test_the_same_seed_gives_the_same_map(W_dec: torch.Tensor, drawn) -> None:
    again = draw_map(W_dec, titles())
    for name, column in drawn.columns.items():
        assert np.array_equal(column, again.columns[name])
    assert drawn.clusters == again.clusters
    other = draw_map(W_dec, titles(), seed=1)
    assert not np.array_equal(drawn.x, other.x)


def test_a_layout_leaves_torch_its_threads(W_dec: torch.Tensor) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        laid_out(W_dec.numpy(), 0)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_latents_that_are_left_out_have_no_place(W_dec: torch.Tensor) -> None:
    keep = np.ones(GROUPS * EACH, dtype=bool)
    keep[::7] = False
    without = W_dec.clone()
    without[1] = 0
    found = draw_map(without, titles(), keep)
    gone = ~keep
    gone[1] = True
    assert np.array_equal(np.isnan(found.x), gone) and np.array_equal(np.isnan(found.y), gone)
    assert np.array_equal(found.cluster == -1, gone)
    assert sum(region["n"] for region in found.clusters) == int((~gone).sum())


@pytest.mark.parametrize("n", [0, 1, 3, 5, 20])
def test_few_latents_have_a_map_too(n: int, W_dec: torch.Tensor) -> None:
    found = draw_map(W_dec[: max(n, 1)], titles()[: max(n, 1)], np.arange(max(n, 1)) < n)
    assert np.isfinite(found.x).sum() == n
    assert sum(region["n"] for region in found.clusters) == n


def test_without_umap_the_error_says_how_to_get_it(W_dec: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match="explore"):
        draw_map(W_dec, titles())

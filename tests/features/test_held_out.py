"""Held-out examples: none that the card shows, all of other examples, firing or silent as they say."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.features.building.evidence import Amounts, Evidence, Origins, Shown
from sae.features.building.firings import Firings
from sae.features.building.held_out import FEWEST, NAMES, REACH, HeldOut, compact, section

N_EXAMPLES, LENGTH = 120, 6
ORIGINS = Origins(np.repeat(np.arange(N_EXAMPLES) * 2, LENGTH), np.tile(np.arange(LENGTH), N_EXAMPLES))
N_ROWS = N_EXAMPLES * LENGTH


def activations(rate: float, n_latents: int = 4, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random((N_ROWS, n_latents)) < rate, random.random((N_ROWS, n_latents)) + 0.1, 0.0)


def firings_of(dense: np.ndarray, latents: range) -> Firings:
    latent, rows = np.nonzero(dense.T[latents.start : latents.stop])
    values = dense.T[latents.start + latent, rows].astype(np.float32)
    offsets = np.searchsorted(latent, np.arange(len(latents) + 1))
    return Firings(latents, N_ROWS, offsets, rows.astype(np.int64), values)


def drawn(dense: np.ndarray, reach: int | None, near: Shown | None = None, **more: object) -> dict[str, np.ndarray]:
    latents = range(dense.shape[1])
    firings = firings_of(dense, latents)
    shown = Evidence(firings, ORIGINS, Amounts(top=5, quantiles=3, each=1, levels=2, random=4)).examples()
    held = HeldOut(ORIGINS, N_ROWS, 10, reach, **more).of(firings, shown, near)  # type: ignore[arg-type]
    return {name: one.rows for name, one in held.items()} | {"shown": stacked(shown)}


def stacked(some: dict[str, Shown]) -> np.ndarray:
    return np.concatenate([one.rows for one in some.values()], 1)


@settings(max_examples=25, deadline=None)
@given(rate=st.sampled_from([0.0, 0.005, 0.05, 0.3, 0.9]), reach=st.sampled_from([None, 0, 2]), seed=st.integers(0, 99))
def test_they_are_apart_from_the_card_and_from_one_another(rate: float, reach: int | None, seed: int) -> None:
    dense = activations(rate, seed=seed)
    random = np.random.default_rng(seed)
    candidates = np.stack([random.permutation(np.flatnonzero(column == 0))[:20] for column in dense.T])
    near = Shown(candidates, np.zeros(candidates.shape))
    found = drawn(dense, reach, near, seed=seed)
    for latent, column in enumerate(dense.T):
        rows = {name: one[latent][one[latent] >= 0] for name, one in found.items()}
        examples = [ORIGINS.example[row] for name in NAMES for row in rows[name]]
        assert len(set(examples)) == len(examples)
        assert not set(examples) & set(ORIGINS.example[rows["shown"]].tolist())
        assert (column[rows["held_firing"]] > 0).all()
        silent = np.concatenate([rows["held_near"], rows["held_random"]]).astype(int)
        assert (column[silent] == 0).all() and len(silent) <= 10 and set(rows["held_near"]) <= set(candidates[latent])
        assert len(rows["held_near"]) <= 5
        if reach is None:
            fires_at = set(ORIGINS.example[column > 0].tolist())
            assert not fires_at & set(ORIGINS.example[silent].tolist())


def test_silent_contexts_come_before_merely_silent_tokens() -> None:
    rows = drawn(activations(0.05), 2)
    for latent, column in enumerate(activations(0.05).T):
        for row in rows["held_random"][latent]:
            window = [other for other in range(row - 2, row + 3) if 0 <= other < N_ROWS]
            same = [other for other in window if ORIGINS.example[other] == ORIGINS.example[row]]
            assert (column[same] == 0).all()
    dense = activations(0.95)
    assert (drawn(dense, 2)["held_random"] >= 0).any() and (drawn(dense, None)["held_random"] == -1).all()


def test_firings_are_spread_over_the_range_of_those_that_are_left() -> None:
    dense = activations(0.2)
    rows = drawn(dense, 0)["held_firing"]
    for latent, column in enumerate(dense.T):
        values = column[rows[latent]]
        assert len(values) == 10 and (np.diff(values) >= 0).all(), "one of every tenth, weakest first"
        assert values[0] < 0.3 and values[-1] > 0.8


def test_the_draw_depends_on_the_seed_and_not_on_how_latents_are_read() -> None:
    dense = activations(0.1)
    held = HeldOut(ORIGINS, N_ROWS, 10, 2, seed=3)

    def read(ranges: list[range]) -> list[list[int]]:
        parts = [stacked(held.of(firings_of(dense, latents), nothing(latents), None)) for latents in ranges]
        return np.concatenate(parts).tolist()

    def nothing(latents: range) -> dict[str, Shown]:
        empty = np.full((len(latents), 1), -1)
        return {"top": Shown(empty, empty.astype(float))}

    whole = read([range(4)])
    assert whole == read([range(1), range(1, 4)])
    held = HeldOut(ORIGINS, N_ROWS, 10, 2, seed=4)
    assert whole != read([range(4)])


def test_few_examples_are_shared_between_latents() -> None:
    dense = activations(0.1, n_latents=12)
    apart, shared = (drawn(dense, None, few_examples=few) for few in (False, True))
    distinct = [len(set(ORIGINS.example[one["held_random"][one["held_random"] >= 0]])) for one in (apart, shared)]
    assert distinct[1] < distinct[0] / 2


def text(position: int, start: int, values: list[float | None]) -> dict[str, Any]:
    tokens = [str(number) for number in range(60)]
    return {"example": 1, "position": position, "value": 1.0, "start": start, "tokens": tokens, "values": values}


def test_a_section_needs_some_of_either_kind() -> None:
    ref = {
        "example": 1,
        "position": 40,
        "value": 1.0,
        "start": 0,
        "tokens": [str(i) for i in range(60)],
        "values": [0.0] * 60,
    }
    some, few = [[ref]] * FEWEST, [[ref]] * (FEWEST - 1)
    assert section({"held_firing": some, "held_near": few, "held_random": []}) is None
    assert section({"held_firing": few, "held_near": some, "held_random": []}) is None
    found = section({"held_firing": some, "held_near": few, "held_random": [[ref], []]})
    assert found is not None and [(one["fires"], one.get("near")) for one in found[-2:]] == [
        (False, True),
        (False, False),
    ]


def test_what_would_tell_is_left_out() -> None:
    found = compact(text(50, 10, [0.0] * 60))
    tokens = text(50, 10, [])["tokens"]
    assert found["tokens"] == tokens[40 - REACH : 40 + REACH + 1] and found["start"] == 10 + 40 - REACH
    assert "values" not in found and "whole" not in found
    assert compact({"example": 1, "position": 0, "value": 1.0, "start": 0, "tokens": tokens, "values": [None] * 60})[
        "whole"
    ]
    image = {"example": 1, "position": 0, "value": 1.0, "image": "images/1.png", "grid": [1, 1], "values": [1.0]}
    assert set(compact(image)) == {"example", "position", "value", "image"}

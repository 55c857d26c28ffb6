from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import IdentityConfig
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import CatalogError
from sae.features.building import firings as module
from sae.features.building.contexts import TextContexts, references
from sae.features.building.evidence import Amounts, Evidence, NearMisses, Origins
from sae.features.building.firings import Record, record, segment_path
from sae.features.building.sampling import Ranked, one_of_each, priorities, split

N_ROWS, WIDTH, LATENTS = 211, 5, 8
FEW = Amounts(top=6, quantiles=4, levels=3, each=2, random=3, near=4)


class StoredVectors:
    """Rows in memory, as those of a store."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def read(self, start: int, stop: int) -> torch.Tensor:
        return self.x[start:stop]

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        return self.x[rows]


@pytest.fixture(scope="module")
def vectors() -> StoredVectors:
    # Rounded, so that equal activations occur.
    x = torch.randn(N_ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
    return StoredVectors((x * 8).round() / 8)


@pytest.fixture(scope="module")
def dictionary(vectors: StoredVectors) -> Dictionary:
    dictionary = TopK(TopKConfig(d_sae=LATENTS, k=3), WIDTH)
    dictionary.initialise(vectors.x, torch.Generator().manual_seed(1))
    with torch.no_grad():
        # Products of such numbers are exact, whatever the shape of a batch.
        dictionary.b_dec.copy_((dictionary.b_dec * 8).round() / 8)
        dictionary.W_enc_rows.copy_((dictionary.W_enc_rows * 4).round() / 4)
        dictionary.b_enc[LATENTS - 1] = -100.0
        # Fires on a single row in a few hundred, or on none.
        dictionary.b_enc[LATENTS - 2] = -2.0
    return dictionary


@pytest.fixture(scope="module")
def origins() -> Origins:
    lengths = np.random.default_rng(0).integers(1, 9, N_ROWS)
    example = np.repeat(np.arange(N_ROWS), lengths)[:N_ROWS]
    first = np.searchsorted(example, example)
    # Rows of an example need not be at every position.
    return Origins(example.astype(np.int64) * 3, (np.arange(N_ROWS) - first) * 2 + 1)


@pytest.fixture(scope="module")
def dense(dictionary: Dictionary, vectors: StoredVectors) -> np.ndarray:
    with torch.no_grad():
        return dictionary.encode(vectors.x).dense().clamp(min=0).numpy()


@pytest.fixture
def kept(dictionary: Dictionary, vectors: StoredVectors, tmp_path: Path) -> Record:
    return record(dictionary, vectors, tmp_path, chunk_vectors=16)  # type: ignore[arg-type]


def read(kept: Record) -> module.Firings:
    return kept.of(range(LATENTS))


def test_every_firing_is_kept_by_latent_and_row(kept: Record, dense: np.ndarray) -> None:
    firings = read(kept)
    back = np.zeros_like(dense)
    back[firings.rows, firings.latent] = firings.values
    assert np.array_equal(back, dense)
    assert (np.diff(firings.places) > 0).all()
    assert kept.counts.tolist() == (dense > 0).sum(0).tolist()


@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(segment=st.integers(1, N_ROWS + 5), chunk=st.integers(1, 60), cut=st.integers(1, LATENTS - 1))
def test_cards_do_not_depend_on_how_rows_and_latents_are_read(
    dictionary: Dictionary,
    vectors: StoredVectors,
    origins: Origins,
    tmp_path_factory: pytest.TempPathFactory,
    segment: int,
    chunk: int,
    cut: int,
) -> None:
    def made(ranges: list[range], kept: Record) -> list[object]:
        found = []
        for latents in ranges:
            firings = kept.of(latents)
            evidence = Evidence(firings, origins, FEW)
            shown = evidence.examples()
            tables = [np.concatenate([one.rows, one.values], axis=1).tolist() for one in shown.values()]
            found += list(zip(evidence.statistics(), *tables, strict=True))
        return found

    whole = record(dictionary, vectors, tmp_path_factory.mktemp("whole"), 1000)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEGMENT_ROWS", segment)
        pieces = record(dictionary, vectors, tmp_path_factory.mktemp("pieces"), chunk)  # type: ignore[arg-type]
    assert made([range(LATENTS)], whole) == made([range(cut), range(cut, LATENTS)], pieces)


def test_statistics_are_those_of_a_loop_over_latents(kept: Record, origins: Origins, dense: np.ndarray) -> None:
    for one, column in zip(Evidence(read(kept), origins, FEW).statistics(), dense.T, strict=True):
        fired = column[column > 0]
        assert one["n_fired"] == len(fired) and one["n_vectors"] == N_ROWS
        assert one["rate"] == pytest.approx(len(fired) / N_ROWS, rel=1e-3)
        if not len(fired):
            assert "histogram" not in one and one["max"] == 0
            continue
        assert one["max"] == pytest.approx(fired.max(), rel=1e-3)
        assert one["mean"] == pytest.approx(fired.mean(), rel=1e-3)
        for name in ("histogram", "linear"):
            edges, counts = np.array(one[name]["edges"]), one[name]["counts"]
            assert len(edges) == len(counts) + 1 and sum(counts) == len(fired)
            # Edges are rounded on the card, so a firing that lies on one may count on either side.
            least, most = ((fired[:, None] < edges[1:-1] * (1 + slack)).sum(0) for slack in (-1e-3, 1e-3))
            below = np.cumsum(counts)[:-1]
            assert (least <= below).all() and (below <= most).all()
        assert one["linear"]["edges"][0] == 0 and (np.diff(one["linear"]["edges"]) > 0).all()
        assert one["histogram"]["edges"][0] <= fired.min() * 1.001


def test_the_strongest_row_of_each_example_is_shown_strongest_first(
    kept: Record, origins: Origins, dense: np.ndarray
) -> None:
    top = Evidence(read(kept), origins, FEW).examples()["top"]
    for latent, column in enumerate(dense.T):
        peaks = []
        for example in np.unique(origins.example):
            rows = np.flatnonzero((origins.example == example) & (column > 0))
            if len(rows):
                best = rows[column[rows].argmax()]
                peaks.append((-column[best], best))
        expected = [row for _, row in sorted(peaks)][: FEW.top]
        assert [row for row in top.rows[latent].tolist() if row >= 0] == expected
        assert (top.values[latent][: len(expected)] == column[expected]).all()


def test_examples_lie_in_their_quantiles_and_levels(kept: Record, origins: Origins, dense: np.ndarray) -> None:
    evidence = Evidence(read(kept), origins, FEW)
    shown, edges = evidence.examples(), evidence.level_edges
    for latent, column in enumerate(dense.T):
        ordered = np.sort(column[column > 0])
        for slot, row in enumerate(shown["quantiles"].rows[latent]):
            n, part = len(ordered), slot // FEW.each
            if row >= 0:
                here = ordered[n * part // FEW.quantiles : n * (part + 1) // FEW.quantiles + 1]
                assert here.min() <= column[row] <= here.max()
        for slot, row in enumerate(shown["levels"].rows[latent]):
            part = slot // FEW.each
            low, high = edges[latent, part], edges[latent, part + 1]
            fits = (ordered >= low) & ((ordered < high) | (part == FEW.levels - 1))
            in_level = [r for r in shown["levels"].rows[latent][part * FEW.each : (part + 1) * FEW.each] if r >= 0]
            assert len(in_level) == min(fits.sum(), FEW.each)
            if row >= 0:
                assert low <= column[row] and (column[row] < high or part == FEW.levels - 1)


def test_every_firing_of_a_part_is_as_likely(kept: Record, origins: Origins) -> None:
    firings = read(kept)
    latent = int(firings.counts.argmax())
    seen = np.zeros(N_ROWS)
    for seed in range(200):
        for few in (False, True):
            shown = Evidence(firings, origins, FEW, seed, few).examples()["random"]
            rows = shown.rows[latent][shown.rows[latent] >= 0]
            assert len(set(rows)) == FEW.random
            seen[rows] += 1
    fired = firings.rows[firings.offsets[latent] : firings.offsets[latent + 1]]
    assert seen.sum() == seen[fired].sum()
    # Examples are drawn whole where few images are wanted, so counts are those of examples there.
    assert seen[fired].min() > 0


def test_fewer_images_are_needed_when_latents_share_a_draw() -> None:
    generator = np.random.default_rng(0)
    fires = np.sort(np.stack([generator.choice(4000, 500, replace=False) for _ in range(40)]), axis=1)
    offsets = np.arange(41, dtype=np.int64) * 500
    firings = module.Firings(range(40), 4000, offsets, fires.ravel(), generator.random(20_000, dtype=np.float32) + 0.1)
    rows = Origins(np.arange(4000), np.zeros(4000, dtype=np.int64))
    distinct = [
        len(np.unique(Evidence(firings, rows, Amounts(), 0, few).examples()["random"].rows)) for few in (False, True)
    ]
    assert distinct[1] < distinct[0] / 2


def test_near_misses_are_the_highest_where_silent_and_the_lowest(
    kept: Record, dictionary: Dictionary, vectors: StoredVectors, dense: np.ndarray
) -> None:
    near = NearMisses(dictionary, vectors, len(vectors), 60, seed=3)  # type: ignore[arg-type]
    shown = near.of(read(kept), FEW.near)
    with torch.no_grad():
        pre = ((vectors.x - dictionary.centre) @ dictionary.W_enc + dictionary.b_enc).numpy()
    assert len(near.rows) == 60 == len(set(near.rows.tolist()))
    for latent in range(LATENTS):
        silent = [row for row in near.rows if dense[row, latent] == 0]
        expected = sorted(pre[silent, latent])[::-1][: FEW.near]
        assert shown["near"].values[latent] == pytest.approx(expected, abs=1e-5)
        assert all(dense[row, latent] == 0 for row in shown["near"].rows[latent])
        lowest = sorted(pre[near.rows, latent])[: FEW.near]
        assert shown["negative"].values[latent] == pytest.approx(lowest, abs=1e-5)
        assert pre[shown["negative"].rows[latent], latent] == pytest.approx(lowest, abs=1e-5)


@pytest.mark.parametrize("reach", [1, 4, 100])
def test_tokens_around_a_firing_have_the_values_of_their_rows(
    kept: Record, origins: Origins, dense: np.ndarray, reach: int
) -> None:
    class Texts:
        def tokens(self, example: int) -> torch.Tensor:
            return torch.arange(20) + example

    firings = read(kept)
    shown = Evidence(firings, origins, FEW).examples()
    refs = references(firings, origins, shown, TextContexts(Texts(), str, reach))  # type: ignore[arg-type]
    row_at = {place: row for row, place in enumerate(zip(origins.example, origins.position, strict=True))}
    n_seen = 0
    for latent, own in enumerate(refs):
        for slot, (row, found) in enumerate(zip(shown["random"].rows[latent], own["random"], strict=True)):
            if row < 0:
                assert found == []
                continue
            (ref,) = found
            example, position = int(origins.example[row]), int(origins.position[row])
            assert (ref["example"], ref["position"]) == (example, position)
            assert ref["value"] == pytest.approx(shown["random"].values[latent, slot], rel=1e-3)
            places = range(max(0, position - reach), min(20, position + reach + 1))
            assert ref["start"] == places.start
            assert ref["tokens"] == [str(place + example) for place in places]
            rows = [row_at.get((example, place)) for place in places]
            expected = [None if one is None else dense[one, latent] for one in rows]
            assert [value is None for value in ref["values"]] == [value is None for value in expected]
            assert [v for v in ref["values"] if v is not None] == pytest.approx(
                [v for v in expected if v is not None], rel=1e-3
            )
            n_seen += 1
    assert n_seen > 10


def test_a_pass_goes_on_where_it_stopped_and_makes_damaged_segments_again(
    dictionary: Dictionary,
    vectors: StoredVectors,
    dense: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SEGMENT_ROWS", 50)
    record(dictionary, vectors, tmp_path, 16)  # type: ignore[arg-type]
    before = [segment_path(tmp_path, number).read_bytes() for number in range(5)]
    segment_path(tmp_path, 1).unlink()
    segment_path(tmp_path, 3).write_bytes(before[3][:100])
    times = [segment_path(tmp_path, number).stat().st_mtime_ns for number in (0, 2, 4)]
    with pytest.raises(CatalogError, match="build the catalog again"):
        Record(tmp_path, N_ROWS, 50)
    record(dictionary, vectors, tmp_path, 16)  # type: ignore[arg-type]
    assert [segment_path(tmp_path, number).read_bytes() for number in range(5)] == before
    assert [segment_path(tmp_path, number).stat().st_mtime_ns for number in (0, 2, 4)] == times
    assert "made again" in caplog.text


def test_a_full_disk_is_told_of_before_it_is_full(
    dictionary: Dictionary, vectors: StoredVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_ROWS", 50)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(CatalogError, match="are needed for the firings"):
        record(dictionary, vectors, tmp_path, 16)  # type: ignore[arg-type]


def test_units_that_select_nothing_keep_their_positive_side(vectors: StoredVectors, tmp_path: Path) -> None:
    neurons = make_dictionary(IdentityConfig(d_sae=WIDTH), WIDTH)
    firings = record(neurons, vectors, tmp_path).of(range(WIDTH))  # type: ignore[arg-type]
    back = np.zeros((N_ROWS, WIDTH), dtype=np.float32)
    back[firings.rows, firings.latent] = firings.values
    assert np.array_equal(back, vectors.x.clamp(min=0).numpy())


def test_ranges_are_cut_where_memory_ends(kept: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_ENTRIES", int(kept.counts.max()))
    ranges = list(kept.ranges(range(1, LATENTS)))
    assert [latent for one in ranges for latent in one] == list(range(1, LATENTS))
    assert len(ranges) > 2 and all(kept.counts[one.start : one.stop].sum() <= kept.counts.max() for one in ranges)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), n=st.integers(1, 5), seed=st.integers(0, 99))
def test_parts_cover_everything_and_give_their_lowest(sizes: list[int], n: int, seed: int) -> None:
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    bounds = split(np.stack([ends[:-1], ends[1:]], axis=1), n)
    assert (np.diff(bounds, axis=1) >= 0).all() and (np.diff(bounds, axis=1).sum(1) == sizes).all()
    assert np.ptp(np.diff(bounds, axis=1), axis=1).max() <= 1
    priority = priorities(np.arange(ends[-1]), seed)
    for i, row in enumerate(one_of_each(bounds, priority)):
        for part, found in enumerate(row):
            here = range(bounds[i, part], bounds[i, part + 1])
            assert found == (min(here, key=lambda place: priority[place]) if len(here) else -1)


def test_ranks_order_values_and_break_ties_by_row(kept: Record) -> None:
    ranked = Ranked(read(kept))
    for latent in range(LATENTS):
        own = slice(*ranked.firings.offsets[latent : latent + 2])
        pairs = list(zip(ranked.values[own], ranked.firings.rows[ranked.order[own]], strict=True))
        assert pairs == sorted(pairs)

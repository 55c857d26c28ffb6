import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import CatalogError
from sae.evaluation.responses import SparseResponses
from sae.evaluation.sample import Units
from sae.evaluation.splitting import MIN_TOGETHER
from sae.evaluation.toys import Toy, hierarchical, toy_sample, true_dictionary
from sae.features.sections import neighbours as module
from sae.features.sections.neighbours import Neighbours, Relative, by_coactivation, by_decoder, by_examples
from sae.features.sections.neuron_links import NeuronLinks


def responses_of(dense: torch.Tensor) -> SparseResponses:
    items, units = dense.nonzero(as_tuple=True)
    return SparseResponses.of_entries(items, units, dense[items, units], *dense.shape)


def sparse_matrix(seed: int, n_items: int = 300, n_units: int = 20, share: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    common = torch.rand(n_items, n_units // 4, generator=generator).repeat_interleave(4, 1)
    dense = torch.rand(n_items, n_units, generator=generator)
    return dense * (dense + 0.7 * common < 2 * share)


def naive_nearest(values: np.ndarray, n: int) -> list[list[tuple[int, float]]]:
    """The n largest of each row that are not nan, largest first."""
    found = []
    for row in values:
        order = [int(i) for i in np.argsort(-np.nan_to_num(row, nan=-9), kind="stable") if not np.isnan(row[i])]
        found.append([(i, float(row[i])) for i in order[:n]])
    return found


def check(nearest, expected: list[list[tuple[int, float]]]) -> None:
    for latent, wanted in enumerate(expected):
        found = nearest.of(latent)
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-3, abs=1e-6)
        if len({round(value, 6) for _, value in wanted}) == len(wanted):
            assert [number for number, _ in found] == [number for number, _ in wanted]


def test_decoder_neighbours_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", 60)
    W_dec = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
    W_dec[4] = 0
    cosine = (F.normalize(W_dec, dim=1) @ F.normalize(W_dec, dim=1).T).numpy().astype(np.float64)
    np.fill_diagonal(cosine, np.nan)
    cosine[4], cosine[:, 4] = np.nan, np.nan
    check(by_decoder(W_dec, None, 6), naive_nearest(cosine, 6))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100), budget=st.sampled_from([50, 3000, 1 << 20]))
def test_coactivation_is_pearsons_correlation(seed: int, budget: int) -> None:
    dense = sparse_matrix(seed)
    dense[:, 3] = 0.0
    dense[:, 5] = 0.5
    correlation = np.full((20, 20), np.nan)
    together = ((dense > 0).double().T @ (dense > 0).double()).numpy()
    for one in range(20):
        for other in range(20):
            if one != other and dense[:, one].std() > 0 and dense[:, other].std() > 0:
                value = np.corrcoef(dense[:, one], dense[:, other])[0, 1]
                if value > 1e-9 and together[one, other] >= MIN_TOGETHER:
                    correlation[one, other] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ENTRIES_AT_ONCE", budget)
        check(by_coactivation(responses_of(dense), 4), naive_nearest(correlation, 4))


def test_latents_that_fire_together_rarely_are_no_neighbours() -> None:
    dense = torch.zeros(1000, 2)
    dense[: MIN_TOGETHER - 1] = 1.0
    assert by_coactivation(responses_of(dense)).of(0) == []
    dense[MIN_TOGETHER - 1] = 1.0
    assert by_coactivation(responses_of(dense)).of(0) == [[1, 1.0]]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100))
def test_shared_examples_are_the_overlap_of_sets(seed: int) -> None:
    generator = np.random.default_rng(seed)
    examples = generator.integers(-1, 12, size=(15, 6))
    sets = [set(row[row >= 0].tolist()) for row in examples]
    overlap = np.full((15, 15), np.nan)
    for one in range(15):
        for other in range(15):
            both = sets[one] & sets[other]
            if one != other and len(both) >= 2:
                overlap[one, other] = len(both) / len(sets[one] | sets[other])
    check(by_examples(examples, 5), naive_nearest(overlap, 5))


def test_no_examples_at_all() -> None:
    assert by_examples(np.full((3, 4), -1)).of(1) == []


@pytest.fixture(scope="module")
def family():
    """Roots and their children: the smaller dictionary knows the roots, the larger one the children."""
    toy = hierarchical(20, 2, 1, 80, probability=0.3, share=0.5)
    sample = toy_sample(toy, 6000)
    roots = toy.parents < 0
    small = true_dictionary(Toy(toy.directions[roots], toy.probabilities[roots]))
    large = true_dictionary(Toy(toy.directions[~roots], toy.probabilities[~roots]))
    return toy, Units("small", small, sample), Units("large", large, sample)


def test_children_and_parents_are_those_of_the_hierarchy(family) -> None:
    toy, small, large = family
    parents = toy.parents[toy.parents >= 0]
    children = Relative.by_activation("large", small, large)
    section = Neighbours(small.dictionary, relatives=[children]).of(range(20))
    for root in range(20):
        (found,) = section[root]["children"]
        assert found["dictionary"] == "large"
        assert {number for number, _ in found["latents"]} == set((parents == root).nonzero()[:, 0].tolist())
    up = Relative.by_activation("small", large, small)
    for child, section in enumerate(Neighbours(large.dictionary, relatives=[up]).of(range(large.n_units))):
        assert section["parents"][0]["latents"][0][0] == int(parents[child])
        assert "children" not in section


def test_relatives_by_decoder(family) -> None:
    _, small, large = family
    found = Relative.by_decoder("large", small.dictionary, large.dictionary, n=2)
    cosine = F.normalize(small.dictionary.W_dec) @ F.normalize(large.dictionary.W_dec).T
    assert found.nearest.numbers.tolist() == cosine.topk(2).indices.tolist()
    narrow = TopK(TopKConfig(d_sae=4, k=1), 5)
    with pytest.raises(CatalogError, match="width 5"):
        Relative.by_decoder("narrow", small.dictionary, narrow)


def test_senses_that_are_unknown_are_left_out(family) -> None:
    _, small, _ = family
    examples = np.array([[1, 2, 3], [2, 3, 4], [-1, -1, -1]])
    sections = Neighbours(small.dictionary, small.responses, examples, n=2).of(range(1, 3))
    assert sections[0]["examples"] == [[0, 0.5]]
    assert "examples" not in sections[1] and "parents" not in sections[1]
    assert set(sections[1]) <= {"decoder", "coactivation"}


def links_of(dictionary, dense: torch.Tensor, x: torch.Tensor, n: int = 3):
    return NeuronLinks(dictionary, responses_of(dense), x, n)


def test_neurons_read_written_and_correlated() -> None:
    generator = torch.Generator().manual_seed(0)
    dictionary = TopK(TopKConfig(d_sae=20, k=2), 7).requires_grad_(False)
    dictionary.W_enc_rows.copy_(torch.randn(20, 7, generator=generator))
    dictionary.W_dec.copy_(3 * torch.randn(20, 7, generator=generator))
    dense, x = sparse_matrix(1), torch.randn(300, 7, generator=generator)
    x[:, 2] += 4 * dense[:, 9]
    x[:, 6] = 1.0
    sections = links_of(dictionary, dense, x.bfloat16()).of(range(8, 12))
    for latent, section in zip(range(8, 12), sections, strict=True):
        reads, writes = dictionary.W_enc_rows[latent].double().numpy(), dictionary.W_dec[latent].double().numpy()
        for name, weights in (("reads", reads / np.abs(reads).sum()), ("writes", writes / np.linalg.norm(writes))):
            order = np.argsort(-np.abs(weights))[:3]
            assert [number for number, _ in section[name]] == order.tolist()
            assert [value for _, value in section[name]] == pytest.approx(weights[order].tolist(), rel=1e-3)
        assert section["share"] == pytest.approx(section["writes"][0][1] ** 2, rel=2e-3)
        rounded = x.bfloat16().double().numpy()
        correlation = np.array([np.corrcoef(dense[:, latent], rounded[:, i])[0, 1] for i in range(6)])
        order = np.argsort(-np.abs(correlation))[:3]
        assert [number for number, _ in section["correlated"]] == order.tolist()
        assert [value for _, value in section["correlated"]] == pytest.approx(correlation[order].tolist(), rel=1e-2)
    assert sections[1]["correlated"][0][0] == 2


def test_a_latent_that_is_a_neuron_has_all_of_its_share() -> None:
    dictionary = TopK(TopKConfig(d_sae=4, k=1), 4).requires_grad_(False)
    dictionary.W_dec.copy_(torch.diag(torch.tensor([1.0, -2.0, 1.0, 0.0])))
    dictionary.W_enc_rows.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])))
    sections = NeuronLinks(dictionary).of(range(4))
    assert sections[1] == {"reads": [[1, 1.0]], "writes": [[1, -1.0]], "share": 1.0}
    assert sections[3] is None

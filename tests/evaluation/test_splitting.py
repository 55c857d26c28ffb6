import pytest
import torch
from test_products import random_activations, sparse

from sae.errors import EvaluationError
from sae.evaluation.splitting import SplittingGraph, masked_cosines, splitting_scores


def naive_masked_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    def cosine(where: torch.Tensor) -> float:
        x, y = a[where].double(), b[where].double()
        return float(x @ y / (x.norm() * y.norm())) if x.norm() * y.norm() > 0 else 0.0

    return max(cosine(a > 0), cosine(b > 0))


def parent_and_parts(n_items: int = 600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Parent 0 fires wherever one of children 0, 1, 2 does; parent 1 is child 3; parent 2 is dead; child 4 is new."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, 12, (n_items,), generator=generator)
    strength = 0.5 + torch.rand(n_items, generator=generator)
    large = torch.stack([(group == number) * strength for number in range(5)], 1)
    small = torch.stack([large[:, :3].sum(1), large[:, 3], torch.zeros(n_items)], 1)
    return small, large


def graph() -> SplittingGraph:
    small, large = parent_and_parts()
    return SplittingGraph.build(["3", "5", "5 again"], [sparse(small), sparse(large), sparse(large)])


def test_masked_cosines_agree_with_a_naive_computation():
    one, two = random_activations(150, 8, 0, 0.2), random_activations(150, 9, 1, 0.2)
    one[:, 1] = 0
    ((first, cosine, together),) = masked_cosines(sparse(one), sparse(two))
    assert first == 0
    for i in range(8):
        for j in range(9):
            assert float(cosine[i, j]) == pytest.approx(naive_masked_cosine(one[:, i], two[:, j]), abs=1e-6)
            assert int(together[i, j]) == int(((one[:, i] > 0) & (two[:, j] > 0)).sum())


def test_a_parent_splits_into_its_parts():
    found = graph()
    assert sorted(child for child, _ in found.children(0)) == [0, 1, 2]
    assert all(cosine == pytest.approx(1.0) for _, cosine in found.children(0))
    assert [child for child, _ in found.children(1)] == [3] and found.children(2) == []
    assert found.n_children().tolist() == [3, 1, 0]
    assert found.n_parents(1).tolist() == [1, 1, 1, 1, 0]
    assert found.roots == [(0, 0), (0, 1), (1, 4)]
    children, split, inherited = splitting_scores(found)
    assert children.score().value == pytest.approx(4 / 3)
    assert split.score().value == pytest.approx(1 / 2)
    assert inherited.score().value == pytest.approx(4 / 5)


def test_unrelated_latents_have_no_edges():
    one, two = random_activations(3000, 20, 0, 0.02), random_activations(3000, 40, 1, 0.02)
    found = SplittingGraph.build(["one", "two"], [sparse(one), sparse(two)])
    assert len(found.edges[0].parent) == 0


def test_one_shared_row_makes_no_edge():
    one, two = torch.zeros(100, 1), torch.zeros(100, 1)
    one[:1], two[:1] = 1.0, 1.0
    ((_, cosine, _),) = masked_cosines(sparse(one), sparse(two))
    assert float(cosine) == pytest.approx(1.0)
    assert SplittingGraph.build(["one", "two"], [sparse(one), sparse(two)]).children(0) == []


def test_a_saved_graph_reads_back(tmp_path):
    written = graph()
    written.save(tmp_path / "splitting.json")
    read = SplittingGraph.load(tmp_path / "splitting.json")
    assert read.names == written.names and read.min_cosine == written.min_cosine
    for ours, theirs in zip(read.rates, written.rates, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(read.edges, written.edges, strict=True):
        assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("parent", "child", "cosine"))


def test_bad_input_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"got rows \[10, 9\]"):
        SplittingGraph.build(["a", "b"], [sparse(torch.rand(10, 2)), sparse(torch.rand(9, 2))])
    with pytest.raises(EvaluationError, match="b has activations below 0"):
        SplittingGraph.build(["a", "b"], [sparse(torch.rand(10, 2)), sparse(-torch.rand(10, 2))])
    with pytest.raises(EvaluationError, match="no such graph"):
        SplittingGraph.load(tmp_path / "missing.json")
    (tmp_path / "old.json").write_text('{"format_version": 0}')
    with pytest.raises(EvaluationError, match="format version 0"):
        SplittingGraph.load(tmp_path / "old.json")

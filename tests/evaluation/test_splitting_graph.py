import pytest
import torch
from test_products import sparse
from test_splitting import parent_and_parts

from sae.errors import EvaluationError
from sae.evaluation.splitting import Step
from sae.evaluation.splitting_graph import SplittingGraph


def graph() -> SplittingGraph:
    small, large = parent_and_parts()
    steps = [Step.between(sparse(small), sparse(large), 0.9), Step.between(sparse(large), sparse(large), 0.8)]
    return SplittingGraph.of(["3", "5", "5 again"], steps)


def test_children_and_parents_are_counted_per_level():
    found = graph()
    assert sorted(child for child, _ in found.children(0)) == [0, 1, 2]
    assert all(cosine == pytest.approx(1.0) for _, cosine in found.children(0))
    assert [child for child, _ in found.children(1)] == [3] and found.children(2) == []
    assert found.n_children().tolist() == [3, 1, 0] and found.n_children(1).tolist() == [1] * 5
    assert found.n_parents(0).tolist() == [0] * 3 and found.n_parents(1).tolist() == [1, 1, 1, 1, 0]
    assert found.roots == [(0, 0), (0, 1), (1, 4)]
    assert found.bars == (0.9, 0.8)


def test_a_saved_graph_reads_back(tmp_path):
    written = graph()
    written.save(tmp_path / "splitting.json")
    read = SplittingGraph.load(tmp_path / "splitting.json")
    assert read.names == written.names and read.bars == written.bars
    for ours, theirs in zip(read.rates, written.rates, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(read.edges, written.edges, strict=True):
        assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("parent", "child", "cosine"))


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no such graph"):
        SplittingGraph.load(tmp_path / "missing.json")
    (tmp_path / "old.json").write_text('{"format_version": 1}')
    with pytest.raises(EvaluationError, match="format version 1"):
        SplittingGraph.load(tmp_path / "old.json")

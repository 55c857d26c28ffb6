import numpy as np
import torch
from test_products import sparse

from sae.evaluation.relate_sizes import telling_root
from sae.evaluation.splitting import Step
from sae.evaluation.splitting_graph import SplittingGraph
from sae.evaluation.typical import BEFORE, TOKEN, Factors

N = 2000


def world(n_tokens: int = 20) -> tuple[Factors, torch.Tensor, torch.Tensor]:
    """Parent 0 splits into copies of itself, parent 1 by the token before, parent 2 likewise but over many tokens."""
    generator = np.random.default_rng(0)
    token, before = generator.integers(0, n_tokens, N), generator.integers(0, 2, N)
    factors = Factors({TOKEN: token, BEFORE: before}, {}, str)
    first, second, many = token == 0, token == 1, token > 10
    small = np.stack([first, second, many], 1)
    halves = [mask & (before == side) for mask in (second, many) for side in (0, 1)]
    large = np.stack([first, first, *halves], 1)
    return factors, torch.from_numpy(small).float(), torch.from_numpy(large).float()


def test_the_root_is_a_token_whose_children_tell_contexts_apart():
    factors, small, large = world()
    responses = [sparse(small), sparse(large)]
    graph = SplittingGraph.of(["3", "6"], [Step.between(*responses, 0.9)])
    assert graph.n_children().tolist() == [2, 2, 2]
    assert telling_root(graph, responses, factors) == 1


def test_nothing_is_chosen_where_nothing_splits():
    factors, small, _ = world()
    responses = [sparse(small), sparse(small)]
    graph = SplittingGraph.of(["3", "3"], [Step.between(*responses, 0.9)])
    assert telling_root(graph, responses, factors) is None

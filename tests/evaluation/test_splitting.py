import pytest
import torch
from test_products import random_activations, sparse

from sae.errors import EvaluationError
from sae.evaluation.splitting import MIN_TOGETHER, Step, chance_bar, masked_cosines, splitting_scores


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


def test_masked_cosines_agree_with_a_naive_computation():
    one, two = random_activations(150, 8, 0, 0.2), random_activations(150, 9, 1, 0.2)
    one[:, 1] = 0
    ((first, cosine, together),) = masked_cosines(sparse(one), sparse(two))
    assert first == 0
    for i in range(8):
        for j in range(9):
            assert float(cosine[i, j]) == pytest.approx(naive_masked_cosine(one[:, i], two[:, j]), abs=1e-6)
            assert int(together[i, j]) == int(((one[:, i] > 0) & (two[:, j] > 0)).sum())


def test_a_step_keeps_what_decides_at_every_bar():
    one, two = random_activations(300, 7, 0, 0.3), random_activations(300, 11, 1, 0.3)
    two[:, 4] = 0
    step = Step.between(sparse(one), sparse(two), bar=0.5)
    naive = torch.tensor([[naive_masked_cosine(a, b) for b in two.T] for a in one.T], dtype=torch.float64)
    naive[(one > 0).double().T @ (two > 0).double() < MIN_TOGETHER] = 0
    torch.testing.assert_close(step.nearest, naive.amax(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(step.second, naive.sort(1).values[:, -2], atol=1e-6, rtol=0)
    assert set(zip(step.edges.parent.tolist(), step.edges.child.tolist(), strict=True)) == set(
        map(tuple, (naive > 0.5).nonzero().tolist())
    )
    assert 0 < len(step.edges.parent) < 70
    alive = torch.arange(11) != 4
    for bar in (0.3, 0.5, 0.6):
        assert step.inherited_share(bar) == pytest.approx((naive > bar).any(0)[alive].double().mean())
        assert step.split_share(bar) == pytest.approx(((naive > bar).sum(1) >= 2).double().mean())


def test_a_parent_splits_into_its_parts():
    small, large = parent_and_parts()
    found = Step.between(sparse(small), sparse(large), bar=0.9)
    pairs = list(zip(found.edges.parent.tolist(), found.edges.child.tolist(), strict=True))
    assert pairs == [(0, 0), (0, 1), (0, 2), (1, 3)]
    assert found.edges.cosine.tolist() == pytest.approx([1.0] * 4)
    nearest, children, split, inherited = (measured.score().value for measured in splitting_scores(found))
    assert nearest == pytest.approx(4 / 5)
    assert children == pytest.approx(4 / 3)
    assert split == pytest.approx(1 / 2)
    assert inherited == pytest.approx(4 / 5)


def test_dense_parents_make_unrelated_latents_close_unless_the_bar_knows():
    parents, offspring = random_activations(4000, 60, 0, 0.2), random_activations(4000, 200, 1, 0.01)
    again = Step.between(sparse(parents), sparse(random_activations(4000, 200, 2, 0.01)))
    assert Step.between(sparse(parents), sparse(offspring)).inherited_share(0.4) > 0.9
    bar = chance_bar(again)
    assert again.inherited_share(bar) == pytest.approx(0.05)
    assert Step.between(sparse(parents), sparse(offspring), bar).inherited_share(bar) == pytest.approx(0.05, abs=0.05)


def test_one_shared_row_makes_no_edge():
    one, two = torch.zeros(100, 1), torch.zeros(100, 1)
    one[:1], two[:1] = 1.0, 1.0
    ((_, cosine, _),) = masked_cosines(sparse(one), sparse(two))
    assert float(cosine.min()) == pytest.approx(1.0)
    step = Step.between(sparse(one), sparse(two), bar=0.1)
    assert len(step.edges.parent) == 0 and float(step.nearest.max()) == 0 and float(step.second) == 0


def test_an_only_child_is_no_split():
    one = torch.ones(100, 1)
    step = Step.between(sparse(one), sparse(one), bar=0.9)
    assert float(step.nearest) == pytest.approx(1.0) and float(step.second) == 0 and step.split_share(0.9) == 0


def test_bad_input_is_named():
    with pytest.raises(EvaluationError, match=r"not on 10 and 9"):
        Step.between(sparse(torch.rand(10, 2)), sparse(torch.rand(9, 2)))
    with pytest.raises(EvaluationError, match="below 0"):
        Step.between(sparse(torch.rand(10, 2)), sparse(-torch.rand(10, 2)))

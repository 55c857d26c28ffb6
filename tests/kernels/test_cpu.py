import pytest
import torch

from sae.kernels import cpu


@pytest.mark.parametrize(("width", "k"), [(512, 1), (512, 8), (512, 9), (515, 3), (64, 1), (8, 8)])
def test_the_search_by_groups_is_exact(width: int, k: int) -> None:
    pre = torch.randn(50, width, generator=torch.Generator().manual_seed(0))
    values, columns = cpu._largest(pre, k)
    assert torch.equal(values.sort(1, descending=True).values, pre.topk(k).values)
    assert torch.equal(pre.gather(1, columns), values)


def test_the_search_by_groups_handles_ties_and_infinities() -> None:
    pre = torch.zeros(3, 512)
    pre[0, 7], pre[1] = torch.inf, -torch.inf
    values, columns = cpu._largest(pre, 4)
    assert torch.equal(values.sort(1, descending=True).values, pre.topk(4).values)
    assert all(len(set(row.tolist())) == 4 for row in columns)


def test_blocks_do_not_show_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(21, 8, generator=generator), torch.randn(64, 8, generator=generator)
    dead, bias = torch.arange(64) < 9, torch.zeros(64)
    whole = cpu.select_topk(x, weight, bias, 3, dead, 5)
    monkeypatch.setattr(cpu, "BLOCK_ROWS", 4)
    blocks = cpu.select_topk(x, weight, bias, 3, dead, 5)
    for first, second in zip(whole, blocks, strict=True):
        torch.testing.assert_close(first.sort(1).values, second.sort(1).values)

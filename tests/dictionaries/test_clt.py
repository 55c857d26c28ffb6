import pytest
import torch
from torch import Tensor

from sae.dictionaries.affine import Affine
from sae.dictionaries.clt import Clt, CltConfig
from sae.dictionaries.initialisation import normalise_rows_
from sae.errors import ConfigError, DictionaryError

N_LAYERS, WIDTH, WRITTEN, N, K = 3, 5, 4, 8, 2
CONFIG = CltConfig(d_sae=N_LAYERS * N, k=K, n_layers=N_LAYERS, k_aux=2 * N_LAYERS)


def vectors(width: int, seed: int, n: int = 64) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) + 0.5


def make(transcoder: bool = True) -> Clt:
    dictionary = Clt(CONFIG, N_LAYERS * WIDTH, N_LAYERS * WRITTEN if transcoder else None)
    target = vectors(N_LAYERS * WRITTEN, 1) if transcoder else None
    dictionary.initialise(vectors(N_LAYERS * WIDTH, 0), torch.Generator().manual_seed(0), target)
    return dictionary


def dense_codes(dictionary: Clt, x: Tensor, among: Tensor | None = None, k: int = K) -> Tensor:
    """The equations, layer by layer."""
    codes = torch.zeros(len(x), dictionary.d_sae)
    for layer in range(N_LAYERS):
        latents, read = slice(layer * N, (layer + 1) * N), slice(layer * WIDTH, (layer + 1) * WIDTH)
        weight, bias = dictionary.W_enc_rows[latents], dictionary.b_enc[latents]
        pre = (x[:, read] - dictionary.centre[read]) @ weight.T + bias
        ranked = pre if among is None else pre.masked_fill(~among[latents], -torch.inf)
        values, chosen = ranked.topk(k, dim=1)
        part = torch.zeros_like(pre).scatter(1, chosen, values.relu())
        codes = torch.cat([codes[:, : latents.start], part, codes[:, latents.stop :]], dim=1)
    return codes


@pytest.mark.parametrize("transcoder", [True, False])
def test_loss_and_gradients_are_those_of_the_equations(transcoder: bool) -> None:
    dictionary, x = make(transcoder), vectors(N_LAYERS * WIDTH, 2)
    target = vectors(N_LAYERS * WRITTEN, 3) if transcoder else x
    dead = torch.arange(dictionary.d_sae) % 3 == 0
    loss = dictionary.loss(x, dead, target if transcoder else None)
    names = dict(dictionary.named_parameters())
    found = torch.autograd.grad(loss.total, list(names.values()))

    codes = dense_codes(dictionary, x)
    y_hat = codes @ dictionary.W_dec + dictionary.b_dec
    mse = (target - y_hat).square().sum(1).mean() / dictionary.variance
    error = (target - y_hat).detach()
    revived = dense_codes(dictionary, x, among=dead) @ dictionary.W_dec
    spread = (error - error.mean(0)).square().sum(1).mean()
    total = mse + CONFIG.auxk_coefficient * (revived - error).square().sum(1).mean() / spread
    torch.testing.assert_close(loss.codes.dense(), codes)
    torch.testing.assert_close(loss.total, total)
    expected = torch.autograd.grad(total, list(names.values()))
    for name, one, other in zip(names, found, expected, strict=True):
        torch.testing.assert_close(one, other, msg=name, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("transcoder", [True, False])
def test_nothing_is_written_backwards_at_any_time(transcoder: bool) -> None:
    dictionary = make(transcoder)
    optimiser = torch.optim.Adam(dictionary.parameters(), lr=1e-2, fused=True)
    written = dictionary.d_out // N_LAYERS
    for step in range(5):
        target = vectors(N_LAYERS * WRITTEN, step) if transcoder else None
        dictionary.loss(vectors(N_LAYERS * WIDTH, step), torch.arange(24) % 4 == 0, target).total.backward()
        dictionary.after_backward()
        optimiser.step()
        optimiser.zero_grad()
        dictionary.after_step()
    for layer in range(N_LAYERS):
        rows = dictionary.W_dec[layer * N : (layer + 1) * N]
        assert not rows[:, : layer * written].any() and rows[:, layer * written :].all()
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(dictionary.d_sae))


def test_latents_read_their_own_layer_and_reach_it_and_the_later_ones() -> None:
    dictionary, x = make(), vectors(N_LAYERS * WIDTH, 2)
    other = x.clone()
    other[:, WIDTH : 2 * WIDTH] += 1
    codes, moved = dictionary.encode(x).dense(), dictionary.encode(other).dense()
    changed = (codes != moved).any(0).view(N_LAYERS, N).any(1)
    assert changed.tolist() == [False, True, False]
    assert dictionary.encode(x).counts.tolist() == [N_LAYERS * K] * len(x)
    written = (dictionary(x) != dictionary(other)).any(0).view(N_LAYERS, WRITTEN).any(1)
    assert written.tolist() == [False, True, True]


def rotation(width: int, seed: int) -> Affine:
    generator = torch.Generator().manual_seed(seed)
    orthogonal = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
    factors = 0.5 + torch.rand(width, generator=generator).double()
    mean = torch.randn(width, generator=generator).double()
    return Affine(mean, orthogonal * factors, (orthogonal / factors).T)


def test_it_folds_behind_a_map_of_each_layer() -> None:
    dictionary = make()
    inputs = Affine.side_by_side([rotation(WIDTH, i) for i in range(N_LAYERS)])
    outputs = Affine.side_by_side([rotation(WRITTEN, 10 + i) for i in range(N_LAYERS)])
    raw = inputs.undo(vectors(N_LAYERS * WIDTH, 2).double()).float()
    folded = dictionary.fold(inputs, outputs)
    expected = dictionary.encode(inputs(raw)).dense() * outputs.unit
    torch.testing.assert_close(folded.encode(raw).dense(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded(raw), outputs.undo(dictionary(inputs(raw))), atol=1e-4, rtol=1e-4)
    assert not folded.W_dec[N:, :WRITTEN].any()
    with pytest.raises(DictionaryError, match="not one that mixes them"):
        dictionary.fold(rotation(N_LAYERS * WIDTH, 0), outputs)


def test_training_recovers_latents_that_write_to_several_layers() -> None:
    """Sums of features, each of which begins at one layer and goes on, changed, through the later ones."""
    generator = torch.Generator().manual_seed(0)
    width, n_layers, n = 16, 2, 16
    truth = torch.randn(n_layers * n, n_layers * width, generator=generator)
    truth[n:, :width] = 0
    normalise_rows_(truth)

    def sample(size: int) -> Tensor:
        active = torch.rand(size, len(truth), generator=generator) < 1 / n
        return (active * (1 + torch.rand(size, len(truth), generator=generator))) @ truth

    dictionary = Clt(CltConfig(d_sae=n_layers * n, k=2, n_layers=n_layers), n_layers * width)
    dictionary.initialise(sample(2048), generator)
    optimiser = torch.optim.Adam(dictionary.parameters(), lr=1e-2, fused=True)
    fired = torch.ones(dictionary.d_sae, dtype=torch.bool)
    for step in range(400):
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * min(1, (400 - step) / 100)
        optimiser.zero_grad()
        dictionary.loss(sample(256), ~fired).total.backward()
        dictionary.after_backward()
        optimiser.step()
        dictionary.after_step()
        if step % 20 == 19:
            fired = dictionary.encode(sample(2048)).n_fired() > 0
    # Those of the first layer are seen there free of the second's; a latent of the first layer finds its whole path.
    similarity = (truth[:n] @ dictionary.W_dec.detach()[:n].T).max(1).values
    assert similarity.mean() >= 0.9


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ([5, 5], [4], r"reads sites of width \[5, 5\] and writes \[4\]"),
        ([5, 6], [4, 4], r"reads sites of width \[5, 6\]"),
        ([5, 5, 5, 5], [], "n_layers 3: 4 hookpoints are read"),
    ],
)
def test_sites_that_are_no_stack_of_layers(inputs: list[int], targets: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CONFIG.for_sites(inputs, targets)


def test_sizes_that_do_not_fit() -> None:
    assert CltConfig(d_sae=24, k=2).for_sites([5, 5], [4, 4]).n_layers == 2
    with pytest.raises(ConfigError, match="must divide d_sae 25"):
        CltConfig(d_sae=25, k=2, n_layers=3)
    with pytest.raises(ConfigError, match="at least k 9"):
        CltConfig(d_sae=24, k=9, n_layers=3)
    with pytest.raises(ConfigError, match="no linear path"):
        CltConfig(d_sae=24, k=2, skip=True)
    with pytest.raises(DictionaryError, match="multiples of n_layers 3"):
        Clt(CONFIG, 16, 12)

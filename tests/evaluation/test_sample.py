import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import EvaluationError
from sae.evaluation import sample as sample_module
from sae.evaluation.sample import LabelTable, Sample, Units, halves
from sae.tensors import Kind


def latents(width: int) -> Dictionary:
    dictionary = TopK(TopKConfig(d_sae=width, k=width), width).requires_grad_(False)
    dictionary.W_enc_rows.copy_(torch.eye(width))
    return dictionary


def neurons(width: int) -> Dictionary:
    return Identity(IdentityConfig(d_sae=width), width)


def sample_of(
    example: torch.Tensor, kind: torch.Tensor | None = None, pooled: bool = True, width: int = 5, seed: int = 0
) -> Sample:
    """Rows of given examples with non-negative vectors and one integer label per item."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(len(example), width, generator=generator) * (
        torch.rand(len(example), width, generator=generator) < 0.5
    )
    items = torch.unique_consecutive(example) if pooled else example
    labels = {"side": (np.arange(len(items)) % 2).astype(np.int64)}
    return Sample(
        x=x,
        rows=Provenance(
            example, torch.arange(len(example)), torch.zeros(len(example), dtype=torch.uint8) if kind is None else kind
        ),
        pooled=pooled,
        labels=labels,
        factors={**labels, "number": np.arange(len(items), dtype=np.float64)},
        label_names={"side": ("left", "right")},
        match=halves(items, seed),
    )


def test_label_table_names_values_and_leaves_out_rare_missing_and_continuous_ones() -> None:
    match = torch.arange(80) % 2 == 0
    kind = np.repeat([0, 1, -1], [40, 25, 15])
    kind[-3:] = 2
    word = np.array(["yes", ""] * 20 + ["no"] * 40)
    table = LabelTable.of({"kind": kind, "word": word, "hue": np.linspace(0, 1, 80)}, {"kind": ("a", "b", "c")}, match)
    assert table.names == ("kind=a", "kind=b", "word=no")  # all "yes" lie in one half
    torch.testing.assert_close(
        table.columns, torch.from_numpy(np.stack([kind == 0, kind == 1, word == "no"], 1)), rtol=0, atol=0
    )


def test_a_value_on_nearly_every_item_is_left_out() -> None:
    match = torch.arange(60) % 2 == 0
    with pytest.raises(EvaluationError, match="no value of almost has 10 items with and without it"):
        LabelTable.of({"almost": (np.arange(60) < 10).astype(np.int16)}, {}, match)


def test_halves_keep_examples_whole_and_follow_the_seed() -> None:
    example = torch.arange(300).repeat_interleave(4)
    match = halves(example, 0)
    assert (match.reshape(300, 4) == match.reshape(300, 4)[:, :1]).all()
    assert 100 < int(match.sum()) / 4 < 200
    assert (match == halves(example, 0)).all()
    assert (match != halves(example, 1)).any()


def test_items_are_rows_or_whole_examples() -> None:
    example = torch.tensor([3, 3, 4, 7, 7, 7])
    pooled = sample_of(example)
    assert pooled.n_items == 3
    assert pooled.example.tolist() == [3, 4, 7]
    assert pooled.item.tolist() == [0, 0, 1, 2, 2, 2]
    rows = sample_of(example, pooled=False)
    assert rows.n_items == 6
    assert rows.example.tolist() == example.tolist()
    assert rows.item.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("pooled", [False, True])
def test_shuffling_deals_vectors_out_within_each_half_and_leaves_labels_in_place(pooled: bool) -> None:
    example = torch.arange(100).repeat_interleave(3)
    sample = sample_of(example, pooled=pooled)
    numbered = sample.with_vectors(torch.arange(300.0)[:, None])
    shuffled = numbered.shuffled(3)
    source = shuffled.x[:, 0].long()
    row_matches = sample.match[sample.item]
    assert source.sort().values.tolist() == list(range(300))
    assert (source != torch.arange(300)).float().mean() > 0.9
    assert (row_matches[source] == row_matches).all()
    assert shuffled.labels is sample.labels
    assert shuffled.rows is sample.rows
    torch.testing.assert_close(shuffled.x, numbered.shuffled(3).x)
    assert (shuffled.x != numbered.shuffled(4).x).any()


def test_vectors_of_another_subject_may_have_another_width() -> None:
    sample = sample_of(torch.arange(60), pooled=False)
    wider = sample.with_vectors(torch.ones(60, 9))
    assert Units("neurons", neurons(9), wider).responses.n_units == 9
    assert wider.labels is sample.labels


@pytest.mark.parametrize("make", [latents, neurons])
def test_pooled_units_take_the_maximum_over_patches_and_keep_the_class_token_apart(make, monkeypatch) -> None:
    monkeypatch.setattr(sample_module, "ENCODED_ROWS", 7)
    kind = torch.tensor([Kind.CLASS, Kind.PATCH, Kind.PATCH, Kind.PATCH], dtype=torch.uint8).repeat(50)
    sample = sample_of(torch.arange(10, 60).repeat_interleave(4), kind)
    units = Units("units", make(5), sample)
    per_item = sample.x.reshape(50, 4, 5)
    everything = torch.arange(5)
    torch.testing.assert_close(units.responses.columns(everything), per_item[:, 1:].amax(1))
    assert units.class_responses is not None
    torch.testing.assert_close(units.class_responses.columns(everything), per_item[:, 0])
    torch.testing.assert_close(units.row_responses.columns(everything), sample.x)


@pytest.mark.parametrize("make", [latents, neurons])
@pytest.mark.parametrize("kind", [Kind.CLASS, Kind.PATCH])
def test_without_a_class_token_beside_patches_every_row_counts(make, kind: Kind) -> None:
    n_rows = 1 if kind == Kind.CLASS else 3
    sample = sample_of(
        torch.arange(50).repeat_interleave(n_rows), torch.full((50 * n_rows,), int(kind), dtype=torch.uint8)
    )
    units = Units("units", make(5), sample)
    assert units.class_responses is None
    torch.testing.assert_close(units.responses.columns(torch.arange(5)), sample.x.reshape(50, n_rows, 5).amax(1))


@pytest.mark.parametrize("make", [latents, neurons])
def test_units_score_each_half_alone_and_know_who_fires(make) -> None:
    sample = sample_of(torch.arange(90), pooled=False)
    sample.x[:, 3] = 0
    units = Units("units", make(5), sample)
    assert units.n_units == 5
    assert units.alive.tolist() == [True, True, True, False, True]
    assert units.row_responses is units.responses
    for found, half in zip(units.auc, (sample.match, ~sample.match), strict=True):
        part = Units("part", make(5), sample_of(torch.arange(90), pooled=False)).responses.on(half)
        expected = part.auc(sample.table.columns[half])
        expected[3] = 0.5
        torch.testing.assert_close(found, expected)


def test_vectors_in_half_precision_are_widened() -> None:
    sample = sample_of(torch.arange(60), pooled=False)
    narrow = sample.with_vectors(sample.x.bfloat16())
    for make in (latents, neurons):
        found = Units("units", make(5), narrow).responses.columns(torch.arange(5))
        torch.testing.assert_close(found, sample.x.bfloat16().float())

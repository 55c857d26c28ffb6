import numpy as np
import pytest
import torch

from sae.dictionaries.codes import Codes
from sae.errors import EvaluationError
from sae.evaluation.labels import LabelScorer

N = 600


def planted() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Codes in which latent 2 marks label "yes" exactly and neurons that mix it with noise."""
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(N, generator=generator) < 0.3
    codes = torch.rand(N, 5, generator=generator) * (torch.rand(N, 5, generator=generator) < 0.4)
    codes[:, 2] = label * (0.5 + torch.rand(N, generator=generator))
    x = codes @ torch.randn(5, 3, generator=generator)
    return x, codes, np.where(label.numpy(), "yes", "no")


def test_the_planted_latent_is_found_and_beats_the_neurons() -> None:
    x, codes, label = planted()
    scorer = LabelScorer(5, pooled=False)
    for i in range(0, N, 100):
        rows = slice(i, i + 100)
        scorer.update(x[rows], Codes.from_dense(codes[rows]), torch.arange(i, i + 100), {"answer": label[rows]})
    scores, details = scorer.result({})
    by_name = {s.name: s.value for s in scores}
    yes = next(row for row in details["labels"] if row["label"] == "answer=yes")
    assert yes["latent"] == 2
    assert yes["latent_auc"] == 1
    assert by_name["label_auc_gain"] == pytest.approx(by_name["label_auc_latents"] - by_name["label_auc_neurons"])
    assert by_name["label_auc_gain"] > 0.05


def test_shuffled_labels_sit_at_chance() -> None:
    x, codes, label = planted()
    shuffled = np.random.default_rng(1).permutation(label)
    scorer = LabelScorer(5, pooled=False)
    scorer.update(x, Codes.from_dense(codes), torch.arange(N), {"answer": shuffled})
    scores, _ = scorer.result({})
    assert scores[0].value == pytest.approx(0.5, abs=0.06)
    assert scores[1].value == pytest.approx(0.5, abs=0.06)


def test_pooled_rows_take_the_label_of_their_example() -> None:
    x, codes, label = planted()
    repeated = torch.arange(N).repeat_interleave(3)
    spread = codes.repeat_interleave(3, 0) * (torch.arange(3 * N) % 3 == 1)[:, None]
    scorer = LabelScorer(5, pooled=True)
    scorer.update(x.repeat_interleave(3, 0), Codes.from_dense(spread), repeated, {"answer": label})
    _, details = scorer.result({})
    assert details["rows"] == N
    assert next(row for row in details["labels"] if row["label"] == "answer=yes")["latent"] == 2


def test_too_few_rows_of_every_label_is_an_error() -> None:
    x, codes, _ = planted()
    scorer = LabelScorer(5, pooled=False)
    scorer.update(x[:30], Codes.from_dense(codes[:30]), torch.arange(30), {"word": np.arange(30)})
    with pytest.raises(EvaluationError, match="no value of word has 10 rows"):
        scorer.result({})

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import EvaluationError
from sae.evaluation.evaluate import EvaluateConfig, evaluate
from sae.evaluation.report import Report
from sae.inputs.base import Classes
from sae.subjects.load import load
from sae.tensors import Batch, Kind

HOOKPOINT = "blocks.0.mlp.hook_post"
LENGTH = 12


class LabelledTokens:
    """Random tokens; the label of a token is whether its number is even."""

    fingerprint = "f" * 64
    label_names: ClassVar = {"parity": ("even", "odd")}
    classes: Classes | None = None

    def __len__(self) -> int:
        return 60

    def describe(self) -> dict[str, str]:
        return {"kind": "labelled tokens"}

    def tokens(self, start: int, stop: int) -> torch.Tensor:
        tokens = torch.randint(3, 200, (60, LENGTH), generator=torch.Generator().manual_seed(0))
        tokens[:, 0] = 0
        return tokens[start:stop]

    def batch(self, start: int, stop: int) -> Batch:
        tokens = self.tokens(start, stop)
        kind = torch.full(tokens.shape, int(Kind.TOKEN), dtype=torch.uint8)
        kind[:, 0] = int(Kind.BOS)
        return Batch(first_example=start, tokens=tokens, attended=torch.ones_like(tokens, dtype=torch.bool), kind=kind)

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"parity": self.tokens(start, stop).numpy() % 2}


@pytest.fixture(scope="module")
def subject(tiny_gpt2_folder: Path):
    return load(f"language:{tiny_gpt2_folder}")


@pytest.fixture(scope="module")
def store(subject, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    config = HarvestConfig(
        subject=subject.id,
        hookpoints=(HOOKPOINT,),
        out=tmp_path_factory.mktemp("store") / "store",
        dtype="float32",
        batch_examples=4,
        shard_examples=20,
    )
    return harvest(subject, LabelledTokens(), config)


@pytest.fixture
def dictionary(subject, store: ActivationStore) -> Dictionary:
    vectors = store.vectors(HOOKPOINT)
    dictionary = make_dictionary(TopKConfig(d_sae=48, k=6), vectors.d_in)
    dictionary.initialise(vectors.read(0, len(vectors)), torch.Generator().manual_seed(0))
    dictionary.provenance = {"subject": subject.id, "hookpoint": HOOKPOINT}
    return dictionary


def settings(tmp_path: Path, **changes: object) -> EvaluateConfig:
    return EvaluateConfig(dictionary="here", store=tmp_path, out=tmp_path, **changes)  # type: ignore[arg-type]


def test_the_whole_report_and_its_file(subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path) -> None:
    report = evaluate(dictionary, store, settings(tmp_path, chunk_vectors=50), subject, LabelledTokens())
    report.save(tmp_path / "report.json")
    again = Report.load(tmp_path / "report.json")
    assert again.scores == report.scores
    assert again.about["dictionary"]["sha256"] == dictionary.hash
    vectors = store.vectors(HOOKPOINT, TRAINING_KINDS)
    x = vectors.read(0, len(vectors)).double()
    x_hat = dictionary(x.float()).detach().double()
    naive = ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert report["fvu"].value == pytest.approx(float(naive), rel=1e-6)
    assert report["fvu"].n == 60 * (LENGTH - 1)
    assert 0 <= report["label_auc_latents"].value <= 1
    labels = {row["label"] for row in report.details["labels"]["labels"]}
    assert labels == {"parity=even", "parity=odd"}
    assert {"ce_recovered", "kl", "dead_fraction", "l0"} <= {score.name for score in report.scores}


def test_without_logits_of_the_next_token_splicing_is_left_out(
    tiny_bert_folder: Path, dictionary: Dictionary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load(f"language:{tiny_bert_folder}")
    config = HarvestConfig(subject=encoder.id, hookpoints=(HOOKPOINT,), out=tmp_path / "store", dtype="float32")
    read = harvest(encoder, LabelledTokens(), config)
    dictionary.provenance["subject"] = encoder.id
    report = evaluate(dictionary, read, settings(tmp_path), encoder, LabelledTokens())
    names = {score.name for score in report.scores}
    assert "fvu" in names and not {"ce_recovered", "kl"} & names
    assert "no logits of the next token" in caplog.text


def test_chunks_do_not_change_the_result(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    small = evaluate(dictionary, store, settings(tmp_path, chunk_vectors=25), None, LabelledTokens())
    large = evaluate(dictionary, store, settings(tmp_path, chunk_vectors=500), None, LabelledTokens())
    for score in small.scores:
        assert score.value == pytest.approx(large[score.name].value, rel=1e-6), score.name
    assert small.details["labels"] == large.details["labels"]


def test_what_does_not_belong_together_is_refused(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    dictionary.provenance["hookpoint"] = "blocks.7.hook_resid_post"
    with pytest.raises(EvaluationError, match=r"blocks\.7\.hook_resid_post.*the store has blocks\.0"):
        evaluate(dictionary, store, settings(tmp_path))
    dictionary.provenance = {"subject": "language:other", "hookpoint": HOOKPOINT}
    with pytest.raises(EvaluationError, match="trained on language:other"):
        evaluate(dictionary, store, settings(tmp_path))
    narrow = make_dictionary(TopKConfig(d_sae=8, k=2), 5)
    narrow.provenance = {"subject": subject.id, "hookpoint": HOOKPOINT}
    with pytest.raises(EvaluationError, match="wide, the dictionary 5"):
        evaluate(narrow, store, settings(tmp_path))


def test_other_inputs_than_the_stores_are_refused(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    others = LabelledTokens()
    others.fingerprint = "0" * 64
    with pytest.raises(EvaluationError, match="fingerprint 0000"):
        evaluate(dictionary, store, settings(tmp_path), subject, others)

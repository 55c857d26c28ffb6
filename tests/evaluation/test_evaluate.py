import copy
import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import numpy as np
import pytest
import torch

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import TRAINING_KINDS, ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import save_dictionary
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import EvaluationError
from sae.evaluation import report as reports
from sae.evaluation.config import EvaluateConfig
from sae.evaluation.evaluate import evaluate
from sae.evaluation.latent_scores import load_latent_scores
from sae.evaluation.report import Report
from sae.inputs.base import Classes
from sae.subjects.load import load
from sae.tensors import Batch, Kind

HOOKPOINT = "blocks.0.mlp.hook_post"
LENGTH = 12
SCHEMA = Path(reports.__file__).with_name("report_schema.json")


class LabelledTokens:
    """Random tokens; the label of a token is whether its number is even."""

    fingerprint = "f" * 64
    label_names: ClassVar = {"parity": ("even", "odd")}
    bookkeeping = ()
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
    found = evaluate(dictionary, store, settings(tmp_path, chunk_vectors=50), subject, LabelledTokens())
    found.save(tmp_path)
    report, again = found.report, Report.load(tmp_path / "report.json")
    assert again.scores == report.scores and again.differences == report.differences
    jsonschema.validate(json.loads((tmp_path / "report.json").read_text()), json.loads(SCHEMA.read_text()))
    latents = load_latent_scores(tmp_path / "latents.safetensors")
    torch.testing.assert_close(latents.values["unit_auc"], found.latents.values["unit_auc"])
    assert latents.about["dictionary"] == dictionary.hash and len(latents.numbers["best_label"]) == dictionary.d_sae
    assert again.about["dictionary"]["sha256"] == dictionary.hash
    vectors = store.vectors(HOOKPOINT, TRAINING_KINDS)
    x = vectors.read(0, len(vectors)).double()
    x_hat = dictionary(x.float()).detach().double()
    naive = ((x - x_hat) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert report["fvu"].value == pytest.approx(float(naive), rel=1e-6)
    assert report["fvu"].n == 60 * (LENGTH - 1)
    assert 0 <= report["label_auc"].value <= 1
    for who in ("dictionary", "neurons"):
        assert {row["label"] for row in report.details["labels"][who]} == {"parity=even", "parity=odd"}
    assert {"ce_recovered", "kl", "dead_fraction", "l0"} <= {score.name for score in report.scores}


def test_controls_stand_beside_and_those_without_information_are_at_chance(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    report = evaluate(dictionary, store, settings(tmp_path), subject, LabelledTokens()).report
    assert list(report.controls) == [
        *("neurons", "neurons_cut", "neurons_rectified", "pca", "random_directions", "constant", "shuffled")
    ]
    assert report.score("label_auc", "constant").value == 0.5
    assert report.score("label_auc", "shuffled").value == pytest.approx(0.5, abs=0.1)
    assert report.score("l0", "neurons_cut").value <= report["l0"].value
    assert report.score("fvu", "neurons").value == pytest.approx(0, abs=1e-9)
    differences = {(one.metric, one.control) for one in report.differences}
    assert ("label_auc", "neurons") in differences and ("unit_auc", "random_directions") in differences


def test_trained_controls_are_scored_too_and_must_fit(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    control = make_dictionary(TopKConfig(d_sae=48, k=6), dictionary.d_in)
    x = store.vectors(HOOKPOINT).read(0, 200)
    control.initialise(x, torch.Generator().manual_seed(7))
    save_dictionary(control, tmp_path / "frozen", {"subject": subject.id, "hookpoint": HOOKPOINT})
    given = settings(tmp_path, trained_controls={"frozen_decoder": str(tmp_path / "frozen")})
    report = evaluate(dictionary, store, given, None, LabelledTokens()).report
    assert "decoder stayed random" in report.controls["frozen_decoder"].description
    save_dictionary(control, tmp_path / "other", {"subject": subject.id, "hookpoint": "blocks.9.hook_resid_post"})
    given = settings(tmp_path, trained_controls={"frozen_decoder": str(tmp_path / "other")})
    with pytest.raises(EvaluationError, match=r"trained on blocks\.9\.hook_resid_post"):
        evaluate(dictionary, store, given, None, LabelledTokens())


def test_the_untrained_subject_is_run_on_the_same_inputs(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    untrained = f"untrained:{subject.id}"
    save_dictionary(copy.deepcopy(dictionary), tmp_path / "untrained", {"subject": untrained, "hookpoint": HOOKPOINT})
    given = settings(tmp_path, trained_controls={"untrained_subject": str(tmp_path / "untrained")})
    report = evaluate(dictionary, store, given, None, LabelledTokens()).report
    own, other = report["label_auc"], report.score("label_auc", "untrained_subject")
    assert other.n == own.n and other.value != own.value


def test_vectors_that_are_not_finite_are_named(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Vectors.read

    def spoiled(self: Vectors, start: int, stop: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        x = read(self, start, stop, dtype)
        if start <= 30 < stop:
            x[30 - start, 0] = torch.nan
        return x

    monkeypatch.setattr(Vectors, "read", spoiled)
    with pytest.raises(EvaluationError, match=r"row 30 \(example 2\) holds NaN"):
        evaluate(dictionary, store, settings(tmp_path))


def test_too_few_examples_to_split_are_refused(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=r"examples in the .* vectors to score labels on; at least 20"):
        evaluate(dictionary, store, settings(tmp_path, n_sample_vectors=50), None, LabelledTokens())


def test_without_labels_interpretability_is_left_out_and_said_so(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = evaluate(dictionary, store, settings(tmp_path)).report
    assert "fvu" in report and "label_auc" not in report and not report.controls
    assert "no inputs with exact labels" in caplog.text


def test_without_logits_of_the_next_token_splicing_is_left_out(
    tiny_bert_folder: Path, dictionary: Dictionary, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = load(f"language:{tiny_bert_folder}")
    config = HarvestConfig(subject=encoder.id, hookpoints=(HOOKPOINT,), out=tmp_path / "store", dtype="float32")
    read = harvest(encoder, LabelledTokens(), config)
    dictionary.provenance["subject"] = encoder.id
    report = evaluate(dictionary, read, settings(tmp_path), encoder, LabelledTokens()).report
    names = {score.name for score in report.scores}
    assert "fvu" in names and not {"ce_recovered", "kl"} & names
    assert "no logits of the next token" in caplog.text


def test_chunks_do_not_change_the_result(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    small = evaluate(dictionary, store, settings(tmp_path, chunk_vectors=25), None, LabelledTokens()).report
    large = evaluate(dictionary, store, settings(tmp_path, chunk_vectors=500), None, LabelledTokens()).report
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

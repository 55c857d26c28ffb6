import copy
import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import numpy as np
import pytest
import torch
from tiny_clip import save_clip

from sae.activations.harvest import harvest
from sae.activations.harvest_config import HarvestConfig
from sae.activations.store import TRAINING_KINDS, ActivationStore, Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.io import save_dictionary
from sae.dictionaries.registry import make_dictionary
from sae.dictionaries.topk import TopKConfig
from sae.errors import EvaluationError, SubjectError
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
    label_names: ClassVar[dict[str, tuple[str, ...]]] = {"parity": ("even", "odd")}
    bookkeeping = ()
    classes: Classes | None = None

    def __init__(self, n_examples: int = 60) -> None:
        self.n_examples = n_examples

    def __len__(self) -> int:
        return self.n_examples

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


# Bad input: each its own clear error ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_vectors", "where"), [(None, r"row 30 \(example 2\)"), (20, r"sample: row 30 \(example 2\)")]
)
def test_vectors_that_are_not_finite_are_named(
    n_vectors: int | None,
    where: str,
    store: ActivationStore,
    dictionary: Dictionary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in rows that are scored by labels but not rebuilt."""
    read = Vectors.read

    def spoiled(self: Vectors, start: int, stop: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        x = read(self, start, stop, dtype)
        if start <= 30 < stop:
            x[30 - start, 0] = torch.nan
        return x

    monkeypatch.setattr(Vectors, "read", spoiled)
    with pytest.raises(EvaluationError, match=rf"{where} holds NaN"):
        evaluate(dictionary, store, settings(tmp_path, n_vectors=n_vectors), None, LabelledTokens())


def test_weights_that_are_not_finite_are_named(store: ActivationStore, dictionary: Dictionary, tmp_path: Path) -> None:
    control = copy.deepcopy(dictionary)
    control.W_dec.data[3, 1] = torch.inf
    save_dictionary(control, tmp_path / "frozen", dictionary.provenance)
    given = settings(tmp_path, trained_controls={"frozen_decoder": str(tmp_path / "frozen")})
    with pytest.raises(EvaluationError, match="frozen: W_dec holds 1 NaN or infinite values"):
        evaluate(dictionary, store, given, None, LabelledTokens())
    dictionary.b_enc.data[:2] = torch.nan
    with pytest.raises(EvaluationError, match="here: b_enc holds 2 NaN or infinite values of 48"):
        evaluate(dictionary, store, settings(tmp_path))


def test_too_few_examples_to_split_are_refused(
    subject, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=r"examples in the .* vectors to score labels on; at least 20"):
        evaluate(dictionary, store, settings(tmp_path, n_sample_vectors=50), None, LabelledTokens())
    few = LabelledTokens(12)
    config = HarvestConfig(subject=subject.id, hookpoints=(HOOKPOINT,), out=tmp_path / "few", dtype="float32")
    small = harvest(subject, few, config)
    with pytest.raises(EvaluationError, match=r"12 examples in the 132 vectors to score labels on; at least 20"):
        evaluate(dictionary, small, settings(tmp_path), None, few)


class Relabelled(LabelledTokens):
    """The same tokens with labels of any kind."""

    def __init__(self, labels: dict[str, np.ndarray], **names: tuple[str, ...]) -> None:
        super().__init__()
        self.given, self.label_names = labels, names  # type: ignore[misc]

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {family: values[start:stop] for family, values in self.given.items()}


EVEN = LabelledTokens().labels(0, 60)["parity"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (Relabelled({"parity": 0 * EVEN}, parity=("even", "odd")), "no value of parity has 10 items with and without"),
        (Relabelled({"parity": 0 * EVEN - 1}, parity=("even", "odd")), "no value of parity has 10 items"),
        (Relabelled({}, parity=("even", "odd")), r"name parity, but parity are missing from the labels .* \(none\)"),
        (
            Relabelled({"parity": EVEN}, parity=("even", "odd"), sign=("-", "+")),
            r"name parity, sign, but sign are missing from the labels they give \(parity\)",
        ),
        (Relabelled({"parity": EVEN[:50]}, parity=("even", "odd")), "60 examples of 12 positions need as many labels"),
        (Relabelled({"parity": EVEN[:, :9]}, parity=("even", "odd")), r"need as many labels; .*\[60, 9\]"),
        (
            Relabelled({"parity": EVEN, "whole": EVEN[:, 0]}, parity=("even", "odd"), whole=("even", "odd")),
            "all be per example or all per position",
        ),
        (Relabelled({"parity": EVEN}, parity=("even",)), "parity has values from 0 to 1; -1 to 0 are named"),
    ],
    ids=["one value", "says nothing", "none", "a family", "examples", "positions", "mixed", "unnamed"],
)
def test_labels_that_cannot_be_scored_are_refused(
    inputs: Relabelled, message: str, store: ActivationStore, dictionary: Dictionary, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(dictionary, store, settings(tmp_path), None, inputs)


def test_a_class_without_items_is_left_out(store: ActivationStore, dictionary: Dictionary, tmp_path: Path) -> None:
    inputs = Relabelled({"parity": EVEN}, parity=("even", "odd", "neither"))
    report = evaluate(dictionary, store, settings(tmp_path), None, inputs).report
    assert {row["label"] for row in report.details["labels"]["dictionary"]} == {"parity=even", "parity=odd"}
    assert report["label_auc"].n == 2


class Shapes:
    """Pictures of one colour each, whose class is the colour."""

    fingerprint = "c" * 64
    label_names: ClassVar[dict[str, tuple[str, ...]]] = {}
    bookkeeping = ()

    def __init__(
        self, family: str = "colour", prompts: tuple[str, ...] = ("dark", "light"), answered: bool = True
    ) -> None:
        self.classes = Classes(family, [[prompt] if prompt else [] for prompt in prompts])
        self.answered = answered

    def __len__(self) -> int:
        return 48

    def describe(self) -> dict[str, str]:
        return {"kind": "shapes"}

    def batch(self, start: int, stop: int) -> Batch:
        shade = (torch.arange(start, stop) * 5 % 256).to(torch.uint8)
        return Batch(first_example=start, images=shade[:, None, None, None].expand(-1, 3, 32, 32).contiguous())

    def labels(self, start: int, stop: int) -> dict[str, np.ndarray]:
        light = (np.arange(start, stop) * 5 % 256 > 127).astype(np.int64)
        return {"colour": light if self.answered else np.full_like(light, -1)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory):
    return load(f"clip:{save_clip(tmp_path_factory.mktemp('clip') / 'vit', 'vit')}")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (Shapes(family="color"), EvaluationError, "no label family 'color' holds the answers. Did you mean 'colour'"),
        (Shapes(prompts=("dark",)), EvaluationError, "run from 0 to 1 over 48 examples; some must be classes, 0 to 0"),
        (Shapes(answered=False), EvaluationError, "run from -1 to -1 over 48 examples"),
        (Shapes(prompts=("dark", "")), SubjectError, "at least one prompt for each"),
    ],
    ids=["family", "unknown class", "no answer", "empty class"],
)
def test_classes_that_cannot_be_told_are_refused(
    clip, inputs: Shapes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    hookpoint = "visual.embedding"
    config = HarvestConfig(subject=clip.id, hookpoints=(hookpoint,), out=tmp_path / "store", dtype="float32")
    store = harvest(clip, Shapes(), config)
    dictionary = make_dictionary(TopKConfig(d_sae=12, k=2), store.hookpoints[hookpoint].d_in)
    dictionary.initialise(store.vectors(hookpoint).read(0, 48), torch.Generator().manual_seed(0))
    dictionary.provenance = {"subject": clip.id, "hookpoint": hookpoint}
    with pytest.raises(error, match=message):
        evaluate(dictionary, store, settings(tmp_path), clip, inputs)

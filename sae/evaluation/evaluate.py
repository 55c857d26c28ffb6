"""Score one dictionary on one store, and on the subject where there is one."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.activations.store import TRAINING_KINDS, ActivationStore, Provenance, Vectors
from sae.dictionaries.base import Dictionary
from sae.errors import ConfigError, EvaluationError
from sae.evaluation import reconstruction, splicing
from sae.evaluation.labels import LabelScorer
from sae.evaluation.metric import Accumulator, Score
from sae.evaluation.report import Report
from sae.inputs.base import Inputs, Labelled
from sae.log import progress
from sae.subjects.base import ImageTextSubject, Subject, TextSubject
from sae.tensors import Batch

logger = logging.getLogger(__name__)

RECONSTRUCTION_METRICS = (
    reconstruction.Fvu,
    reconstruction.ExplainedVariance,
    reconstruction.Cosine,
    reconstruction.NormRatio,
    reconstruction.L0,
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to score and on how much data."""

    dictionary: str
    """Folder of a dictionary, or builtin:SUBJECT/HOOKPOINT."""
    store: Path
    """Store of vectors that the dictionary was not trained on."""
    out: Path
    """Folder for report.json."""
    n_vectors: int | None = None
    """Score at most this many vectors of the store; null scores all."""
    n_labelled_examples: int = 2000
    """Score labels on at most this many examples."""
    n_spliced_examples: int = 256
    """Run the subject with reconstructions spliced in on at most this many examples."""
    chunk_vectors: int = 1024
    """Vectors per step, and per block of the bootstrap; decides speed and the grain of intervals, not values."""
    batch_examples: int = 16
    """Examples per forward pass of the subject."""
    seed: int = 0
    """Decides the halves of the labelled rows and the bootstrap."""
    device: str = "cpu"
    """Where dictionary and subject run."""

    def __post_init__(self) -> None:
        for name in ("n_vectors", "n_labelled_examples", "n_spliced_examples", "chunk_vectors", "batch_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, got {value}.")


def evaluate(
    dictionary: Dictionary,
    store: ActivationStore,
    config: EvaluateConfig,
    subject: Subject | None = None,
    inputs: Inputs | None = None,
) -> Report:
    """Score a dictionary.

    From the store alone: reconstruction and firing. With the store's inputs, where they carry exact labels: how well
    single latents and neurons separate each label. With the subject too: what splicing the reconstruction in does.
    BOS and special rows are left out throughout, as they are in training.

    Raises:
        EvaluationError: dictionary, store, subject and inputs do not belong together, or the store is too small.
    """
    hookpoint = _check_belonging(dictionary, store, subject, inputs)
    dictionary = dictionary.to(config.device).eval()
    vectors = store.vectors(hookpoint, TRAINING_KINDS)
    scores, details = _score_vectors(dictionary, vectors, inputs, config)
    if subject is not None and inputs is not None:
        mean = torch.as_tensor(vectors.statistics.mean, dtype=torch.float32)
        scores += _score_splicing(dictionary, subject, hookpoint, mean, inputs, config)
    about = {
        "dictionary": {"source": config.dictionary, "sha256": dictionary.hash, **_summary(dictionary)},
        "store": {"sha256": store.hash, "inputs": store.manifest.inputs.fingerprint},
        "subject": {"id": store.subject_id, "weights": store.manifest.provenance.get("weights_sha256")},
        "hookpoint": hookpoint,
        "seed": config.seed,
    }
    return Report(about=about, scores=scores, details=details)


def _summary(dictionary: Dictionary) -> dict[str, Any]:
    return {"kind": dictionary.config.kind, "d_in": dictionary.d_in, "d_sae": dictionary.d_sae}


def _check_belonging(
    dictionary: Dictionary, store: ActivationStore, subject: Subject | None, inputs: Inputs | None
) -> str:
    """Return the hookpoint that dictionary and store share."""
    hookpoint = dictionary.provenance.get("hookpoint")
    if hookpoint not in store.hookpoints:
        raise EvaluationError(
            f"the dictionary was trained on hookpoint {hookpoint!r}; the store has {', '.join(store.hookpoints)}."
        )
    trained_on = dictionary.provenance.get("subject")
    if trained_on is not None and trained_on != store.subject_id:
        raise EvaluationError(f"the dictionary was trained on {trained_on}, the store holds {store.subject_id}.")
    width = store.hookpoints[hookpoint].d_in
    if width != dictionary.d_in:
        raise EvaluationError(f"{hookpoint}: vectors are {width} wide, the dictionary {dictionary.d_in}.")
    if subject is not None and subject.id != store.subject_id:
        raise EvaluationError(f"the store holds activations of {store.subject_id}, not of {subject.id}.")
    if inputs is not None and inputs.fingerprint != store.manifest.inputs.fingerprint:
        raise EvaluationError(
            f"the inputs have fingerprint {inputs.fingerprint[:16]}, the store was harvested from "
            f"{store.manifest.inputs.fingerprint[:16]}."
        )
    return hookpoint


def _score_vectors(
    dictionary: Dictionary, vectors: Vectors, inputs: Inputs | None, config: EvaluateConfig
) -> tuple[list[Score], dict[str, Any]]:
    """Go through the vectors once: reconstruction, firing rates and, where there are labels, label scores."""
    accumulator = Accumulator(RECONSTRUCTION_METRICS)
    firing = reconstruction.FiringRates(dictionary.d_sae)
    scorer = None
    total = min(len(vectors), config.n_vectors or len(vectors))
    with progress("encode", total=total, unit="vectors") as bar:
        for start, rows in vectors.whole_examples(config.chunk_vectors, total):
            x = vectors.read(start, start + len(rows)).to(config.device)
            chunk = next(reconstruction.reconstructions(dictionary, [x]))
            accumulator.update(chunk)
            firing.update(chunk.codes)
            if isinstance(inputs, Labelled):
                scorer = _update_labels(scorer, chunk, rows, inputs, config)
            bar.advance(len(rows))
    scores = accumulator.scores(config.seed) + firing.scores()
    details: dict[str, Any] = {"density": firing.histogram()}
    if scorer is not None:
        assert isinstance(inputs, Labelled)
        label_scores, details["labels"] = scorer.result(inputs.label_names)
        scores += label_scores
    return scores, details


def _update_labels(
    scorer: LabelScorer | None,
    chunk: reconstruction.Reconstruction,
    rows: Provenance,
    inputs: Labelled,
    config: EvaluateConfig,
) -> LabelScorer:
    first, last = int(rows.example[0]), int(rows.example[-1])
    if scorer is not None and last >= config.n_labelled_examples:
        return scorer
    labels = inputs.labels(first, last + 1)
    per_row = all(values.ndim == 2 for values in labels.values())
    if scorer is None:
        scorer = LabelScorer(chunk.codes.d_sae, pooled=not per_row, seed=config.seed)
    if per_row:
        example, position = (rows.example - first).numpy(), rows.position.numpy()
        labels = {family: values[example, position] for family, values in labels.items()}
    else:
        distinct = (torch.unique_consecutive(rows.example) - first).numpy()
        labels = {family: values[distinct] for family, values in labels.items()}
    scorer.update(chunk.x, chunk.codes, rows.example, labels)
    return scorer


def _score_splicing(
    dictionary: Dictionary,
    subject: Subject,
    hookpoint: str,
    mean: Float[Tensor, " d_in"],
    inputs: Inputs,
    config: EvaluateConfig,
) -> list[Score]:
    n_examples = min(len(inputs), config.n_spliced_examples)
    with progress("splice", total=n_examples, unit="examples") as bar:

        def batches() -> Iterator[Batch]:
            for start in range(0, n_examples, config.batch_examples):
                stop = min(start + config.batch_examples, n_examples)
                yield inputs.batch(start, stop)
                bar.advance(stop - start)

        if isinstance(subject, TextSubject) and subject.predicts_next_token:
            accumulator = Accumulator(splicing.LANGUAGE_METRICS)
            for losses in splicing.next_token_losses(dictionary, subject, hookpoint, mean, batches()):
                accumulator.update(losses)
        elif isinstance(subject, ImageTextSubject) and isinstance(inputs, Labelled) and inputs.classes is not None:
            accumulator = Accumulator(splicing.CLIP_METRICS)
            for answers in splicing.zero_shot_answers(dictionary, subject, hookpoint, mean, batches(), inputs):
                accumulator.update(answers)
        else:
            missing = "classes in the inputs" if isinstance(subject, ImageTextSubject) else "logits of the next token"
            logger.warning("%s: no %s, so what splicing does is not scored.", subject.id, missing)
            return []
    # A score whose data are missing, such as that of captions where there are none, is left out.
    return [score for score in accumulator.scores(config.seed) if not math.isnan(score.value)]

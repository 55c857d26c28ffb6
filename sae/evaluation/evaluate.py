"""Score one dictionary on one store, and on the subject where there is one."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.activations.store import TRAINING_KINDS, ActivationStore
from sae.dictionaries.base import Dictionary
from sae.evaluation import splicing
from sae.evaluation.belonging import check_classes, check_weights, shared_hookpoint
from sae.evaluation.config import EvaluateConfig
from sae.evaluation.controls import shipped_controls
from sae.evaluation.gather import rebuild
from sae.evaluation.interpret import Interpreter
from sae.evaluation.latent_scores import FILE_NAME as LATENTS_FILE
from sae.evaluation.latent_scores import LatentScores
from sae.evaluation.metric import Accumulator, Score
from sae.evaluation.reconstruction import firing_scores
from sae.evaluation.report import DICTIONARY, Report, Results
from sae.evaluation.report import FILE_NAME as REPORT_FILE
from sae.inputs.base import Inputs, Labelled
from sae.log import progress
from sae.subjects.base import ImageTextSubject, Subject, TextSubject
from sae.tensors import Batch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A report, and beside it the scores of single latents."""

    report: Report
    latents: LatentScores

    def save(self, folder: Path) -> None:
        """Write `report.json` and `latents.safetensors`, each in one step."""
        self.report.save(folder / REPORT_FILE)
        self.latents.save(folder / LATENTS_FILE)


def evaluate(
    dictionary: Dictionary,
    store: ActivationStore,
    config: EvaluateConfig,
    subject: Subject | None = None,
    inputs: Inputs | None = None,
) -> Evaluation:
    """Score a dictionary beside its controls.

    From the store alone: reconstruction and firing. With the store's inputs, where they carry exact labels: how well
    single latents stand for one thing, beside every control. With the subject too: what splicing the reconstruction in
    does. BOS and special rows are left out throughout, as they are in training.

    Raises:
        EvaluationError: dictionary, store, subject and inputs do not belong together, the store is too small, labels
            are missing or rare, or a number is not finite.
    """
    hookpoint = shared_hookpoint(dictionary, store, subject, inputs)
    check_weights(dictionary, config.dictionary)
    dictionary = dictionary.to(config.device).eval()
    vectors = store.vectors(hookpoint, TRAINING_KINDS)
    total = min(len(vectors), config.n_vectors or len(vectors))
    rebuilt = rebuild(dictionary, vectors, total, config.n_sample_vectors, config.chunk_vectors, config.seed)
    row_scores, measured = list(rebuilt.scores), firing_scores(rebuilt.firing)
    details: dict[str, Any] = {"density": rebuilt.firing.histogram()}
    about = _about(dictionary, store, hookpoint, config)
    controls: dict[str, Results] = {}
    numbers: Mapping[str, Tensor] = {}
    if isinstance(inputs, Labelled) and inputs.label_names:
        interpreter = Interpreter(dictionary, vectors, inputs, subject, config)
        sample = interpreter.sample
        logger.info("%s: %d labels of %d items to score.", store, len(sample.table.names), sample.n_items)
        found = interpreter.run(rebuilt, _trained_controls(config))
        measured = measured + list(found.results.pop(DICTIONARY).measured)
        controls, numbers = found.results, found.numbers
        details |= found.details
        about["sample"] = found.amounts
    else:
        logger.warning("%s: no inputs with exact labels, so interpretability is not scored.", store)
    if subject is not None and inputs is not None:
        mean = torch.as_tensor(vectors.statistics.mean, dtype=torch.float32)
        row_scores += _score_splicing(dictionary, subject, hookpoint, mean, inputs, config)
    own = Results(description=repr(dictionary), measured=measured, row_scores=row_scores)
    report = Report.of(about, {DICTIONARY: own, **controls}, details, config.seed)
    hashes = {
        "dictionary": about["dictionary"]["sha256"],
        "store": about["store"]["sha256"],
        "inputs": about["store"]["inputs"],
        "subject": about["subject"]["id"],
        "hookpoint": hookpoint,
    }
    return Evaluation(report, LatentScores.of(measured, hashes, numbers))


def _about(dictionary: Dictionary, store: ActivationStore, hookpoint: str, config: EvaluateConfig) -> dict[str, Any]:
    summary = {"kind": dictionary.config.kind, "d_in": dictionary.d_in, "d_sae": dictionary.d_sae}
    return {
        "dictionary": {"source": config.dictionary, "sha256": dictionary.hash, **summary},
        "store": {"sha256": store.hash, "inputs": store.manifest.inputs.fingerprint},
        "subject": {"id": store.subject_id, "weights": store.manifest.provenance.get("weights_sha256")},
        "hookpoint": hookpoint,
        "seed": config.seed,
    }


def _trained_controls(config: EvaluateConfig) -> Mapping[str, str]:
    if config.trained_controls is not None:
        return config.trained_controls
    return shipped_controls(config.dictionary)


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
            check_classes(inputs, n_examples)
            accumulator = Accumulator(splicing.CLIP_METRICS)
            for answers in splicing.zero_shot_answers(dictionary, subject, hookpoint, mean, batches(), inputs):
                accumulator.update(answers)
        else:
            missing = "classes in the inputs" if isinstance(subject, ImageTextSubject) else "logits of the next token"
            logger.warning("%s: no %s, so what splicing does is not scored.", subject.id, missing)
            return []
    # A score whose data are missing, such as that of captions where there are none, is left out.
    return [score for score in accumulator.scores(config.seed) if not math.isnan(score.value)]

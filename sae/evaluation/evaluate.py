"""Score one dictionary on one store, and on the subject where there is one."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.evaluation import splicing
from sae.evaluation.belonging import check_classes, check_weights
from sae.evaluation.config import EvaluateConfig
from sae.evaluation.controls import shipped_controls
from sae.evaluation.gather import rebuild
from sae.evaluation.ground import Rows, check_belonging
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
    store: ActivationStore | Sequence[ActivationStore],
    config: EvaluateConfig,
    subject: Subject | None = None,
    inputs: Inputs | None = None,
) -> Evaluation:
    """Score a dictionary beside its controls; one over several subjects needs a store of each.

    From the store alone: reconstruction and firing. With the store's inputs, where they carry exact labels: how well
    single latents stand for one thing, beside every control. With the subject too: what splicing the reconstruction in
    does. BOS and special rows are left out throughout, as they are in training.

    A transcoder is scored on what it writes, and its latents on what it reads. A crosscoder is scored on its sites side
    by side, with an FVU for each in `details`.

    Raises:
        EvaluationError: dictionary, store, subject and inputs do not belong together, the store is too small, labels
            are missing or rare, or a number is not finite.
    """
    rows = Rows.of(dictionary, [store] if isinstance(store, ActivationStore) else store)
    check_belonging(rows, subject, inputs)
    check_weights(dictionary, config.dictionary)
    dictionary = dictionary.to(config.device).eval()
    vectors = rows.inputs
    total = min(len(vectors), config.n_vectors or len(vectors))
    rebuilt = rebuild(dictionary, rows, total, config.n_sample_vectors, config.chunk_vectors, config.seed)
    row_scores, measured = list(rebuilt.scores), firing_scores(rebuilt.firing)
    details: dict[str, Any] = {"density": rebuilt.firing.histogram()}
    if rebuilt.site_scores:
        details["sites"] = _site_table(rows, rebuilt.site_scores)
    about = _about(dictionary, rows, config)
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
        logger.warning("%s: no inputs with exact labels, so interpretability is not scored.", rows.stores[0])
    if subject is not None and inputs is not None:
        row_scores += _score_splicing(dictionary, subject, rows, inputs, config)
    own = Results(description=repr(dictionary), measured=measured, row_scores=row_scores)
    report = Report.of(about, {DICTIONARY: own, **controls}, details, config.seed)
    hashes = {
        "dictionary": about["dictionary"]["sha256"],
        "store": about["store"]["sha256"],
        "inputs": about["store"]["inputs"],
        "subject": about["subject"]["id"],
        "hookpoint": about["hookpoint"],
    }
    return Evaluation(report, LatentScores.of(measured, hashes, numbers))


def _about(dictionary: Dictionary, rows: Rows, config: EvaluateConfig) -> dict[str, Any]:
    summary = {"kind": dictionary.config.kind, "d_in": dictionary.d_in, "d_sae": dictionary.d_sae}
    summary |= {"d_out": dictionary.d_out} if dictionary.is_transcoder else {}
    own = {"source": config.dictionary, "sha256": dictionary.hash, **summary}
    return {"dictionary": own, **rows.about(), "seed": config.seed}


def _site_table(rows: Rows, scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Say how well each of several sites is rebuilt."""
    return [
        {"subject": part.store.subject_id, "hookpoint": part.hookpoint.name, "fvu": score.value}
        for part, score in zip(rows.targets.parts, scores, strict=True)
    ]


def _trained_controls(config: EvaluateConfig) -> Mapping[str, str]:
    if config.trained_controls is not None:
        return config.trained_controls
    return shipped_controls(config.dictionary)


def _score_splicing(
    dictionary: Dictionary, subject: Subject, rows: Rows, inputs: Inputs, config: EvaluateConfig
) -> list[Score]:
    parts = (*rows.inputs.parts, *rows.targets.parts)
    if len({part.store.subject_id for part in parts}) > 1 or len({part.hookpoint.grid for part in parts}) > 1:
        # An image rebuilt with the help of its caption would be told what it shows.
        logger.warning("%s: of several subjects or towers, so what splicing does is not scored.", rows.hookpoint)
        return []
    means = {part.hookpoint.name: part.statistics.mean.float() for part in rows.targets.parts}
    splice = splicing.Splice(dictionary, tuple(part.hookpoint.name for part in rows.inputs.parts), means)
    n_examples = min(len(inputs), config.n_spliced_examples)
    with progress("splice", total=n_examples, unit="examples") as bar:

        def batches() -> Iterator[Batch]:
            for start in range(0, n_examples, config.batch_examples):
                stop = min(start + config.batch_examples, n_examples)
                yield inputs.batch(start, stop)
                bar.advance(stop - start)

        if isinstance(subject, TextSubject) and subject.predicts_next_token:
            accumulator = Accumulator(splicing.LANGUAGE_METRICS)
            for losses in splicing.next_token_losses(splice, subject, batches()):
                accumulator.update(losses)
        elif isinstance(subject, ImageTextSubject) and isinstance(inputs, Labelled) and inputs.classes is not None:
            check_classes(inputs, n_examples)
            accumulator = Accumulator(splicing.CLIP_METRICS)
            for answers in splicing.zero_shot_answers(splice, subject, batches(), inputs):
                accumulator.update(answers)
        else:
            missing = "classes in the inputs" if isinstance(subject, ImageTextSubject) else "logits of the next token"
            logger.warning("%s: no %s, so what splicing does is not scored.", subject.id, missing)
            return []
    # A score whose data are missing, such as that of captions where there are none, is left out.
    return [score for score in accumulator.scores(config.seed) if not math.isnan(score.value)]

"""Do dictionary, store, subject and inputs belong together, and can they be scored at all?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.errors import EvaluationError, nearest
from sae.inputs.base import Inputs, Labelled
from sae.subjects.base import Subject


def shared_hookpoint(
    dictionary: Dictionary, store: ActivationStore, subject: Subject | None, inputs: Inputs | None
) -> str:
    """Return the hookpoint that dictionary and store share.

    Raises:
        EvaluationError: they are of other subjects, hookpoints or widths; subject or inputs are not the store's.
    """
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


def check_weights(dictionary: Dictionary, source: str) -> None:
    """Refuse a dictionary with weights that are no numbers; a threshold may be infinite, of a latent that never fires.

    Raises:
        EvaluationError: a tensor holds NaN, or one other than a threshold is infinite.
    """
    for name, tensor in dictionary.tensors().items():
        bad = tensor.isnan() if name == "threshold" else ~tensor.isfinite()
        if bad.any():
            raise EvaluationError(
                f"{source}: {name} holds {int(bad.sum())} NaN or infinite values of {bad.numel()}; the training "
                "diverged, or the file was damaged."
            )


def check_labels(labels: Mapping[str, np.ndarray], inputs: Labelled, n_examples: int, n_positions: int) -> None:
    """Refuse labels that are not what their inputs promise.

    Args:
        labels: by family, one per example or one per position.
        inputs: which gave them.
        n_examples: that they were asked for.
        n_positions: that rows lie at.

    Raises:
        EvaluationError: families are missing, do not fit the examples and positions, are some per example and some per
            position, or hold numbers without a name.
    """
    missing = [family for family in inputs.label_names if family not in labels]
    if missing or not labels:
        raise EvaluationError(
            f"labels: the inputs name {', '.join(inputs.label_names)}, but {', '.join(missing) or 'all'} are missing "
            f"from the labels they give ({', '.join(labels) or 'none'})."
        )
    shapes = {family: list(values.shape) for family, values in labels.items()}
    if any(shape[0] != n_examples or (shape[1:] and shape[1] < n_positions) for shape in shapes.values()):
        raise EvaluationError(
            f"labels: {n_examples} examples of {n_positions} positions need as many labels; their shapes: {shapes}."
        )
    if len({len(shape) for shape in shapes.values()}) != 1:
        raise EvaluationError(f"labels: families must all be per example or all per position; their shapes: {shapes}.")
    for family, names in inputs.label_names.items():
        values = labels[family]
        if values.dtype.kind in "iu" and values.size and not -1 <= values.min() <= values.max() < len(names):
            raise EvaluationError(
                f"labels: {family} has values from {values.min()} to {values.max()}; -1 to {len(names) - 1} are named."
            )


def check_classes(inputs: Labelled, n_examples: int) -> None:
    """Refuse classes of a zero-shot classifier that no label answers to.

    Raises:
        EvaluationError: the family of the answers is missing, or no example has one that is a class.
    """
    assert inputs.classes is not None
    family, n_classes = inputs.classes.family, len(inputs.classes.prompts)
    labels: Mapping[str, Any] = inputs.labels(0, n_examples)
    if family not in labels:
        raise EvaluationError(f"classes: no label family {family!r} holds the answers.{nearest(family, labels)}")
    answers = labels[family]
    if not (answers >= 0).any() or answers.max() >= n_classes:
        raise EvaluationError(
            f"classes: the answers in {family!r} run from {answers.min()} to {answers.max()} over {n_examples} "
            f"examples; some must be classes, 0 to {n_classes - 1} (-1 stands for none)."
        )

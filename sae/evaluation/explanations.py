"""Explanation scores without a judge: how well a few token patterns, found on one half, predict a unit on the other.

Every score is one value per unit, for a fixed random choice among all units; the others are nan. Units that never fire
score what an answer without information scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.patterns import Explanation, Pattern, Patterns, explain
from sae.evaluation.sample import SPLIT_SEED, Units

FIRING_QUANTILE = 0.99
"""Quantile of a unit's activations on the match half from which on it counts as firing."""
BLOCK = 16
"""Units whose activations are held dense at a time."""
SHOWN = 20
"""Explanations in the details of a report."""


@dataclass(frozen=True)
class Trial:
    """What is known of a unit's explanation on the score half; see the metrics for what the numbers mean."""

    correlation: float = 0.0
    current_correlation: float = 0.0
    token_correlation: float = 0.0
    detection: float = 0.5
    detection_hard: float = 0.5
    fuzzing: float = 0.5


@dataclass(frozen=True)
class Trials:
    """The trials of the chosen units, out of `n_units`."""

    n_units: int
    chosen: Int[Tensor, " chosen"]
    trials: list[Trial]

    def spread(self, value: Callable[[Trial], float]) -> Float[Tensor, " units"]:
        """Return a value of every chosen unit, nan for the others."""
        out = torch.full((self.n_units,), torch.nan, dtype=torch.float64)
        out[self.chosen] = torch.tensor([value(trial) for trial in self.trials], dtype=torch.float64)
        return out


@item_metric("explanation_correlation", better="higher", unit="latents", bounds=(-1.0, 1.0), chance=0.0, paired=False)
def explanation_correlation(trials: Trials) -> Float[Tensor, " units"]:
    """Pearson correlation of a unit's activation with what its explanation predicts, over rows of the score half.

    An explanation is an intercept and at most five weighted patterns: the token at the row or 1 to 3 places before it,
    or previous and current token together. It is found on the match half by greedy forward selection on squared error,
    with weights refitted at every step, among the patterns on at least 2 rows there, as long as a pattern gains more
    than the best of as many useless ones would by luck (the risk inflation criterion). The prediction is the sum of the
    weights of the patterns that match.

    A constant prediction or a constant activation (a dead unit) scores 0. Units that were not drawn for explanation
    are left out. The score is that of simulation in Bills et al. 2023 (Language models can explain neurons in language
    models), with the patterns in the place of both explainer and simulator; and explanations do not see the rows they
    are scored on.
    """
    return trials.spread(lambda trial: trial.correlation)


@item_metric("token_correlation", better="neither", unit="latents", bounds=(-1.0, 1.0), chance=0.0, paired=False)
def token_correlation(trials: Trials) -> Float[Tensor, " units"]:
    """Pearson correlation of a unit's activation with its mean activation for the current token, on the score half.

    A baseline, not a score: the look-up table has one entry for every token of the match half, without bound; tokens
    unseen there get the unit's mean. Units of an untrained subject do well on it, for their vectors still name the
    token. Constant predictions and dead units score 0.
    """
    return trials.spread(lambda trial: trial.token_correlation)


@item_metric("explanation_gain", better="higher", unit="latents", bounds=(-2.0, 2.0), chance=0.0, paired=False)
def explanation_gain(trials: Trials) -> Float[Tensor, " units"]:
    """`explanation_correlation` minus `token_correlation`: what five patterns say beyond an unbounded token table.

    About 0 for a unit that stands for a few tokens, negative for one that answers many tokens differently, positive
    for one that needs context. Dead units score 0.
    """
    return trials.spread(lambda trial: trial.correlation - trial.token_correlation)


@item_metric("context_gain", better="higher", unit="latents", bounds=(-2.0, 2.0), chance=0.0, paired=False)
def context_gain(trials: Trials) -> Float[Tensor, " units"]:
    """`explanation_correlation` minus the same for explanations by current tokens alone, at most five likewise.

    What context adds at equal length: 0 for a unit that stands for single tokens, positive for one that needs the
    tokens before. It may fall below 0 where context was fitted to chance. Dead units score 0.
    """
    return trials.spread(lambda trial: trial.correlation - trial.current_correlation)


@item_metric("detection_auc", better="higher", unit="latents", bounds=(0.0, 1.0), chance=0.5, paired=False)
def detection_auc(trials: Trials) -> Float[Tensor, " units"]:
    """Area under the ROC curve of an explanation as a detector of the passages in which its unit fires.

    A passage is 16 consecutive positions of an example of the score half; its score is the largest prediction in it
    (see `explanation_correlation`). A unit fires on a row where its activation is not zero and reaches the 99 %
    quantile of its activations on the match half: wherever a sparse latent is active at all, and on the strongest
    hundredth of the rows for a unit that always answers, so that both are asked for equally rare events.

    All passages count, those where the unit fires weakly too, and an area weighs both classes equally, so nothing is
    drawn. It is 0.5 for a unit that fires in no passage or in all of them, and for a constant prediction. After
    detection in Paulo et al. 2024 (Automatically interpreting millions of features, arXiv 2410.13928), without a judge
    and with two halves that share no example.
    """
    return trials.spread(lambda trial: trial.detection)


@item_metric("detection_auc_hard", better="higher", unit="latents", bounds=(0.0, 1.0), chance=0.5, paired=False)
def detection_auc_hard(trials: Trials) -> Float[Tensor, " units"]:
    """`detection_auc` among passages that contain a token of the explanation: its negatives are the hard ones.

    The tokens are those of the patterns of positive weight: the current one of a pair, the one named otherwise. To
    know the token is no longer enough; what tells the passages apart is context and weights. Firing passages must
    contain a token too: against all of them an explanation that says nothing would fall below 0.5, for its negatives
    were chosen for their large predictions.

    A unit without such negatives, say one that fires on every occurrence of its token, scores its `detection_auc`; a
    unit that never fires, or never in these passages, scores 0.5.
    """
    return trials.spread(lambda trial: trial.detection_hard)


@item_metric("fuzzing_auc", better="higher", unit="latents", bounds=(0.0, 1.0), chance=0.5, paired=False)
def fuzzing_auc(trials: Trials) -> Float[Tensor, " units"]:
    """Area under the ROC curve of the prediction telling rows that fire from rows that do not, within passages that do.

    Rows of all passages of the score half in which the unit fires are pooled; passages and firing are those of
    `detection_auc`. 0.5 for a unit that never fires, or that fires on all of these rows, and for a constant
    prediction. After fuzzing in Paulo et al. 2024 (arXiv 2410.13928), without a judge.
    """
    return trials.spread(lambda trial: trial.fuzzing)


def explanation_scores(units: Units, patterns: Patterns, n_units: int = 256, seed: int = 0) -> list[Measured]:
    """Score the explanations of a random choice of units, dead ones included.

    Args:
        units: what to explain.
        patterns: of the units' sample; with `patterns.shuffled(seed)` everything must sit at chance.
        n_units: how many units to draw, all if there are fewer.
        seed: of the draw.
    """
    chosen = torch.randperm(units.n_units, generator=torch.Generator().manual_seed(SPLIT_SEED + seed))[:n_units]
    chosen = chosen.sort().values
    found = [
        Trial() if not column.any() else try_out(column, patterns)
        for part in chosen.split(BLOCK)
        for column in _columns(units, part)
    ]
    trials = Trials(units.n_units, chosen, found)
    metrics = (
        explanation_correlation,
        token_correlation,
        explanation_gain,
        context_gain,
        detection_auc,
        detection_auc_hard,
        fuzzing_auc,
    )
    return [metric(trials) for metric in metrics]


def explanations(
    units: Units, patterns: Patterns, which: Int[Tensor, " chosen"]
) -> dict[int, list[tuple[Pattern, float]]]:
    """Return the weighted patterns of some units, in the order in which they were found."""
    found = {}
    for part in which.split(BLOCK):
        for unit, column in zip(part.tolist(), _columns(units, part), strict=True):
            explanation = explain(column, patterns)
            named = [patterns[number] for number in explanation.patterns]
            found[unit] = list(zip(named, explanation.weights, strict=True))
    return found


def explanation_details(
    units: Units, patterns: Patterns, correlation: Measured, decode: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Return the best explained units with their explanations as plain data, best first.

    Args:
        units: the units scored.
        patterns: the ones they were scored with.
        correlation: their `explanation_correlation`.
        decode: the text of a token.
    """
    best = correlation.values.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
    best = best[: min(SHOWN, int((~correlation.values.isnan()).sum()))]
    return [
        {
            "latent": unit,
            "explanation_correlation": float(correlation.values[unit]),
            "patterns": [{"text": pattern.text(decode), "weight": weight} for pattern, weight in found],
        }
        for unit, found in explanations(units, patterns, best).items()
    ]


def try_out(activations: Float[np.ndarray, " rows"], patterns: Patterns) -> Trial:
    """Explain a unit on the match half and score the explanation on the other."""
    score = ~patterns.match
    explanation = explain(activations, patterns)
    current = explain(activations, patterns, current_only=True)
    truth, prediction = activations[score].astype(np.float64), explanation.predict(patterns)[score]
    fires = firing(activations, patterns.match)[score]
    starts = patterns.window_starts
    passage = np.maximum.reduceat(prediction, starts)
    firing_passage = np.logical_or.reduceat(fires, starts)
    tempting = passages_with_tokens(explanation, patterns)
    hard = passage[tempting & ~firing_passage]
    detection = _auc(passage[firing_passage], passage[~firing_passage])
    within = np.repeat(firing_passage, np.diff(np.r_[starts, len(fires)]))
    return Trial(
        correlation=_pearson(truth, prediction),
        current_correlation=_pearson(truth, current.predict(patterns)[score]),
        token_correlation=_pearson(truth, _token_means(activations, patterns)[score]),
        detection=detection,
        detection_hard=_auc(passage[tempting & firing_passage], hard) if len(hard) else detection,
        fuzzing=_auc(prediction[fires], prediction[within & ~fires]),
    )


def firing(activations: Float[np.ndarray, " rows"], match: Bool[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Mark rows that are not silent and reach a high quantile of the match half."""
    return (activations != 0) & (activations >= np.quantile(activations[match], FIRING_QUANTILE))


def passages_with_tokens(explanation: Explanation, patterns: Patterns) -> Bool[np.ndarray, " passages"]:
    """Mark passages of the score half with a token that a pattern of positive weight names, pairs their current one."""
    weighted = zip(explanation.patterns, explanation.weights, strict=True)
    named = np.zeros(patterns.n_tokens, dtype=bool)
    named[[patterns[number].token for number, weight in weighted if weight > 0]] = True
    return np.logical_or.reduceat(named[patterns.context[~patterns.match, 0]], patterns.window_starts)


def _columns(units: Units, which: Int[Tensor, " chosen"]) -> list[Float[np.ndarray, " rows"]]:
    return list(np.ascontiguousarray(units.row_responses.columns(which).numpy().T))


def _token_means(activations: Float[np.ndarray, " rows"], patterns: Patterns) -> Float[np.ndarray, " rows"]:
    """Return for every row the mean activation of its token on the match half, the overall mean for an unseen token."""
    token, match = patterns.context[:, 0], patterns.match
    seen = np.bincount(token[match], minlength=patterns.n_tokens)
    sums = np.bincount(token[match], activations[match], minlength=patterns.n_tokens)
    return np.where(seen > 0, sums / np.maximum(seen, 1), activations[match].mean(dtype=np.float64))[token]


def _pearson(x: Float[np.ndarray, " rows"], y: Float[np.ndarray, " rows"]) -> float:
    """Correlate two columns; 0 where one is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    # Not x @ y: waking the threads of BLAS takes longer than the sum.
    xy, xx, yy = (np.einsum("i,i", *pair) for pair in ((x, y), (x, x), (y, y)))
    return float(xy / np.sqrt(xx * yy))


def _auc(positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"]) -> float:
    """Area under the ROC curve, ties counting half; 0.5 where a class is empty."""
    if not len(positive) or not len(negative):
        return 0.5
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive) + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / 2 / len(negative))

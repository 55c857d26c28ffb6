import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation import patterns as module
from sae.evaluation.explanations import (
    Trial,
    explanation_details,
    explanation_scores,
    explanations,
    firing,
    passages_with_tokens,
    try_out,
)
from sae.evaluation.patterns import Pattern, Patterns, explain
from sae.evaluation.responses import SparseResponses
from sae.evaluation.sample import Sample, Units, halves

LENGTH, EXAMPLES, VOCABULARY = 40, 60, 12


def sample(x: torch.Tensor | None = None, *, token: bool = True, seed: int = 0) -> Sample:
    """Examples of random tokens; token 0 is frequent."""
    generator = torch.Generator().manual_seed(seed)
    n = LENGTH * EXAMPLES
    tokens = (torch.randint(VOCABULARY + 6, (n,), generator=generator) - 6).clamp(min=0)
    example = torch.arange(EXAMPLES).repeat_interleave(LENGTH)
    rows = Provenance(
        example,
        torch.arange(1, LENGTH + 1).repeat(EXAMPLES),
        torch.zeros(n, dtype=torch.uint8),
        tokens if token else None,
    )
    x = torch.zeros(n, 2) if x is None else x
    match = halves(example, seed)
    return Sample(x=x, rows=rows, pooled=False, labels={}, factors={}, label_names={}, match=match)


def neurons(x: torch.Tensor) -> Units:
    return Units("neurons", Identity(IdentityConfig(d_sae=x.shape[1]), x.shape[1]), sample(x))


def tokens_of(data: Sample) -> torch.Tensor:
    assert data.rows.token is not None
    return data.rows.token


def matches(pattern: Pattern, rows: Provenance) -> np.ndarray:
    """The definition, row by row."""
    assert rows.token is not None
    token, example = rows.token.tolist(), rows.example.tolist()

    def at(row: int, back: int) -> int | None:
        return token[row - back] if row >= back and example[row - back] == example[row] else None

    return np.array(
        [
            at(i, pattern.back) == pattern.token and (pattern.previous is None or at(i, 1) == pattern.previous)
            for i in range(len(token))
        ]
    )


def naive_explanation(activations: np.ndarray, patterns: Patterns, rows: Provenance) -> tuple[list[int], np.ndarray]:
    """Refit every candidate by least squares at every step; return the choice and the predictions for all rows."""
    everything = np.stack([matches(patterns[i], rows) for i in range(len(patterns))], 1).astype(float)
    truth, chosen = activations[patterns.match].astype(float), []

    def fit(which: list[int]) -> tuple[float, np.ndarray]:
        design = np.c_[np.ones(len(everything)), everything[:, which]]
        weights = np.linalg.lstsq(design[patterns.match], truth, rcond=None)[0]
        return float(((truth - (design @ weights)[patterns.match]) ** 2).sum()), design @ weights

    variation = error = fit([])[0]
    while len(chosen) < 5:
        errors = np.array([fit([*chosen, i])[0] for i in range(len(patterns))])
        luck = 2 * np.log(len(patterns)) * error / len(truth)
        if error - errors.min() <= max(luck, 1e-9 * variation):
            break
        # Patterns on the same rows tie up to rounding; the first is taken.
        chosen.append(int(np.flatnonzero(errors < errors.min() + 1e-9 * variation)[0]))
        error = errors.min()
    return chosen, fit(chosen)[1]


def noisy(rows: Provenance, seed: int = 3) -> np.ndarray:
    """Activations with structure of every kind and some noise."""
    generator = np.random.default_rng(seed)
    out = 0.3 * generator.standard_normal(len(rows))
    for weight, pattern in [(2, Pattern(3)), (3, Pattern(4, previous=5)), (-1, Pattern(6, 2)), (1.5, Pattern(7, 3))]:
        out += weight * matches(pattern, rows)
    return np.maximum(out, 0).astype(np.float32)


def test_patterns_match_by_definition() -> None:
    data = sample()
    patterns = Patterns(data)
    seen = {patterns[i] for i in range(len(patterns))}
    assert len(seen) == len(patterns)
    assert {p.back for p in seen} == {0, 1, 2, 3}
    assert all(patterns[i].back == 0 and patterns[i].previous is None for i in range(patterns.n_current))
    for i in range(0, len(patterns), 7):
        expected = matches(patterns[i], data.rows)
        assert patterns.rows(i).tolist() == np.flatnonzero(expected).tolist()
        assert patterns.counts[i] == (expected & patterns.match).sum() >= module.MIN_ROWS


def test_patterns_count_positions_where_rows_are_missing() -> None:
    data = sample()
    kept = torch.arange(len(data.x)) % 3 != 1
    rows = Provenance(data.rows.example[kept], data.rows.position[kept], data.rows.kind[kept], tokens_of(data)[kept])
    thinned = Sample(
        x=data.x[kept], rows=rows, pooled=False, labels={}, factors={}, label_names={}, match=data.match[kept]
    )
    context, token = Patterns(thinned).context, tokens_of(data).numpy()
    numbers = np.flatnonzero(kept.numpy())
    for row in range(1, 60):
        for back in (1, 2, 3):
            source = numbers[row] - back
            known = source in numbers and source >= 0 and data.rows.example[source] == rows.example[row]
            assert context[row, back] == (token[source] if known else -1)


@pytest.mark.parametrize("current_only", [False, True])
def test_greedy_selection_and_correlation_agree_with_the_naive_twin(current_only: bool) -> None:
    data = sample()
    patterns, activations = Patterns(data), noisy(data.rows)
    found = explain(activations, patterns, current_only=current_only)
    if current_only:
        assert max(found.patterns) < patterns.n_current
        design = np.c_[np.ones(len(data.x)), *[matches(patterns[i], data.rows) for i in found.patterns]]
        weights = np.linalg.lstsq(design[patterns.match], activations[patterns.match], rcond=None)[0]
        np.testing.assert_allclose(found.predict(patterns), design @ weights, atol=1e-6)
        return
    chosen, prediction = naive_explanation(activations, patterns, data.rows)
    assert len(chosen) >= 4
    assert list(found.patterns) == chosen
    np.testing.assert_allclose(found.predict(patterns), prediction, atol=1e-6)
    score = ~patterns.match
    trial = try_out(activations, patterns)
    assert trial.correlation == pytest.approx(np.corrcoef(prediction[score], activations[score])[0, 1], abs=1e-6)


def test_token_baseline_agrees_with_a_table() -> None:
    data = sample()
    patterns, activations = Patterns(data), noisy(data.rows)
    token, match = tokens_of(data).numpy(), patterns.match
    table = {t: activations[match & (token == t)].mean(dtype=np.float64) for t in set(token[match].tolist())}
    prediction = np.array([table[t] for t in token[~match].tolist()])
    expected = np.corrcoef(prediction, activations[~match])[0, 1]
    assert try_out(activations, patterns).token_correlation == pytest.approx(expected, abs=1e-6)


def test_passage_scores_agree_with_pairwise_counting() -> None:
    data = sample()
    patterns, activations = Patterns(data), noisy(data.rows)
    found = explain(activations, patterns)
    prediction, fires = found.predict(patterns), firing(activations, patterns.match)
    passages: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(~patterns.match).tolist():
        key = (int(data.rows.example[row]), int(data.rows.position[row]) // module.WINDOW)
        passages.setdefault(key, []).append(row)
    named = {patterns[i].token for i, w in zip(found.patterns, found.weights, strict=True) if w > 0}
    tempting = [any(int(tokens_of(data)[row]) in named for row in rows) for rows in passages.values()]
    assert passages_with_tokens(found, patterns).tolist() == tempting
    judged = [(max(prediction[r]), bool(fires[r].any()), t) for r, t in zip(passages.values(), tempting, strict=True)]

    def auc(yes: list[float], no: list[float]) -> float:
        return float(np.mean([(a > b) + (a == b) / 2 for a in yes for b in no]))

    trial = try_out(activations, patterns)
    assert trial.detection == pytest.approx(auc([s for s, f, _ in judged if f], [s for s, f, _ in judged if not f]))
    hard = auc([s for s, f, t in judged if f and t], [s for s, f, t in judged if not f and t])
    assert trial.detection_hard == pytest.approx(hard)
    within = [row for rows in passages.values() if fires[rows].any() for row in rows]
    expected = auc([prediction[r] for r in within if fires[r]], [prediction[r] for r in within if not fires[r]])
    assert trial.fuzzing == pytest.approx(expected)


def test_a_unit_that_is_a_token_is_explained_by_it_and_gains_nothing() -> None:
    data = sample()
    trial = try_out(1.7 * matches(Pattern(3), data.rows).astype(np.float32), Patterns(data))
    assert trial.correlation == pytest.approx(1)
    assert trial.correlation - trial.token_correlation == pytest.approx(0)
    assert trial.correlation - trial.current_correlation == pytest.approx(0)
    assert (trial.detection, trial.detection_hard, trial.fuzzing) == (1, 1, 1)


def test_a_unit_that_needs_context_gains() -> None:
    data = sample()
    patterns = Patterns(data)
    activations = matches(Pattern(4, previous=5), data.rows).astype(np.float32)
    found = explain(activations, patterns)
    assert [patterns[i] for i in found.patterns] == [Pattern(4, previous=5)]
    trial = try_out(activations, patterns)
    assert trial.correlation == pytest.approx(1)
    assert trial.token_correlation < 0.6
    assert trial.current_correlation < 0.6
    assert trial.detection_hard == 1


def test_knowing_only_the_token_does_not_pass_the_hard_negatives() -> None:
    data = sample()
    coin = np.random.default_rng(0).random(len(data.x)) < 0.5
    trial = try_out((matches(Pattern(3), data.rows) & coin).astype(np.float32), Patterns(data))
    assert trial.detection > 0.75
    assert trial.detection_hard == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("sparse", [False, True])
def test_random_and_shuffled_activations_are_at_chance(sparse: bool) -> None:
    data = sample()
    patterns = Patterns(data)
    generator = np.random.default_rng(1)
    columns = [generator.standard_normal(len(data.x)) for _ in range(24)]
    if sparse:
        columns = [np.maximum(column - 2, 0) for column in columns]
    shuffled = [noisy(data.rows)] * 12
    for rows, dealt in [(columns, patterns), *[([one], patterns.shuffled(i)) for i, one in enumerate(shuffled)]]:
        trials = [try_out(column.astype(np.float32), dealt) for column in rows]
        wide = 1 if len(rows) > 1 else 3
        assert np.mean([t.correlation for t in trials]) == pytest.approx(0, abs=0.03 * wide)
        assert np.mean([t.detection for t in trials]) == pytest.approx(0.5, abs=0.04 * wide)
        assert np.mean([t.detection_hard for t in trials]) == pytest.approx(0.5, abs=0.06 * wide)
        assert np.mean([t.fuzzing for t in trials]) == pytest.approx(0.5, abs=0.03 * wide)


def test_rows_of_the_score_half_do_not_influence_explanations() -> None:
    data = sample()
    activations = noisy(data.rows)
    patterns = Patterns(data)
    before = explain(activations, patterns)
    generator = torch.Generator().manual_seed(9)
    token = tokens_of(data).clone()
    score = ~data.match
    token[score] = torch.randint(VOCABULARY, (int(score.sum()),), generator=generator)
    changed = sample()
    tokens_of(changed)[:] = token
    other = activations.copy()
    other[score.numpy()] = generator.initial_seed()
    after_patterns = Patterns(changed)
    after = explain(other, after_patterns)
    assert [patterns[i] for i in before.patterns] == [after_patterns[i] for i in after.patterns]
    assert before.weights == pytest.approx(after.weights)


def test_dead_units_count_as_chance_and_units_not_drawn_as_missing() -> None:
    data = sample()
    x = torch.from_numpy(np.stack([noisy(data.rows, i) for i in range(6)], 1))
    x[:, 2] = 0
    units, patterns = neurons(x), Patterns(data)
    every = explanation_scores(units, patterns)
    expected = [Trial().correlation, 0, 0, 0, 0.5, 0.5, 0.5]
    assert [float(measured.values[2]) for measured in every] == expected
    assert all(len(measured.values) == 6 and not measured.values.isnan().any() for measured in every)
    some = explanation_scores(units, patterns, n_units=3, seed=1)
    drawn = ~some[0].values.isnan()
    assert drawn.sum() == 3
    for one, all_units in zip(some, every, strict=True):
        assert torch.equal(one.values[drawn], all_units.values[drawn])
        assert one.values[~drawn].isnan().all()


def test_sparse_and_dense_responses_score_alike() -> None:
    data = sample()
    x = torch.from_numpy(np.stack([noisy(data.rows, i) for i in range(3)], 1))
    dense, sparse, patterns = neurons(x), neurons(x), Patterns(data)
    items, numbers = x.nonzero(as_tuple=True)
    sparse.responses = SparseResponses.of_entries(items, numbers, x[items, numbers], *x.shape)
    for one, other in zip(explanation_scores(dense, patterns), explanation_scores(sparse, patterns), strict=True):
        torch.testing.assert_close(one.values, other.values)


def test_details_show_the_best_units_as_text() -> None:
    data = sample()
    x = torch.from_numpy(np.stack([matches(Pattern(4, previous=5), data.rows), noisy(data.rows)], 1)).float()
    units, patterns = neurons(x), Patterns(data)
    scores = explanation_scores(units, patterns)
    best, second = explanation_details(units, patterns, scores[0], lambda token: f" t{token}")
    assert (best["latent"], second["latent"]) == (0, 1)
    assert best["patterns"] == [{"text": "␣t5 «␣t4»", "weight": pytest.approx(1)}]
    assert list(explanations(units, patterns, torch.tensor([1]))) == [1]
    assert Pattern(3, 2).text(lambda _: "\n") == "\\n · «·»"


def test_rows_without_tokens_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="carry no token"):
        Patterns(sample(token=False))

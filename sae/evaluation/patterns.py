"""Explanations of units in the words of the data: a few weighted tokens or tokens in context, found with no judge."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sae.activations.store import Provenance
from sae.errors import EvaluationError
from sae.evaluation.sample import SPLIT_SEED, Sample

MAX_PATTERNS = 5
"""Patterns in an explanation at most."""
MIN_ROWS = 2
"""Rows of the match half on which a pattern must occur to be a candidate."""
REACH = 3
"""Tokens before the row that a pattern may name."""
WINDOW = 16
"""Consecutive positions of an example that are judged together."""


@dataclass(frozen=True)
class Pattern:
    """Matches rows whose token `back` places before is `token`, and whose previous one is `previous` if that is set."""

    token: int
    back: int = 0
    previous: int | None = None

    def text(self, decode: Callable[[int], str]) -> str:
        """Write the pattern as text with the row's own token in angle quotes; a dot stands for any token."""
        token = visible(decode(self.token))
        if self.previous is not None:
            return f"{visible(decode(self.previous))} «{token}»"
        return f"«{token}»" if self.back == 0 else " ".join([token, *["·"] * (self.back - 1), "«·»"])


@dataclass(frozen=True)
class Explanation:
    """Predicts activations as the intercept plus the weights of the patterns, given by number, that match the row."""

    intercept: float
    patterns: tuple[int, ...]
    weights: tuple[float, ...]

    def predict(self, patterns: "Patterns") -> Float[np.ndarray, " rows"]:
        """Return the predictions for all rows."""
        out = np.full(len(patterns.ids), self.intercept)
        for pattern, weight in zip(self.patterns, self.weights, strict=True):
            out[patterns.rows(pattern)] += weight
        return out


class Patterns:
    """The candidate patterns of a sample and the rows that each one matches; built once, shared by all controls.

    A pattern is the token at the row or 1 to 3 places before it, or the pair of previous and current token. Candidates
    are those found on at least `MIN_ROWS` rows of the match half. Patterns do not reach beyond an example, nor to
    rows that the store lacks.

    Attributes:
        context: token of each row and of the rows before it, -1 where unknown.
        match: rows that explanations are found on.
        n_tokens: one more than the largest token.
        ids: number of the pattern of each kind that matches a row, `len(self)` where it is no candidate.
        window_starts: where a new window of `WINDOW` positions begins, counted over the rows of the score half.

    Raises:
        EvaluationError: rows without tokens, or a half without rows.
    """

    def __init__(self, sample: Sample) -> None:
        if sample.rows.token is None:
            raise EvaluationError(
                "explanations: the rows carry no token; only samples of a token grid can be explained."
            )
        match = sample.match[sample.item].numpy()
        if match.all() or not match.any():
            raise EvaluationError(f"explanations: {len(match)} rows leave one half of the sample empty; use more rows.")
        window = np.stack([sample.rows.example.numpy(), sample.rows.position.numpy() // WINDOW], 1)[~match]
        self.window_starts = np.flatnonzero(np.r_[True, (np.diff(window, axis=0) != 0).any(1)])
        self._index(context_of(sample.rows), match)

    def _index(self, context: Int[np.ndarray, "rows reach"], match: Bool[np.ndarray, " rows"]) -> None:
        self.context, self.match = context, match
        n_tokens = int(context.max()) + 1
        pair = np.where(context[:, 1] >= 0, context[:, 1] * n_tokens + context[:, 0], -1)
        keys = [*context.T, pair]
        candidates = [_frequent(key[match]) for key in keys]
        self._firsts = np.cumsum([0, *map(len, candidates)])
        self._keys, self.n_tokens = np.concatenate(candidates), n_tokens
        self.ids = np.full((len(match), len(keys)), len(self), dtype=np.int32)
        for kind, (key, known) in enumerate(zip(keys, candidates, strict=True)):
            place = np.searchsorted(known, key)
            found = np.isin(key, known)
            self.ids[found, kind] = self._firsts[kind] + place[found]

    def __len__(self) -> int:
        """Return the number of candidates; those of the current token come first."""
        return int(self._firsts[-1])

    def __getitem__(self, pattern: int) -> Pattern:
        kind = int(np.searchsorted(self._firsts, pattern, side="right")) - 1
        key = int(self._keys[pattern])
        if kind <= REACH:
            return Pattern(key, kind)
        return Pattern(key % self.n_tokens, previous=key // self.n_tokens)

    @property
    def n_current(self) -> int:
        """Candidates that are a current token alone."""
        return int(self._firsts[1])

    @cached_property
    def counts(self) -> Float[np.ndarray, " patterns"]:
        """Rows of the match half that each pattern matches."""
        return self.sums(np.ones(len(self.ids)))

    @cached_property
    def _postings(self) -> tuple[Int[np.ndarray, " entries"], Int[np.ndarray, " patterns_plus_1"]]:
        flat = self.ids.ravel()
        order = np.argsort(flat, kind="stable")
        return order // self.ids.shape[1], np.searchsorted(flat[order], np.arange(len(self) + 1))

    def rows(self, pattern: int) -> Int[np.ndarray, " matched"]:
        """Return the rows that a pattern matches, of both halves, in order."""
        rows, offsets = self._postings
        return rows[offsets[pattern] : offsets[pattern + 1]]

    def sums(self, values: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " patterns"]:
        """Sum values over the rows of the match half that each pattern matches; zeros cost nothing."""
        rows = np.flatnonzero((values != 0) & self.match)
        weights = np.repeat(values[rows].astype(np.float64), self.ids.shape[1])
        # Where nothing is summed, bincount answers in integers.
        return np.bincount(self.ids[rows].ravel(), weights, minlength=len(self) + 1)[: len(self)].astype(np.float64)

    def shared(self, pattern: int) -> Float[np.ndarray, " patterns"]:
        """Count the rows of the match half that a pattern shares with each pattern."""
        rows = self.rows(pattern)
        ids = self.ids[rows[self.match[rows]]]
        return np.bincount(ids.ravel(), minlength=len(self) + 1)[: len(self)].astype(np.float64)

    def shuffled(self, seed: int) -> "Patterns":
        """Return the patterns with rows dealt out at random within each half: what is still explained is chance."""
        generator = np.random.default_rng([SPLIT_SEED, seed])
        order = np.arange(len(self.match))
        for half in (self.match, ~self.match):
            order[half] = generator.permutation(order[half])
        dealt = object.__new__(Patterns)
        dealt.window_starts = self.window_starts
        dealt._index(self.context[order], self.match)
        return dealt


def explain(activations: Float[np.ndarray, " rows"], patterns: Patterns, *, current_only: bool = False) -> Explanation:
    """Find the patterns that explain a unit's activations on the match half, by greedy forward selection.

    Each step adds the pattern that leaves the least squared error after refitting the intercept and all weights
    (orthogonal least squares, Chen, Billings and Luo 1989), the first of equals. It stops at `MAX_PATTERNS`, or when
    the best gain is what the best of that many useless candidates would reach by luck, 2 ln(candidates) times the
    residual variance (the risk inflation criterion, Foster and George 1994). A fixed share of the variation instead
    would cut the explanations of units that answer many tokens, and so favour sparse latents.

    Args:
        activations: on all rows; those of the score half are not looked at.
        patterns: the candidates.
        current_only: choose among single current tokens only.
    """
    n = patterns.n_current if current_only else len(patterns)
    n_rows = int(patterns.match.sum())
    on_match = activations[patterns.match].astype(np.float64)
    mean = float(on_match.mean())
    residual = variation = float(((on_match - mean) ** 2).sum())
    products = patterns.sums(activations)[:n]
    # Products of each candidate with the residual and with itself, less what the chosen ones already span.
    basis = [patterns.counts[:n] / math.sqrt(n_rows)]
    aligned, free = products - mean * patterns.counts[:n], patterns.counts[:n] - basis[0] ** 2
    chosen, shared = [], []
    while len(chosen) < MAX_PATTERNS and n:
        gains = np.where(free > 1e-6, aligned**2 / np.maximum(free, 1e-6), 0.0)
        best = int(gains.argmax())
        if gains[best] <= max(2 * math.log(n) * residual / n_rows, 1e-9 * variation):
            break
        chosen.append(best)
        shared.append(patterns.shared(best)[:n])
        residual = max(residual - float(gains[best]), 0.0)
        direction = (shared[-1] - sum(part[best] * part for part in basis)) / math.sqrt(free[best])
        aligned = aligned - aligned[best] / math.sqrt(free[best]) * direction
        free = free - direction**2
        basis.append(direction)
    return _fitted(chosen, shared, products, patterns.counts[:n], mean, n_rows)


def _fitted(
    chosen: list[int],
    shared: list[Float[np.ndarray, " patterns"]],
    products: Float[np.ndarray, " patterns"],
    counts: Float[np.ndarray, " patterns"],
    mean: float,
    n_rows: int,
) -> Explanation:
    """Solve the normal equations of the chosen patterns, about the means."""
    if not chosen:
        return Explanation(mean, (), ())
    sizes = counts[chosen]
    gram = np.stack([row[chosen] for row in shared]) - np.outer(sizes, sizes) / n_rows
    weights = np.linalg.solve(gram, products[chosen] - mean * sizes)
    return Explanation(mean - float(weights @ sizes) / n_rows, tuple(chosen), tuple(weights.tolist()))


def context_of(rows: Provenance) -> Int[np.ndarray, "rows reach"]:
    """Return the token of each row and of the rows before it in the same example, -1 where there is none."""
    assert rows.token is not None
    token = rows.token.to(torch.int64).numpy()
    example, position = rows.example.numpy(), rows.position.numpy()
    context = np.full((len(token), REACH + 1), -1, dtype=np.int64)
    context[:, 0] = token
    for apart in range(1, REACH + 1):
        back = position[apart:] - position[:-apart]
        near = (example[apart:] == example[:-apart]) & (back >= 1) & (back <= REACH)
        context[np.flatnonzero(near) + apart, back[near]] = token[:-apart][near]
    return context


def _frequent(keys: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " known"]:
    """Return the known keys that occur often enough to be candidates, sorted."""
    distinct, n = np.unique(keys, return_counts=True)
    return distinct[(distinct >= 0) & (n >= MIN_ROWS)]


def visible(token: str) -> str:
    """Make white space and control characters of a token visible."""
    shown = token.encode("unicode_escape").decode("ascii") if not token.isprintable() else token
    return shown.replace(" ", "␣")

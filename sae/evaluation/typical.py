"""What a latent stands for in few words: the tokens it is most active on, and the context that sets it apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from sae.activations.store import Provenance
from sae.evaluation.gather import labels_of_rows
from sae.evaluation.patterns import context_of, visible
from sae.evaluation.responses import SparseResponses
from sae.inputs.base import Inputs, Labelled

MAIN_SHARE = 0.5
"""Share of a latent's activation that falls on a single token where that token is enough to name the latent."""
NAMED_SHARE = 0.1
"""The least share of a token that is named among others."""
MAX_TOKENS = 3
"""Tokens named at most."""
MIN_RISE = 0.25
"""What a context's share of the activation must exceed its share in another latent's by to set a latent apart."""
TOKEN, BEFORE = "token", "before"
"""Families of the row's own token and of the one before it; all others are the inputs' labels."""

Shares = Mapping[str, Float[np.ndarray, " values_plus_1"]]
"""Per family, the share of a latent's activation that falls on rows of each value; the first is of no value."""


@dataclass(frozen=True)
class Portrait:
    """A latent in few words.

    Attributes:
        tokens: those it is most active on, "" where rows have no tokens.
        family: of the context, such as "sense" or "before".
        context: what sets it apart from another latent, such as "sense=for:statement"; "" where nothing does.
        share: of its activation in that context.
        rise: how much less the other latent's share is.
    """

    tokens: str
    family: str
    context: str
    share: float
    rise: float


@dataclass(frozen=True)
class Factors:
    """What is known about every row: its token, the one before, and the labels of the inputs.

    Attributes:
        values: per family one integer per row, -1 where the family says nothing.
        names: what the values of labels are called.
        token_text: turns a token into text.
    """

    values: Mapping[str, Int[np.ndarray, " rows"]]
    names: Mapping[str, Sequence[str]]
    token_text: Callable[[int], str]

    @classmethod
    def of(cls, rows: Provenance, inputs: Inputs | None, token_text: Callable[[int], str] = str) -> "Factors":
        """Gather what store and inputs know about consecutive rows."""
        values: dict[str, np.ndarray] = {}
        names: Mapping[str, Sequence[str]] = {}
        if rows.token is not None:
            own, before = context_of(rows).T[:2]
            values |= {TOKEN: own, BEFORE: before}
        if isinstance(inputs, Labelled):
            known = labels_of_rows(inputs, rows)
            values |= {family: codes for family, codes in known.items() if family not in inputs.bookkeeping}
            names = inputs.label_names
        # Strings are free text and floats continuous factors: neither has values to count.
        counted = {name: codes.astype(np.int64) for name, codes in values.items() if codes.dtype.kind in "iu"}
        return cls(counted, names, token_text)

    @cached_property
    def everywhere(self) -> Shares:
        """Share of all rows that have each value: that of a latent which is always on."""
        return {
            family: _shares(codes, np.ones(len(codes)), self._sizes[family]) for family, codes in self.values.items()
        }

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {family: int(codes.max()) + 2 for family, codes in self.values.items()}

    def shares(self, responses: SparseResponses, latent: int) -> Shares:
        """Return where a latent's activation falls."""
        entries = slice(int(responses.offsets[latent]), int(responses.offsets[latent + 1]))
        rows, weights = responses.items[entries].long().numpy(), responses.values[entries].double().numpy()
        return {family: _shares(codes[rows], weights, self._sizes[family]) for family, codes in self.values.items()}

    def main_share(self, shares: Shares) -> float:
        """Return the share of the token that a latent is most active on; 0 where rows have no tokens."""
        return float(shares[TOKEN][1:].max()) if TOKEN in shares else 0.0

    def portrait(self, shares: Shares, beside: Shares) -> Portrait:
        """Describe a latent by its tokens, and by the context whose share exceeds that of another latent the most."""
        rises = {family: shares[family][1:] - beside[family][1:] for family in shares if family != TOKEN}
        best = max(rises, key=lambda family: rises[family].max(initial=0.0), default=None)
        if best is None or rises[best].max(initial=0.0) < MIN_RISE:
            return Portrait(self._tokens(shares), "", "", 0.0, 0.0)
        value = int(rises[best].argmax())
        share, rise = float(shares[best][value + 1]), float(rises[best][value])
        return Portrait(self._tokens(shares), best, self._context(best, value), share, rise)

    def _context(self, family: str, value: int) -> str:
        if family == BEFORE:
            return f"after {self._token(value)}"
        return f"{family}={self.names[family][value] if family in self.names else value}"

    def _tokens(self, shares: Shares) -> str:
        if TOKEN not in shares:
            return ""
        known = shares[TOKEN][1:]
        order = known.argsort(kind="stable")[::-1][:MAX_TOKENS]
        named = order[:1] if known[order[0]] >= MAIN_SHARE else order[known[order] >= NAMED_SHARE]
        return " ".join(self._token(token) for token in named) or "many tokens"

    def _token(self, token: int) -> str:
        return f"«{visible(self.token_text(int(token)))}»"


def _shares(
    codes: Int[np.ndarray, " rows"], weights: Float[np.ndarray, " rows"], size: int
) -> Float[np.ndarray, " values_plus_1"]:
    total = np.bincount(codes + 1, weights, minlength=size)
    return total / max(total.sum(), np.finfo(float).tiny)

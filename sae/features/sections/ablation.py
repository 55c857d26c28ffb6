"""What taking one latent out of the subject does to its loss: a pass through the subject, bounded by what is asked."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.sites import hookpoints_read, output_sites
from sae.evaluation.splicing import trained_rows
from sae.features.cards import rounded
from sae.features.removal import chunks, copied, stacked, without, written
from sae.inputs.base import Inputs
from sae.subjects.base import TextSubject
from sae.subjects.splice import predictions


@dataclass
class Cost:
    """What ablations have cost so far: examples run through the subject to its end, and seconds."""

    n_examples: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Change:
    """By how much the next token's loss rises where a latent fires in an example, once it is removed."""

    latent: int
    example: int
    positions: Int[Tensor, " tokens"]
    losses: Float[Tensor, " tokens"]


class AblationLosses:
    """Mean change of the next token's loss, in nats, at the tokens where a latent fires, once its part is removed.

    The part z_j W_dec[j] is subtracted wherever the latent fires in an example, and everything else, the error of the
    dictionary too, stays as it was. Positive: the latent helps the prediction. Predictions of padding and special
    tokens are left out, as in `evaluation.splicing`.

    Args:
        dictionary: whose latents.
        subject: predicts next tokens.
        inputs: examples by number.
        examples: for each latent some examples, -1 where there are fewer; drawn at random among those on which it
            fires, for the strongest ones would not be typical.
        batch_examples: how many go through the subject at a time.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        subject: TextSubject,
        inputs: Inputs,
        examples: Int[np.ndarray, "d_sae n"],
        batch_examples: int = 16,
    ) -> None:
        self.dictionary, self.subject, self.inputs = dictionary.eval(), subject, inputs
        self.examples, self.batch_examples, self.cost = examples, batch_examples, Cost()
        self._reads, self._sites = hookpoints_read(dictionary), output_sites(dictionary)

    def of(self, latents: range) -> list[dict[str, float | int | None] | None]:
        """Return `{"ablation": nats, "n": tokens}`; None for latents that fire before no token in their examples."""
        started = time.monotonic()
        sums, counts = torch.zeros(len(latents), dtype=torch.float64), torch.zeros(len(latents), dtype=torch.int64)
        for group in self._groups(latents):
            for change in self._changes(group):
                sums[change.latent - latents.start] += change.losses.double().sum().cpu()
                counts[change.latent - latents.start] += len(change.losses)
        self.cost.seconds += time.monotonic() - started
        return [
            {"ablation": rounded(total / n), "n": n} if n else None
            for total, n in zip(sums.tolist(), counts.tolist(), strict=True)
        ]

    def by_token(self, latents: range) -> list[dict[int, dict[int, float | None]] | None]:
        """Return, for each latent, by example and position what its removal adds to the next token's loss, in nats."""
        found: list[dict[int, dict[int, float | None]]] = [{} for _ in latents]
        for group in self._groups(latents):
            for change in self._changes(group):
                losses = [rounded(loss) for loss in change.losses.tolist()]
                at = dict(zip(change.positions.tolist(), losses, strict=True))
                found[change.latent - latents.start][change.example] = at
        return [one or None for one in found]

    def _groups(self, latents: range) -> Iterator[list[tuple[int, list[int]]]]:
        """Yield batches of examples, each with the latents to take out of it: one run for each and an untouched one."""
        asked = self.examples[latents.start : latents.stop]
        rows, columns = (asked >= 0).nonzero()
        pairs = sorted(set(zip(asked[rows, columns].tolist(), (rows + latents.start).tolist(), strict=True)))
        room = max(1, self.batch_examples - 1)
        group: list[tuple[int, list[int]]] = []
        used = 0
        for example, members in itertools.groupby(pairs, key=lambda pair: pair[0]):
            for chunk in chunks([latent for _, latent in members], room):
                if group and used + 1 + len(chunk) > self.batch_examples:
                    yield group
                    group, used = [], 0
                group.append((example, chunk))
                used += 1 + len(chunk)
        if group:
            yield group

    @torch.no_grad()
    def _changes(self, group: list[tuple[int, list[int]]]) -> Iterator["Change"]:
        """Yield what the removal of each latent changes at the tokens of one example."""
        batch = stacked([self.inputs.batch(example, example + 1) for example, _ in group])
        keep = trained_rows(self.subject, batch, self._reads[0])
        found = self.subject.run(batch, self._reads)
        x = torch.cat([found[name][keep.to(found[name].device)].float() for name in self._reads], dim=1)
        codes = self.dictionary.encode(x.to(self.dictionary.W_dec.device)).to("cpu")
        # One copy of an example as it is, then one for each latent.
        source = torch.tensor([i for i, (_, latents) in enumerate(group) for _ in range(1 + len(latents))])
        removed = [latent for _, latents in group for latent in (-1, *latents)]
        part = written(self.dictionary, codes, keep.cpu(), source, removed)
        copies = copied(batch, source)
        logits = self.subject.forward(copies, without(part, self._sites))
        self.cost.n_examples += len(source)
        firing = part.any(-1)
        scored = predictions(copies, firing)
        clean = -1
        for copy, latent in enumerate(removed):
            if latent < 0:
                clean = copy
                continue
            where = scored[copy].nonzero()[:, 0]
            target = copies.tokens[copy, where + 1].long()  # type: ignore[index]
            losses = [_loss(logits[row], where, target) for row in (copy, clean)]
            yield Change(latent, group[int(source[copy])][0], where, losses[0] - losses[1])


def _loss(logits: Float[Tensor, "pos vocab"], where: Tensor, target: Tensor) -> Float[Tensor, " tokens"]:
    where = where.to(logits.device)
    return F.cross_entropy(logits[where].float(), target.to(logits.device), reduction="none")


class TokenLosses:
    """What the removal of latents does at every token of their strongest examples, for the cards that show these.

    Args:
        losses: on these examples.
    """

    def __init__(self, losses: AblationLosses) -> None:
        self.losses = losses

    def of(self, latents: range) -> list[dict[int, dict[int, float | None]] | None]:
        """Return the changes of each latent by example and position."""
        return self.losses.by_token(latents)

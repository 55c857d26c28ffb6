"""Short names for latents that have no catalog at hand: what they fire on in a sample, and what they write."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64
from torch import Tensor

from sae.evaluation.joint_space import text_cosines
from sae.features.circuits.attribution import Member, observe, only_modality
from sae.features.circuits.outputs import NearWords, Outputs, words_of
from sae.features.removal import chunks, stacked
from sae.features.sections.writes import LogitWrites
from sae.features.show import token_decoder
from sae.inputs.base import Inputs
from sae.subjects.base import Subject
from sae.tensors import Batch

N_NAMES = 3
SAMPLE = {"language": 256, "clip": 1024}
"""Examples, spread evenly over the inputs, that names are taken from."""
_BATCH = 16
_SPAN = 1 << 32
"""More than there are tokens or concepts."""


class Glossary:
    """Names what latents of several dictionaries fire on, and what they write.

    They fire on tokens, or on images of a concept where the inputs know those: named are the ones that hold most of a
    latent's squared activation in a sample of examples, taken when it is first needed. They write tokens by their
    direct path to the logits, and at the end of an image tower words near their direction.

    Args:
        subject, inputs: where to look.
        members: the dictionaries.
        outputs: what comes out of the subject, if it has names.
    """

    def __init__(self, subject: Subject, inputs: Inputs, members: Sequence[Member], outputs: Outputs | None) -> None:
        self.subject, self.inputs, self.members, self.outputs = subject, inputs, members, outputs
        self._mass = cache(self._measured)
        self._logits = cache(self._logit_writes)
        self._token = cache(token_decoder(subject)) if hasattr(subject, "tokenizer") else str

    def fires_on(self, member: Member, latent: int) -> list[str]:
        """Return the tokens or concepts that hold most of a latent's squared activation, the largest share first."""
        keys, mass = self._mass()[member.name]
        first, last = np.searchsorted(keys, [latent * _SPAN, (latent + 1) * _SPAN])
        order = np.argsort(-mass[first:last], kind="stable")[:N_NAMES]
        return [self._named(member, int(key) % _SPAN) for key in keys[first:last][order]]

    def writes(self, member: Member, latent: int) -> list[str]:
        """Return the tokens or words that a latent speaks for most; none where no direct path to them is known."""
        if member.writes.hookpoint == "visual.embedding" and isinstance(self.outputs, NearWords):
            direction = member.dictionary.W_dec[latent].detach().double().cpu()[None]
            best = text_cosines(direction, self.outputs.directions.cpu())[0].topk(N_NAMES).indices
            return [self.outputs.name(word) for word in best.tolist()]
        logits = self._logits(member.name)
        section = logits.of(range(latent, latent + 1))[0] if logits else None
        return [] if section is None else [token for token, _ in section["up"][:N_NAMES]]

    def _logit_writes(self, name: str) -> LogitWrites | None:
        (member,) = (one for one in self.members if one.name == name)
        if not LogitWrites.has_logits(member.dictionary, self.subject):
            return None
        return LogitWrites(member.dictionary, self.subject, n_tokens=N_NAMES)

    def _measured(self) -> dict[str, tuple[Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]]:
        """Add up squared activations by latent and name: rising numbers `latent * _SPAN + name`, each with its sum."""
        count = min(SAMPLE[self.subject.kind], len(self.inputs))
        examples = np.linspace(0, len(self.inputs) - 1, count).astype(int).tolist()
        found: dict[str, list[tuple[Tensor, Tensor]]] = {member.name: [] for member in self.members}
        for group in chunks(examples, _BATCH):
            batch = only_modality(stacked([self.inputs.batch(one, one + 1) for one in group]), self.members[0].reads)
            for name, activity in observe(self.subject, batch, self.members).items():
                told = self._told(activity.member, batch, group)[activity.places]
                there = (told >= 0) & (activity.strength > 0)
                keys = activity.codes.indices.long()[there] * _SPAN + told[there]
                found[name].append((keys, activity.strength[there].double() ** 2))
        summed = {}
        for name, parts in found.items():
            keys, values = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
            distinct, place = np.unique(keys, return_inverse=True)
            summed[name] = distinct, np.bincount(place, values, len(distinct))
        return summed

    def _told(self, member: Member, batch: Batch, examples: Sequence[int]) -> Int[Tensor, "example pos"]:
        """Return the token at each position, or the concept of its image; -1 for nothing."""
        rows = self.subject.rows(batch, self.subject.hookpoints()[member.reads].grid)
        if rows.token is not None:
            return torch.where(rows.keep, rows.token.long(), -1).cpu()
        told, inputs = torch.full(rows.keep.shape, -1), self.inputs
        if words_of(inputs):
            labels: Any = inputs
            told[:] = torch.tensor([int(labels.labels(one, one + 1)[labels.classes.family][0]) for one in examples])[
                :, None
            ]
        return told

    def _named(self, member: Member, name: int) -> str:
        words = words_of(self.inputs)
        on_images = self.subject.hookpoints()[member.reads].grid.startswith("visual.")
        return words[name] if on_images else self._token(name)

"""Sensitive values as words: which judgements are near to them, and which units write them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sae.errors import ConfigError, InputsError
from sae.features.live.words import Words
from sae.lab.bias.leaning import outlying, stands_out
from sae.lab.bias.population import Population
from sae.lab.workbench import Workbench

Phrases = Mapping[str, Sequence[str]]
"""What says each value, `family=value`."""


@dataclass(frozen=True)
class Wording:
    """Sensitive values as words in the joint space, in the prompts of the inputs' classes and less the mean word.

    Attributes:
        values: those whose words the subject knows, `family=value`.
        towards: where each value's words lie, of unit length; the mean of its phrases.
        contrast: the same less the mean of the family's other values, of unit length; of a value whose family has no
            others it is the words' own place.
        names: where each judgement's words lie.
    """

    values: tuple[str, ...]
    towards: Float[Tensor, "values d_joint"]
    contrast: Float[Tensor, "values d_joint"]
    names: Float[Tensor, "judgements d_joint"]

    @classmethod
    def of(cls, bench: Workbench, judged: Population, own: Phrases | None = None) -> "Wording":
        """Embed phrases of one's own, and the default ones of the labels that these do not name.

        Raises:
            InputsError: the subject was never trained on a word of one's own.
        """
        words, found = Words(bench.subject, bench.inputs), {}
        for label in judged.values:
            phrase = default_phrase(label)
            if phrase is None or label in (own or {}):
                continue
            try:
                found[label] = words.towards([phrase])[0]
            except InputsError:
                continue
        for label, phrases in (own or {}).items():
            found[label] = F.normalize(words.towards(list(phrases)).mean(0), dim=0)
        towards = torch.stack(list(found.values())) if found else torch.zeros(0, judged.judge.classifier.shape[1])
        names = [name.replace("_", " ") for name in judged.judge.names]
        return cls(tuple(found), towards, _contrast(tuple(found), towards), words.towards(names))

    def place(self, value: str) -> int | None:
        """Return the number of a value; None where the subject does not know its words."""
        return self.values.index(value) if value in self.values else None

    def association(self, directions: Float[Tensor, "units d_joint"]) -> Float[Tensor, "units values"]:
        """Return the cosine of what units write with every value's words against those of its family's others."""
        return F.normalize(directions.detach().float().cpu(), dim=1) @ self.contrast.T

    def naming(self, directions: Float[Tensor, "units d_joint"]) -> Float[Tensor, "units judgements"]:
        """Return the cosine of what units write with every judgement's words against those of the others."""
        against = (self.names - self.names.mean(0)) * len(self.names) / (len(self.names) - 1)
        return F.normalize(directions.detach().float().cpu(), dim=1) @ F.normalize(against, dim=1).T

    @property
    def judgements(self) -> Float[Tensor, "values judgements"]:
        """Cosine of a value's words with each judgement's."""
        return self.towards @ self.names.T

    @cached_property
    def outlying(self) -> Float[Tensor, "values judgements"]:
        """How far a judgement's cosine with a value lies from the other judgements' (see `leaning.outlying`)."""
        return outlying(self.judgements) if self.values else self.judgements

    @property
    def stand_out(self) -> Bool[Tensor, "values judgements"]:
        """Which judgements' words are nearer to a value's, or farther, than chance allows beside the others'."""
        return stands_out(self.outlying, self.judgements.numel())


def _contrast(values: Sequence[str], towards: Float[Tensor, "values d_joint"]) -> Float[Tensor, "values d_joint"]:
    families = [value.partition("=")[0] for value in values]
    found = towards.clone()
    for number, family in enumerate(families):
        others = [one for one, of in enumerate(families) if of == family and one != number]
        if others:
            found[number] -= towards[others].mean(0)
    return F.normalize(found, dim=1)


def default_phrase(label: str) -> str | None:
    """Return the words of a label: its name and its family's first word ("gray hair"), of a yes the family's.

    A no has none.
    """
    family, _, name = label.partition("=")
    if name == "no":
        return None
    return family.replace("_", " ") if name == "yes" else f"{name} {family.partition('_')[0]}"


def read_phrases(path: Path) -> dict[str, list[str]]:
    """Read phrases of one's own, by `family=value`.

    Args:
        path: JSON of families, each with the phrases of its values, {"age": {"old": ["old man", "old woman"]}}; a
            list in place of the values, {"age": ["young man", "old man"]}, makes every phrase a value.

    Raises:
        ConfigError: it is no such file, or a value has no phrase.
    """
    example = '{"age": {"old": ["old man"], "young": ["young man"]}}'
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise ConfigError(f"prompts: {path}: cannot be read as JSON: {cause}") from cause
    if not isinstance(given, dict) or not given:
        raise ConfigError(f"prompts: {path}: not families and their phrases, such as {example}.")
    found: dict[str, list[str]] = {}
    for family, values in given.items():
        named = {one: [one] for one in values} if _strings(values) else values
        if not isinstance(named, dict) or not named or not all(map(_strings, named.values())):
            raise ConfigError(f"prompts: {path}, {family}: not values and lists of phrases, such as {example}.")
        found |= {f"{family}={value}": phrases for value, phrases in named.items()}
    return found


def _strings(values: object) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(one, str) for one in values)

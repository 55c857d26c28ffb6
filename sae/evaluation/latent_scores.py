"""Scores of single latents, in one safetensors file beside the report, for catalogs to read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sae.durable import write_durably
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured

FORMAT_VERSION = "1"
FILE_NAME = "latents.safetensors"
UNIT = "latents"


@dataclass(frozen=True, kw_only=True)
class LatentScores:
    """One value per latent.

    Attributes:
        values: per metric, nan where it is undefined for a latent.
        numbers: what is no score but a number of something, such as the label a latent matches best.
        versions: version of each metric.
        about: hashes of dictionary, store and inputs, subject and hookpoint.
    """

    values: Mapping[str, Float[Tensor, " d_sae"]]
    numbers: Mapping[str, Int[Tensor, " d_sae"]]
    versions: Mapping[str, int]
    about: Mapping[str, str]

    @classmethod
    def of(
        cls,
        measured: Iterable[Measured],
        about: Mapping[str, str],
        numbers: Mapping[str, Int[Tensor, " d_sae"]] | None = None,
    ) -> "LatentScores":
        """Take the metrics whose items are latents out of all that was measured.

        Raises:
            EvaluationError: they do not all have as many values.
        """
        per_latent = {one.definition.name: one for one in measured if one.definition.unit == UNIT}
        numbers = dict(numbers or {})
        values = {name: one.values.float() for name, one in per_latent.items()}
        lengths = {name: len(tensor) for name, tensor in (values | numbers).items()}
        if len(set(lengths.values())) > 1:
            raise EvaluationError(f"latent scores: metrics differ in their number of latents: {lengths}.")
        versions = {name: one.definition.version for name, one in per_latent.items()}
        return cls(values=values, numbers=numbers, versions=versions, about=about)

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        metadata = {"format_version": FORMAT_VERSION, "versions": json.dumps(dict(self.versions))}
        tensors = {name: tensor.contiguous() for name, tensor in {**self.values, **self.numbers}.items()}
        write_durably(path, [save(tensors, metadata=dict(self.about) | metadata)], EvaluationError)


def load_latent_scores(path: Path) -> LatentScores:
    """Read the scores of single latents.

    Raises:
        EvaluationError: missing, damaged, or of another format version.
    """
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise EvaluationError(f"{path}: not a readable safetensors file: {error}.") from error
    found = metadata.pop("format_version", None)
    if found != FORMAT_VERSION:
        raise EvaluationError(f"{path}: format version {found}, this reads {FORMAT_VERSION}.")
    versions = json.loads(metadata.pop("versions"))
    values = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    numbers = {name: tensor for name, tensor in tensors.items() if name not in values}
    return LatentScores(values=values, numbers=numbers, versions=versions, about=metadata)

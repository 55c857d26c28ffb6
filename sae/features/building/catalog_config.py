"""What the build of a catalog can be told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae import config as configs
from sae.errors import ConfigError
from sae.features.building.evidence import Amounts


@dataclass(frozen=True, kw_only=True)
class CatalogConfig:
    """What to make cards of, and what to put on them."""

    dictionary: str
    """Folder of a dictionary, or builtin:SUBJECT/HOOKPOINT."""
    store: Path
    """Store whose vectors are counted and whose examples are shown."""
    out: Path
    """Folder of the catalog."""
    beside: tuple[Path, ...] = ()
    """Stores of the other subjects of a crosscoder, in its order; examples are shown as the first store has them."""
    report: str | None = None
    """Report of the dictionary, with latents.safetensors beside it: a file, a folder or builtin:SUBJECT/HOOKPOINT; null
    takes one that lies in the dictionary's folder."""
    examples: Amounts = field(default_factory=Amounts)
    """How many examples a card shows."""
    context: int = 24
    """Tokens shown on either side of a firing."""
    near_vectors: int = 16_384
    """Look for near misses and most negative pre-activations on this many vectors, drawn at random."""
    labelled_vectors: int = 32_768
    """Measure labels, neighbours and neurons on about this many vectors, the first ones."""
    ablation_examples: int = 0
    """Ablate every latent on this many of its examples, drawn at random, and say what it does to the loss; and on as
    many of its strongest, for every token. Each one is a pass through the subject, so it takes by far the longest."""
    relatives: tuple[str, ...] = ()
    """Dictionaries of other sizes on the same vectors, for parents and children."""
    neurons: bool = True
    """Make cards of the raw neurons too."""
    neuron_vectors: int = 65_536
    """Vectors that the cards of neurons and directions are made from, the first ones; they fire on very many."""
    directions: tuple[str, ...] = ()
    """Make cards of directions too: of the tensors [d_in] or [n, d_in] in safetensors files, and of labels, named
    label:FAMILY=VALUE, from which the difference of means and a logistic probe are made."""
    map: bool = True
    """Lay the latents out in the plane."""
    seed: int = 0
    """Decides which examples are drawn, and the layout of the map."""
    chunk_vectors: int = 1024
    """Vectors to encode at a time; decides speed."""
    device: str = "cpu"
    """Where the dictionary runs."""
    workers: int | None = None
    """Processes that put cards together; as many as there are cores if not given."""

    def __post_init__(self) -> None:
        for name in ("context", "near_vectors", "chunk_vectors", "labelled_vectors", "neuron_vectors"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        if self.ablation_examples < 0:
            raise ConfigError(f"ablation_examples: must be at least 0, got {self.ablation_examples}.")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers: must be at least 1, got {self.workers}.")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the cards beside dictionary and store."""
        return (
            {"examples": configs.encode(self.examples)}
            | {
                name: getattr(self, name)
                for name in (
                    *("context", "near_vectors", "labelled_vectors", "ablation_examples", "neurons", "neuron_vectors"),
                    *("map", "seed", "report"),
                )
            }
            | {"relatives": list(self.relatives)}
        )

"""What the build of a catalog can be told."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae import config as configs
from sae.errors import ConfigError
from sae.features.evidence import Amounts


@dataclass(frozen=True, kw_only=True)
class CatalogConfig:
    """What to make cards of, and what to put on them."""

    dictionary: str
    """Folder of a dictionary, or builtin:SUBJECT/HOOKPOINT."""
    store: Path
    """Store whose vectors are counted and whose examples are shown."""
    out: Path
    """Folder of the catalog."""
    report: str | None = None
    """Report of the dictionary, with latents.safetensors beside it: a file, a folder or builtin:SUBJECT/HOOKPOINT; null
    takes one that lies in the dictionary's folder."""
    examples: Amounts = field(default_factory=Amounts)
    """How many examples a card shows."""
    context: int = 24
    """Tokens shown on either side of a firing."""
    near_vectors: int = 16_384
    """Look for near misses and most negative pre-activations on this many vectors, drawn at random."""
    seed: int = 0
    """Decides which examples are drawn."""
    chunk_vectors: int = 1024
    """Vectors to encode at a time; decides speed."""
    device: str = "cpu"
    """Where the dictionary runs."""

    def __post_init__(self) -> None:
        for name in ("context", "near_vectors", "chunk_vectors"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}.")

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the cards beside dictionary and store."""
        return {"examples": configs.encode(self.examples)} | {
            name: getattr(self, name) for name in ("context", "near_vectors", "seed")
        }

"""What an evaluation can be told."""

from dataclasses import dataclass
from pathlib import Path

from sae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What to score and on how much data."""

    dictionary: str
    """Folder of a dictionary, or builtin:SUBJECT/HOOKPOINT."""
    store: Path | tuple[Path, ...]
    """Store of vectors that the dictionary was not trained on; one for each subject if it is over several."""
    out: Path
    """Folder for report.json and latents.safetensors."""
    trained_controls: dict[str, str] | None = None
    """Trained control dictionaries by name (frozen_decoder, frozen_encoder, untrained_subject), each a folder or
    builtin name; null takes those that lie in `controls/` below the dictionary."""
    n_vectors: int | None = None
    """Rebuild at most this many vectors of the store; null takes all."""
    n_sample_vectors: int = 65_536
    """Score labels, explanations and everything else that has controls on about this many vectors."""
    n_explained_latents: int = 256
    """Explain this many latents, drawn at random; for text."""
    n_pairs: int = 48
    """Pairs of renders per factor that differ in this factor alone; for the concept world."""
    n_spliced_examples: int = 256
    """Run the subject with reconstructions spliced in on at most this many examples."""
    chunk_vectors: int = 1024
    """Vectors per step, and per block of the bootstrap; decides speed and the grain of intervals, not values."""
    batch_examples: int = 16
    """Examples per forward pass of the subject."""
    seed: int = 0
    """Decides the halves of the sample, the random controls and the bootstrap."""
    device: str = "cpu"
    """Where dictionary and subject run."""

    @property
    def stores(self) -> tuple[Path, ...]:
        """All stores, also where there is one."""
        return self.store if isinstance(self.store, tuple) else (self.store,)

    def __post_init__(self) -> None:
        counts = ("n_vectors", "n_sample_vectors", "n_explained_latents", "n_pairs", "n_spliced_examples")
        for name in (*counts, "chunk_vectors", "batch_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}: must be at least 1, got {value}.")

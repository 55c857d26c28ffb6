"""The settings of a harvest."""

from dataclasses import dataclass
from pathlib import Path

from sae.activations.manifest import Dtype
from sae.errors import ConfigError
from sae.inputs.configs import InputsConfig


@dataclass(frozen=True, kw_only=True)
class HarvestConfig:
    """What to read, from which inputs, and how to lay it out."""

    subject: str
    """The frozen model, such as builtin:stdlib-1l, language:gpt2 or clip:ViT-B-32-quickgelu/openai."""
    inputs: InputsConfig | None = None
    """Text or images to run it over; null where code hands them to `harvest`."""
    hookpoints: tuple[str, ...]
    """Where to read; several in one pass, in both towers of a CLIP model if wanted."""
    out: Path
    """Folder of the store; the same command continues a harvest that was stopped."""
    dtype: Dtype = "bfloat16"
    """Number format of the stored vectors."""
    batch_examples: int = 16
    """Examples per forward pass."""
    shard_examples: int = 256
    """Examples per shard, a multiple of batch_examples; queue + 1 shards are held in memory."""
    rows_per_example: int | None = None
    """Keep at most this many tokens or patches of each example, sampled deterministically; null keeps all."""
    covariance: bool = False
    """Also accumulate each hookpoint's covariance matrix in float64."""
    device: str = "cpu"
    """Where the subject runs: cpu, cuda, cuda:1."""
    queue: int = 2
    """Shards that may wait for the disk before the subject does."""

    def __post_init__(self) -> None:
        if not self.hookpoints or len(set(self.hookpoints)) != len(self.hookpoints):
            raise ConfigError(f"hookpoints: needs one or more different names, got {list(self.hookpoints)}.")
        for name in ("batch_examples", "shard_examples", "queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}.")
        if self.shard_examples % self.batch_examples:
            raise ConfigError(
                f"shard_examples: {self.shard_examples} is not a multiple of batch_examples {self.batch_examples}."
            )
        if self.rows_per_example is not None and self.rows_per_example < 1:
            raise ConfigError(f"rows_per_example: must be at least 1 or null, got {self.rows_per_example}.")

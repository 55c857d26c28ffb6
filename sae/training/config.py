"""The settings of a training run."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, Union

from sae.activations.store import ActivationStore, Vectors
from sae.dictionaries import registry
from sae.dictionaries.base import DictionaryConfig
from sae.errors import ConfigError
from sae.kernels.interface import Candidates
from sae.log import WandbMode
from sae.tensors import Kind
from sae.training.normalisation import Normalisation
from sae.training.optimiser import AdamConfig, default_lr
from sae.training.schedules import ScheduleConfig

DEAD_AFTER_VECTORS = 10_000_000
DEAD_AFTER_FRACTION = 0.01
DEAD_AFTER_AT_LEAST, SHORT_FRACTION = 20_000, 0.05
CALIBRATION_VECTORS = 65_536
CALIBRATION_FRACTION = 0.05
KindName = Literal["token", "bos", "special", "class", "patch", "eot", "pooled"]

if TYPE_CHECKING:
    AnyDictionary = DictionaryConfig
else:
    # One member per registered architecture, so that a `kind` in YAML finds its settings.
    AnyDictionary = Union[tuple(registry.dictionary_type(kind).config_type for kind in registry.kinds())]  # noqa: UP007

FREE_TO_CHANGE = ("store", "out", "wandb", "checkpoint_every_steps", "log_every_steps", "probe_every_steps")
"""Settings that a resumed run may change; the store's hash must stay the same."""


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """Which rows of the store are trained on."""

    kinds: tuple[KindName, ...] = ("token", "class", "patch", "eot", "pooled")
    """Kinds of rows; by default all but BOS and special tokens."""

    max_norm_ratio: float | None = 10.0
    """Leave out rows whose norm is more than this many times the median (attention sinks); null keeps them."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ConfigError("kinds: at least one kind of row is needed.")
        if self.max_norm_ratio is not None and self.max_norm_ratio <= 1:
            raise ConfigError(f"max_norm_ratio {self.max_norm_ratio}: must be above 1, or null to keep all rows.")

    def select(self, store: ActivationStore, hookpoint: str) -> Vectors:
        """Return the rows of a store's hookpoint that pass."""
        return store.vectors(hookpoint, [Kind[name.upper()] for name in self.kinds], self.max_norm_ratio)


@dataclass(frozen=True, kw_only=True)
class EndToEndConfig:
    """A loss on what the subject answers with the reconstruction in place (arXiv 2405.12241)."""

    loss: Literal["kl", "ce"] = "kl"
    """"kl": the divergence of the next-token distributions from those of the untouched subject; "ce": the
    cross-entropy of the text itself. Both in nats per token."""

    coefficient: float = 1.0
    """Weight of this loss."""

    reconstruction: float = 0.0
    """Weight of the normalised squared error beside it; 0 leaves only what the subject answers."""

    def __post_init__(self) -> None:
        if self.coefficient <= 0 or self.reconstruction < 0:
            raise ConfigError(
                f"coefficient {self.coefficient} and reconstruction {self.reconstruction}: the first must be above 0, "
                "the second at least 0."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One dictionary trained on one hookpoint of a store, or on several side by side."""

    store: Path | tuple[Path, ...]
    """Folder of the activation store; several, made from the same inputs, for a crosscoder over their subjects."""

    hookpoint: str | tuple[str, ...]
    """Where in the subject the vectors were read; several for a crosscoder. With several stores too, every hookpoint
    is read in every store. Vectors of one place lie side by side, in this order; those of different grids, such as
    visual.embedding and text.embedding, go together by example."""

    out: Path
    """Folder of the run: its settings, metrics, checkpoints, and at the end `dictionary/`."""

    dictionary: AnyDictionary
    """Architecture and size of the dictionary."""

    target_hookpoint: str | tuple[str, ...] | None = None
    """Makes a transcoder, which writes the vectors at this hookpoint of the same grid; null reconstructs the inputs."""

    n_vectors: int | None = None
    """Vectors to train on, repetitions counted; rounded up to whole batches. Either this or `n_epochs`.

    Kinds that are fitted at once, like pca, are fitted to so many vectors."""

    n_epochs: float | None = None
    """Passes over the store's vectors."""

    batch_vectors: int = 4096
    """Vectors per step."""

    rows: RowsConfig = field(default_factory=RowsConfig)
    """Which rows of the store are trained on."""

    normalisation: Normalisation = "expected_norm"
    """What vectors go through before the dictionary sees them: "expected_norm" (one factor), "centre" (the mean
    subtracted, one factor), "whiten" (covariance brought to the identity), "layer_norm" (each vector by itself) or
    "none". All but "layer_norm", which stays in the dictionary, are folded into its weights when it is saved."""

    target_normalisation: Normalisation | None = None
    """The same for what a transcoder writes; by default as for what it reads."""

    calibration_vectors: int | None = None
    """Vectors, in whole examples, that are kept out of training to set thresholds at its end; by default the smaller of
    65,536 and 5 % of the store, and none for architectures without a threshold to set."""

    end_to_end: EndToEndConfig | None = None
    """Train through the subject. Examples are read anew from the inputs that the store was made from, about
    batch_vectors rows of them per step; the store gives scale, starting point and what is held out."""

    optimiser: AdamConfig = field(default_factory=AdamConfig)
    """What turns gradients into new parameters."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How the learning rate moves over the run."""

    dead_after_vectors: int | None = None
    """A latent that has not fired for this many vectors is dead; by default the smaller of 10 M and 1 % of the
    run, but at least 20,000, or 5 % of a run so short that this is less."""

    seed: int = 0
    """Decides the initial parameters and the order of the vectors."""

    device: str = "cpu"
    """Where to train: "cpu", "cuda" or "cuda:N"."""

    autocast: bool = True
    """On CUDA, multiply matrices in bf16; parameters and sums stay float32. Without effect on the CPU."""

    candidates: Candidates = "exact"
    """On CPUs with bf16 products, "bf16" finds the latents that could be among the largest in bf16 and scores these
    exactly: a third faster; above 99.9 % of the exact choice. Elsewhere as "exact"."""

    log_every_steps: int = 100
    """Steps per line of `metrics.jsonl`."""

    probe_every_steps: int = 1000
    """Steps between two runs of the caller's probes."""

    checkpoint_every_steps: int = 1000
    """Steps between two checkpoints; there is one at the end in any case."""

    wandb: WandbMode = "off"
    """Weights & Biases: "online", "offline" (send later with `wandb sync`) or "off"."""

    def __post_init__(self) -> None:
        if (self.n_vectors is None) == (self.n_epochs is None):
            raise ConfigError(f"n_vectors {self.n_vectors} and n_epochs {self.n_epochs}: exactly one must be given.")
        counts = ("n_vectors", "n_epochs", "batch_vectors", "dead_after_vectors")
        for name in (*counts, "log_every_steps", "probe_every_steps", "checkpoint_every_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} {value}: must be above 0.")
        if self.calibration_vectors is not None and self.calibration_vectors < 0:
            raise ConfigError(f"calibration_vectors {self.calibration_vectors}: must be at least 0, or null.")
        if self.target_normalisation is not None and self.target_hookpoint is None:
            raise ConfigError("target_normalisation: is for transcoders, which have a target_hookpoint.")
        for name in ("stores", "hookpoints", "target_hookpoints"):
            values = getattr(self, name)
            if len(set(values)) != len(values) or (not values and name != "target_hookpoints"):
                setting, listed = name.removesuffix("s"), ", ".join(map(str, values))
                raise ConfigError(f"{setting} [{listed}]: needs one or more, each of them once.")
        if self.dictionary.layer_norm and self.normalisation not in ("expected_norm", "layer_norm"):
            raise ConfigError(f"normalisation {self.normalisation!r}: the dictionary's layer_norm replaces it.")
        if self.end_to_end is not None and (self.dictionary.layer_norm or self.normalisation == "layer_norm"):
            raise ConfigError("end_to_end: cannot be combined with layer_norm; use another normalisation.")

    def for_sites(self, inputs: Sequence[int], targets: Sequence[int]) -> Self:
        """Fill in what depends on the widths of the sites that are read and, by a transcoder, written."""
        layer_norm = self.dictionary.layer_norm or self.normalisation == "layer_norm"
        dictionary = dataclasses.replace(self.dictionary, layer_norm=layer_norm).for_sites(inputs, targets)
        return dataclasses.replace(
            self, dictionary=dictionary, normalisation="layer_norm" if layer_norm else self.normalisation
        )

    def resolve(self, n_available: int) -> Self:
        """Fill in the defaults that depend on other settings or on the `n_available` vectors of the store.

        A resolved config resolves to itself.
        """
        calibration_vectors = self.calibration_vectors
        if calibration_vectors is None:
            calibrated = registry.dictionary_type(self.dictionary.kind).is_calibrated()
            share = max(round(CALIBRATION_FRACTION * n_available), 1)
            calibration_vectors = min(CALIBRATION_VECTORS, share) if calibrated else 0
        n_available -= calibration_vectors
        n_vectors = self.n_vectors if self.n_vectors is not None else round((self.n_epochs or 0) * n_available)
        n_vectors = max(n_vectors, 1)
        at_least = min(DEAD_AFTER_AT_LEAST, round(SHORT_FRACTION * n_vectors))
        dead_after = min(DEAD_AFTER_VECTORS, max(round(DEAD_AFTER_FRACTION * n_vectors), at_least, 1))
        lr = self.optimiser.lr or default_lr(self.dictionary.d_sae)
        return dataclasses.replace(
            self,
            n_vectors=n_vectors,
            n_epochs=None,
            calibration_vectors=calibration_vectors,
            optimiser=dataclasses.replace(self.optimiser, lr=lr),
            dead_after_vectors=self.dead_after_vectors or dead_after,
        )

    @property
    def stores(self) -> tuple[Path, ...]:
        """All stores, also where there is one."""
        return self.store if isinstance(self.store, tuple) else (self.store,)

    @property
    def hookpoints(self) -> tuple[str, ...]:
        """All hookpoints that are read, also where there is one."""
        return self.hookpoint if isinstance(self.hookpoint, tuple) else (self.hookpoint,)

    @property
    def target_hookpoints(self) -> tuple[str, ...]:
        """All hookpoints that a transcoder writes; none for anything else."""
        target = self.target_hookpoint
        return () if target is None else target if isinstance(target, tuple) else (target,)

    @property
    def n_steps(self) -> int:
        """Steps of a resolved run."""
        assert self.n_vectors is not None, "the config has not been resolved"
        return -(-self.n_vectors // self.batch_vectors)

"""How the learning rate moves over a run."""

from dataclasses import dataclass

from sae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up, a constant part, linear decay to zero."""

    warmup_fraction: float = 0.02
    """Share of the run over which the learning rate rises from zero."""

    decay_fraction: float = 0.2
    """Share of the run, at its end, over which the learning rate falls to zero."""

    def __post_init__(self) -> None:
        if min(self.warmup_fraction, self.decay_fraction) < 0 or self.warmup_fraction + self.decay_fraction > 1:
            raise ConfigError(
                f"warmup_fraction {self.warmup_fraction} and decay_fraction {self.decay_fraction}: "
                "both must be at least 0, and together at most 1."
            )


def lr_factor(config: ScheduleConfig, step: int, n_steps: int) -> float:
    """Return what the peak learning rate is multiplied by in step `step`, counted from 0; in (0, 1].

    The first step of a warm-up over n steps gets 1/n, and the last step of a decay over n steps 1/n.
    """
    warmup = config.warmup_fraction * n_steps
    decay = config.decay_fraction * n_steps
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (n_steps - step) / decay if decay else 1.0
    return min(rising, falling, 1.0)

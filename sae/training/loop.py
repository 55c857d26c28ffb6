"""A training run from store to saved dictionary: order of vectors, checkpoints, metrics, stopping and resuming."""

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae import config as settings
from sae.activations.store import ActivationStore
from sae.dictionaries.base import Dictionary
from sae.dictionaries.registry import make_dictionary
from sae.errors import ConfigError, TrainingError
from sae.inputs.base import Inputs
from sae.log import MetricLog, progress
from sae.subjects.base import Subject
from sae.training.checkpoint import Checkpoints
from sae.training.config import FREE_TO_CHANGE, TrainConfig
from sae.training.data import Data, Selected
from sae.training.dead import rate_histogram
from sae.training.end_to_end import EndToEnd
from sae.training.interrupt import StopRequest, TrainingInterrupted
from sae.training.monitor import DIVERGED_FVU, Monitor, Reading
from sae.training.prefetch import Prefetcher
from sae.training.proof import check_folding, save_proven
from sae.training.trainer import Trainer

logger = logging.getLogger(__name__)

Probe = Callable[[Dictionary], dict[str, float]]
"""A cheap evaluation: receives the dictionary for unscaled vectors, returns figures by name."""

PROVEN_VECTORS = 8192
"""Vectors on which the saved dictionary is proven to do what was trained."""

CHUNK_VECTORS = 4096
"""Vectors that a dictionary fitted at once is measured on at a time."""

N_HISTOGRAMS = 20
"""Histograms of firing rates in a run, each over the vectors since the one before."""


def train(
    store: ActivationStore | Sequence[ActivationStore],
    config: TrainConfig,
    *,
    probes: Mapping[str, Probe] | None = None,
    resume: bool = False,
    subject: Subject | None = None,
    inputs: Inputs | None = None,
) -> Dictionary:
    """Train a dictionary on a hookpoint of a store, or on several, and save it in `config.out`.

    Kinds that learn by no steps (`Dictionary.fitted`: k-means, principal components, ...) are fitted at once to
    `n_vectors` vectors of the store, or all if it has fewer, which are held in memory.

    Args:
        store: where the vectors are; as many as `config.store` names.
        config: settings of the run.
        probes: evaluations run every `probe_every_steps` steps; their figures are logged as `NAME/FIGURE`.
        resume: continue from the newest checkpoint in `config.out`. On the CPU the run ends with the same bytes as
            one that was never stopped.
        subject: what the store was harvested from, for an end-to-end loss.
        inputs: what it was harvested on, for an end-to-end loss.

    Returns:
        The dictionary for vectors as they are, as it was saved in `OUT/dictionary/`.

    Raises:
        ConfigError: a setting cannot be used, or differs from those of the run to resume.
        TrainingError: the run diverged, has no checkpoint to resume from, or `config.out` holds another run; or the
            dictionary that was saved does something else than the trained one.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    check_device(config.device)
    selected = Selected.of([store] if isinstance(store, ActivationStore) else store, config)
    config = config.for_sites(*selected.widths).resolve(len(selected))
    data = Data.of(selected, config)
    if config.end_to_end is None:
        return Run(data, data, config, probes or {}).fit(resume)
    if subject is None or inputs is None:
        raise ConfigError("end_to_end: needs the subject and the inputs that the store was harvested from.")
    return Run(data, EndToEnd(data, subject, inputs, config), config, probes or {}).fit(resume)


class Run:
    """One training run: what surrounds the steps of a `Trainer`.

    Args:
        data: the vectors of the stores.
        source: what is learned from, batch by batch: these vectors, or the subject itself.
        config: resolved settings.
        probes: evaluations by name.
    """

    def __init__(self, data: Data, source: Data | EndToEnd, config: TrainConfig, probes: Mapping[str, Probe]) -> None:
        self.data, self.source, self.config, self.probes = data, source, config, probes
        self.maps = [side.normalise for side in data.sides]
        self.checkpoints = Checkpoints(config.out / "checkpoints")
        self.metrics: dict[str, float] = {}
        self.last_read = (0, 0.0)

    def fit(self, resume: bool) -> Dictionary:
        """Train to the end of the run, save the dictionary, and return it."""
        config = self.config
        if not resume:
            self._check_unused()
        state = self._load() if resume else None
        self._write_config()
        torch.manual_seed(config.seed)
        widths = [side.vectors.d_in for side in self.data.sides]
        dictionary = make_dictionary(config.dictionary, *widths)
        if dictionary.fitted and config.end_to_end is not None:
            raise ConfigError(f"end_to_end: dictionary.kind {config.dictionary.kind!r} takes no steps.")
        if dictionary.fitted:
            return self._fit_at_once(dictionary)
        if not any(parameter.requires_grad for parameter in dictionary.parameters()):
            raise ConfigError(f"dictionary.kind {config.dictionary.kind!r}: a control, neither trained nor fitted.")
        if state is None:
            self._initialise(dictionary, dictionary.sample_vectors)
        else:
            self.metrics = state["metrics"]
        self.trainer = Trainer(dictionary.to(config.device), config, *self.maps)
        reader = self.source.reader(config.batch_vectors, config.seed)
        if state is not None:
            reader.load_state_dict(state["reader"])
            self.trainer.load_state_dict(state["trainer"])
        # What layer_norm makes of vectors only the dictionary knows.
        variance = float(dictionary.variance) if config.dictionary.layer_norm else self.data.written.variance
        self.monitor = Monitor(config.log_every_steps, variance, self.trainer.device, self.trainer.n_steps_done)
        log_state = state["log"] if state else None
        with (
            MetricLog(config.out, wandb=config.wandb, name=self.name, config=self._identity(), state=log_state) as log,
            progress("Train", config.n_steps * config.batch_vectors, "vectors") as bar,
            Prefetcher(reader, self.trainer.device) as batches,
            StopRequest() as stop,
        ):
            self.log, self.bar, self.batches = log, bar, batches
            bar.skip(self.trainer.n_vectors_done)
            self._steps(stop)
            return self._finish()

    @property
    def name(self) -> str:
        """What the run is called in logs."""
        targets = " -> " + " + ".join(self.config.target_hookpoints) if self.config.target_hookpoints else ""
        return f"{self.config.dictionary.kind} {' + '.join(self.config.hookpoints)}{targets}"

    def _steps(self, stop: StopRequest) -> None:
        config, n_steps = self.config, self.config.n_steps
        self.last_read = (self.trainer.n_vectors_done, time.monotonic())
        while self.trainer.n_steps_done < n_steps:
            figures, n_vectors = self.source.learn(self.trainer, next(self.batches))
            self.monitor.add(figures, n_vectors)
            self.bar.advance(n_vectors)
            step = self.trainer.n_steps_done
            self._report(self.monitor.read(wait=False))
            if step % config.log_every_steps == 0:
                self._close_interval()
            if step % config.probe_every_steps == 0 or step == n_steps:
                self._probe(step)
            if step * N_HISTOGRAMS // n_steps > (step - 1) * N_HISTOGRAMS // n_steps:
                self.log.histogram(step, "log10_firing_rate", *rate_histogram(self.trainer.firing.rates()))
            if step % config.checkpoint_every_steps == 0 or step == n_steps:
                self._save()
            if stop.signal_number is not None and step < n_steps:
                self._interrupt(stop.signal_number)

    def _close_interval(self) -> None:
        """Start reading the interval's figures; the interval before is waited for, should it be late."""
        self._report(self.monitor.read(wait=True))
        if self.monitor.open_steps:
            known = {"lr": self.trainer.lr, "n_vectors": self.trainer.n_vectors_done}
            self.monitor.close_interval(self.trainer.firing.dead_fraction(), known)

    def _report(self, reading: Reading | None) -> None:
        if reading is None:
            return
        if reading.bad_step is not None:
            self._diverged(reading.bad_step)
        self.metrics = reading.metrics
        n_vectors, now = int(reading.metrics["n_vectors"]), time.monotonic()
        rate = (n_vectors - self.last_read[0]) / max(now - self.last_read[1], 1e-9)
        self.last_read = (n_vectors, now)
        self.log.write(reading.step, reading.metrics | {"vectors_per_second": rate})
        shown = {"loss": "loss", "fvu": "FVU", "l0": "L0", "dead_fraction": "dead"}
        self.bar.show(**{label: reading.metrics[name] for name, label in shown.items()})

    def _probe(self, step: int) -> None:
        if not self.probes:
            return
        dictionary = self._folded()
        found = {name: probe(dictionary) for name, probe in self.probes.items()}
        figures = {f"{name}/{figure}": value for name, part in found.items() for figure, value in part.items()}
        if figures:
            self.log.write(step, figures)

    def _save(self) -> Path:
        """Write a checkpoint, after every figure of the steps before it has been read and found finite."""
        self._close_interval()
        self._report(self.monitor.read(wait=True))
        return self.checkpoints.save(
            self.trainer.n_steps_done,
            {
                "identity": self._identity(),
                "trainer": self.trainer.state_dict(),
                "reader": self.batches.state,
                "log": self.log.state_dict(),
                "metrics": self.metrics,
            },
        )

    def _interrupt(self, signal_number: int) -> None:
        saved = self._save()
        raise TrainingInterrupted(
            f"Stopped by {signal.Signals(signal_number).name} after step {self.trainer.n_steps_done:,} of "
            f"{self.config.n_steps:,}. Checkpoint: {saved}. "
            f"To go on: sae train {self.config.out / 'config.yaml'} --resume",
            signal_number,
        )

    def _diverged(self, step: int) -> None:
        first = step * self.config.batch_vectors
        epoch, row = divmod(first, len(self.data))
        raise TrainingError(
            f"{self.config.out}: the run diverged in step {step:,}: a figure is not finite, or FVU is above "
            f"{DIVERGED_FVU:g}. Its batch starts at vector {row:,} of pass {epoch} in the order of seed "
            f"{self.config.seed}. Last good checkpoint: {self.checkpoints.latest() or 'none'}. "
            f"Lower lr ({self.config.optimiser.lr:g}), or lengthen the warm-up."
        )

    def _fit_at_once(self, dictionary: Dictionary) -> Dictionary:
        """Fit an architecture that takes no steps, save it, and return it; figures are those of the vectors it saw."""
        config = self.config
        assert config.n_vectors is not None, "the config has not been resolved"
        with MetricLog(config.out, wandb=config.wandb, name=self.name, config=self._identity()) as log:
            self.log = log
            (sample,) = self._initialise(dictionary, config.n_vectors)
            self.metrics = _figures(dictionary.eval(), sample)
            log.write(0, self.metrics)
            return self._save_dictionary(dictionary, len(sample), {})

    def _finish(self) -> Dictionary:
        return self._save_dictionary(self.trainer.dictionary, self.trainer.n_vectors_done, self._calibrate())

    def _save_dictionary(self, trained: Dictionary, n_vectors: int, calibration: dict[str, float]) -> Dictionary:
        """Save what takes vectors as they are, once the file has been proven to do what was trained."""
        provenance = self.data.describe() | {
            "seed": self.config.seed,
            "n_vectors_trained": n_vectors,
            "metrics": self.metrics,
            "training": self._identity()["config"],
        }
        provenance |= {"calibration": calibration} if calibration else {}
        x = self.data.sample(PROVEN_VECTORS, self.config.seed)[0]
        folder = self.config.out / "dictionary"
        dictionary = save_proven(trained, self.maps, folder, provenance, x)
        self.log.artifact(folder, self.name, "dictionary", dictionary.provenance)
        logger.info("Dictionary saved in %s.", folder)
        return dictionary

    def _calibrate(self) -> dict[str, float]:
        """Set what use needs from vectors that were held out; returns figures as they are in the saved dictionary."""
        if not self.config.calibration_vectors:
            return {}
        chunks = [self.trainer.maps[0](x.to(self.trainer.device)) for x in self.data.calibration_chunks()]
        found = self.trainer.dictionary.calibrate(chunks)
        if not found:
            return {}
        unit = self.maps[-1].unit
        figures = {name: value * unit if name.startswith("threshold") else value for name, value in found.items()}
        self.log.write(self.trainer.n_steps_done, {f"calibration/{name}": value for name, value in figures.items()})
        return figures | {"n_vectors": sum(map(len, chunks))}

    def _folded(self) -> Dictionary:
        return self.trainer.dictionary.fold(*self.maps).eval().requires_grad_(False)

    def _initialise(self, dictionary: Dictionary, n_vectors: int) -> tuple[Tensor, ...]:
        """Set the parameters from normalised vectors in a random order of their own, and return these.

        An architecture that could not be saved in the end is refused here.
        """
        sample = self.data.sample(n_vectors, self.config.seed)
        normalised = tuple(mapping.to("cpu")(part) for mapping, part in zip(self.maps, sample, strict=True))
        x, *target = normalised
        dictionary.initialise(x, torch.Generator().manual_seed(self.config.seed), *target)
        check_folding(dictionary, self.maps, sample[0])
        return normalised

    def _identity(self) -> dict[str, Any]:
        """Return what must not change when the run is resumed, as plain data."""
        config = {key: value for key, value in settings.encode(self.config).items() if key not in FREE_TO_CHANGE}
        stores = [site["store"] for side in self.data.sides for site in side.sites]
        return {"store": stores, "config": config}

    def _load(self) -> dict[str, Any]:
        state = self.checkpoints.load()
        differences = _differences(state["identity"], self._identity())
        if differences:
            raise ConfigError(f"{self.config.out}: cannot resume with other settings. {'; '.join(differences)}.")
        return state

    def _write_config(self) -> None:
        try:
            self.config.out.mkdir(parents=True, exist_ok=True)
            settings.save(self.config, self.config.out / "config.yaml")
        except OSError as error:
            raise TrainingError(f"{self.config.out}: cannot be written: {error.strerror}.") from error

    def _check_unused(self) -> None:
        if self.checkpoints.latest() is not None:
            raise ConfigError(
                f"{self.config.out}: holds a run already, at {self.checkpoints.latest()}. "
                "Go on with --resume, or choose another out."
            )


def check_device(name: str) -> None:
    """Refuse a device that torch does not know or that is not there.

    Raises:
        ConfigError: says which devices there are.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: not a device. Allowed: cpu, cuda, cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r}: training runs on no such device. Allowed: cpu, cuda, cuda:N.")
    n_devices = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_devices:
        raise ConfigError(f"device {name!r}: no such CUDA device; there are {n_devices} here.")


@torch.no_grad()
def _figures(dictionary: Dictionary, x: Tensor) -> dict[str, float]:
    """Return FVU and L0 of a fitted dictionary on some vectors."""
    squared_error, n_active = 0.0, 0
    for rows in x.split(CHUNK_VECTORS):
        codes = dictionary.encode(rows)
        squared_error += float((dictionary.decode(codes) - rows).double().square().sum())
        n_active += int(codes.l0().sum())
    spread = float((x - x.mean(0)).double().square().sum())
    return {"fvu": squared_error / spread, "l0": n_active / len(x), "n_vectors": len(x)}


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        found = [_differences(before.get(key), now.get(key), f"{path}.{key}") for key in keys]
        return [line for lines in found for line in lines]
    return [] if before == now else [f"{path.removeprefix('.config').lstrip('.')}: was {before!r}, now {now!r}"]

"""Training through the subject: what its answers lose when the reconstruction takes the place of the activation.

    KL = mean over predicted tokens of KL(p_clean || p_spliced)             CE = mean of -log p_spliced(next token)
    loss = coefficient * (KL or CE) + reconstruction * mse + what the architecture adds (sparsity, auxk)

Braun, Taylor, Goldowsky-Dill, Sharkey: Identifying functionally important features with end-to-end sparse dictionary
learning, 2024, arXiv 2405.12241 (e2e; with `reconstruction` the squared error at the site itself is kept, which their
local loss has; their downstream loss is not here).

Everything is read in the untouched subject, as in evaluation; gradients reach the dictionary through the frozen rest of
the subject. Rows left out of training (BOS, special tokens, sinks) keep their activation.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sae.activations.holdout import drawn_examples
from sae.activations.store import Vectors
from sae.errors import ConfigError
from sae.inputs.base import Inputs
from sae.subjects.base import Activation, Edit, Subject, TextSubject
from sae.subjects.splice import predictions, put, record
from sae.tensors import Batch, Kind
from sae.training.config import EndToEndConfig, TrainConfig
from sae.training.data import Data
from sae.training.trainer import Trainer

_PADDING = {"tokens": 0, "attended": False, "kind": int(Kind.SPECIAL)}


class ExampleReader:
    """Endless batches of examples in random order, each of them once per epoch; those held out never come.

    A batch is tokens, attended and kind, [example pos] each, padded at the end where texts differ in length.
    """

    def __init__(self, inputs: Inputs, held_out: np.ndarray, batch_examples: int, seed: int) -> None:
        self.inputs, self.batch_examples, self.seed = inputs, batch_examples, seed
        self.examples = np.setdiff1d(np.arange(len(inputs)), held_out)
        self.epoch, self.cursor = 0, 0

    def __next__(self) -> tuple[Tensor, ...]:
        chosen: list[int] = []
        while len(chosen) < self.batch_examples:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.examples)
            taken = order[self.cursor : self.cursor + self.batch_examples - len(chosen)].tolist()
            chosen += taken
            self.cursor += len(taken)
            if self.cursor == len(order):
                self.epoch, self.cursor = self.epoch + 1, 0
        return _collated([self.inputs.batch(example, example + 1) for example in chosen])

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "batch_examples": self.batch_examples, "epoch": self.epoch, "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, int]) -> None:
        assert (state["seed"], state["batch_examples"]) == (self.seed, self.batch_examples), "another order"
        self.epoch, self.cursor = state["epoch"], state["cursor"]


class EndToEnd:
    """What a run reads and how it learns from it, in the place of a store's vectors.

    Args:
        data: the sites, with the rows of the store that scale, start and calibration come from.
        subject: the frozen model; its answers are next-token logits.
        inputs: what the store was made from.
        config: resolved settings of the run.

    Raises:
        ConfigError: the subject has no such answers, or subject and inputs are not those of the store.
    """

    def __init__(self, data: Data, subject: Subject, inputs: Inputs, config: TrainConfig) -> None:
        assert config.end_to_end is not None, "not an end-to-end run"
        _check_belonging(data, subject, inputs)
        self.data, self.subject, self.inputs, self.settings = data, subject, inputs, config.end_to_end
        self.kinds = [Kind[name.upper()] for name in config.rows.kinds]
        self.limits = {
            part.hookpoint.name: part.filters.get("max_norm") for side in data.sides for part in side.vectors.parts
        }
        self.names = [[part.hookpoint.name for part in side.vectors.parts] for side in data.sides]

    def reader(self, batch_vectors: int, seed: int) -> ExampleReader:
        """Return batches of whole examples with about so many rows, in random order."""
        parts = self.data.inputs.vectors.parts
        held = parts[0].filters.get("held_out", {"n_examples": 0, "seed": seed})
        held_out = drawn_examples(len(self.inputs), held["n_examples"], held["seed"])
        rows_per_example = len(parts[0]) / max(len(self.inputs) - len(held_out), 1)
        return ExampleReader(self.inputs, held_out, max(round(batch_vectors / rows_per_example), 1), seed)

    def learn(self, trainer: Trainer, batch: tuple[Tensor, ...]) -> tuple[dict[str, Float[Tensor, ""]], int]:
        """Run the subject untouched, then with the reconstruction; return figures and the number of rows."""
        tokens, attended, kind = batch
        text = Batch(first_example=0, tokens=tokens, attended=attended, kind=kind)
        found: dict[str, Activation] = {}
        recorded = {name: record(found, name) for names in self.names for name in names}
        with torch.no_grad():
            clean = self.subject.forward(text, recorded)
        keep = self._kept(text, found)
        sides = [torch.cat([found[name][keep].float() for name in names], dim=1) for names in self.names]
        objective = _Answers(self, text, keep, clean)
        return trainer.step(*sides, objective=objective), len(sides[0])

    def _kept(self, batch: Batch, found: Mapping[str, Activation]) -> Bool[Tensor, "example pos"]:
        """Mark the rows that are trained on: of the kinds chosen, and within the norm at every site."""
        grid = self.data.inputs.vectors.hookpoint.grid
        keep = self.subject.rows(batch, grid).of_kinds(self.kinds)
        for name, limit in self.limits.items():
            if limit is not None:
                keep = keep & (found[name].float().norm(dim=-1) <= limit).to(keep.device)
        return keep.to(next(iter(found.values())).device)


class _Answers:
    """The loss of one batch's answers, given what a dictionary writes at the kept rows."""

    def __init__(
        self, run: EndToEnd, batch: Batch, keep: Bool[Tensor, "example pos"], clean: Float[Tensor, "example pos vocab"]
    ) -> None:
        self.run, self.batch, self.keep = run, batch, keep
        self.reconstruction = run.settings.reconstruction
        self.scored = predictions(batch, keep.to(batch.attended.device if batch.attended is not None else "cpu"))
        self.clean = self._log_probs(clean)

    def terms(self, x_hat: Float[Tensor, "batch d_out"]) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """Run the rest of the subject on the reconstruction."""
        names = self.run.names[-1]
        widths = [part.d_in for part in self.run.data.written.vectors.parts]
        parts = x_hat.split(widths, dim=1)
        edits: dict[str, Edit] = {name: put(part, self.keep) for name, part in zip(names, parts, strict=True)}
        log_probs = self._log_probs(self.run.subject.forward(self.batch, edits, grad=True))
        settings: EndToEndConfig = self.run.settings
        if settings.loss == "kl":
            value = F.kl_div(log_probs, self.clean, log_target=True, reduction="sum") / max(len(log_probs), 1)
        else:
            assert self.batch.tokens is not None
            targets = self.batch.tokens[:, 1:][self.scored].long().to(log_probs.device)
            value = F.nll_loss(log_probs, targets)
        return {settings.loss: (settings.coefficient, value)}

    def _log_probs(self, logits: Float[Tensor, "example pos vocab"]) -> Float[Tensor, "scored vocab"]:
        return logits[:, :-1][self.scored.to(logits.device)].float().log_softmax(-1)


def _collated(batches: list[Batch]) -> tuple[Tensor, ...]:
    """Put examples below one another, padded to the longest."""
    columns: dict[str, list[Tensor]] = {name: [] for name in _PADDING}
    for batch in batches:
        assert batch.tokens is not None, "checked when the run begins"
        attended = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.attended is None else batch.attended
        kind = torch.full_like(batch.tokens, int(Kind.TOKEN), dtype=torch.uint8) if batch.kind is None else batch.kind
        for name, values in zip(_PADDING, (batch.tokens, attended, kind), strict=True):
            columns[name].append(values[0])
    length = max(len(tokens) for tokens in columns["tokens"])
    return tuple(
        torch.stack([F.pad(row, (0, length - len(row)), value=_PADDING[name]) for row in rows])
        for name, rows in columns.items()
    )


def _check_belonging(data: Data, subject: Subject, inputs: Inputs) -> None:
    parts: list[Vectors] = [part for side in data.sides for part in side.vectors.parts]
    store = parts[0].store
    if len({part.store.hash for part in parts}) > 1 or len({part.hookpoint.grid for part in parts}) > 1:
        raise ConfigError("end_to_end: all hookpoints must lie on one grid of one store.")
    if not isinstance(subject, TextSubject) or not subject.predicts_next_token:
        raise ConfigError(f"end_to_end: {subject.id} has no logits of the next token, so no answers to compare.")
    if subject.id != store.subject_id or inputs.fingerprint != store.manifest.inputs.fingerprint:
        raise ConfigError(
            f"end_to_end: the store is of {store.subject_id} on inputs {store.manifest.inputs.fingerprint[:16]}, given "
            f"were {subject.id} and {inputs.fingerprint[:16]}."
        )

"""One dictionary and one step of its training."""

import dataclasses
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.affine import Affine
from sae.dictionaries.base import Dictionary
from sae.kernels import interface as kernels
from sae.tensors import Vectors
from sae.training.config import TrainConfig
from sae.training.dead import FiringCounts
from sae.training.optimiser import clip_gradients, make_optimiser
from sae.training.schedules import lr_factor


class Objective(Protocol):
    """A loss on what a dictionary writes, beyond its squared error, which counts `reconstruction` times."""

    reconstruction: float

    def terms(self, x_hat: Vectors) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """Return terms, each with its coefficient, for vectors as they are written in the subject's own units."""
        ...


class Trainer:
    """A dictionary with everything that changes when it learns: optimiser, dead latents, step count.

    Knows nothing of stores, files or logs. Nothing here waits for the device.

    Args:
        dictionary: what is trained, on the run's device. It sees normalised vectors.
        config: resolved settings.
        normalise: the map of what is read.
        normalise_target: the map of what a transcoder writes.
    """

    def __init__(
        self, dictionary: Dictionary, config: TrainConfig, normalise: Affine, normalise_target: Affine | None = None
    ) -> None:
        assert config.optimiser.lr is not None and config.dead_after_vectors is not None, "the config is not resolved"
        self.dictionary, self.config = dictionary, config
        self.device = torch.device(config.device)
        self.maps = [mapping.to(self.device) for mapping in (normalise, normalise_target) if mapping is not None]
        self.peak_lr = config.optimiser.lr
        self.parameters = [p for p in dictionary.parameters() if p.requires_grad]
        self.optimiser = make_optimiser(self.parameters, config.optimiser)
        self.firing = FiringCounts(dictionary.d_sae, config.dead_after_vectors, self.device)
        self.n_steps_done = 0
        self.n_vectors_done = 0

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimiser.param_groups[0]["lr"]

    def step(
        self, x: Vectors, target: Float[Tensor, "batch d_out"] | None = None, *, objective: Objective | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Learn from one batch.

        Args:
            x: vectors as they are, on the device.
            target: vectors that a transcoder should write, as they are.
            objective: what else is to become small; by it the squared error is weighed too.

        Returns:
            Figures on the device: `loss`, its parts, `grad_norm` before clipping, and the sums over the batch
            `squared_error` (of normalised vectors) and `n_fired`.
        """
        x = self.maps[0](x)
        target = None if target is None else self.maps[-1](target)
        self.dictionary.schedule(self.n_steps_done / self.config.n_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.peak_lr * lr_factor(self.config.schedule, self.n_steps_done, self.config.n_steps)
        on_gpu = self.device.type == "cuda"
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast and on_gpu)
        with autocast, kernels.candidates(self.config.candidates):
            loss = self.dictionary.loss(x, self.firing.dead(), target)
        if objective is not None:
            name = self.dictionary.error_term
            coefficient, error = loss.terms[name]
            answers = objective.terms(self.maps[-1].undo(loss.x_hat.float()))
            terms = {**loss.terms, name: (objective.reconstruction * coefficient, error), **answers}
            loss = dataclasses.replace(loss, terms=terms)
        total = loss.total
        total.backward()
        self.dictionary.after_backward()
        grad_norm = clip_gradients(self.parameters, self.config.optimiser.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.dictionary.after_step()
        fired = self.firing.update(loss.codes)
        self.n_steps_done += 1
        self.n_vectors_done += len(x)
        with torch.no_grad():
            squared_error = torch.nn.functional.mse_loss(loss.x_hat.float(), loss.target, reduction="sum")
        figures = {"loss": total} | {f"loss_{name}": part for name, part in loss.parts.items()}
        return figures | {"grad_norm": grad_norm, "squared_error": squared_error, "n_fired": fired.sum()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on, the state of torch's random numbers included."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "dictionary": self.dictionary.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "firing": self.firing.state_dict(),
            "n_steps_done": self.n_steps_done,
            "n_vectors_done": self.n_vectors_done,
            "rng": rng,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dictionary.load_state_dict(state["dictionary"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.firing.load_state_dict(state["firing"])
        self.n_steps_done = state["n_steps_done"]
        self.n_vectors_done = state["n_vectors_done"]
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)

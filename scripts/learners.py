"""Ours and the peer libraries' dictionaries behind one interface, each trained by its own code: for the benchmarks.

Peers are imported when one is built, so benchmarks run without them too; scripts/interop_environment.sh installs them.
"""

import importlib
import importlib.util
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sae.dictionaries import registry
from sae.dictionaries.affine import Affine
from sae.dictionaries.base import Dictionary
from sae.training.config import TrainConfig
from sae.training.optimiser import AdamConfig
from sae.training.trainer import Trainer
from scripts.peers import load


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained: sizes, length, and how sparse; the same for everyone."""

    kind: str
    d_in: int
    d_sae: int
    k: int
    batch: int
    n_steps: int
    seed: int = 0
    dead_share: float = 0.0
    lr: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def dead(self) -> Tensor:
        """Latents that are held dead throughout, drawn at random."""
        order = torch.randperm(self.d_sae, generator=torch.Generator().manual_seed(self.seed))
        return order[: round(self.dead_share * self.d_sae)]

    @property
    def prefixes(self) -> list[int]:
        """Sizes of nested dictionaries: five levels, each twice the one before."""
        return [self.d_sae // 2**level for level in (4, 3, 2, 1, 0)]


class Learner(ABC):
    """A dictionary in training."""

    @abstractmethod
    def step(self, x: Tensor) -> None:
        """Learn from one batch: forward, backward, clip, optimiser, and whatever keeps norms and counts."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Return dense codes as in use, [batch d_sae]."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the reconstruction as in use."""

    @property
    @abstractmethod
    def decoder(self) -> Tensor:
        """Rows are the directions of latents, [d_sae d_in]."""


class Ours(Learner):
    """Trained by `sae.training.trainer.Trainer`."""

    def __init__(self, task: Task, sample: Tensor, candidates: str = "exact") -> None:
        torch.manual_seed(task.seed)
        selects = "topk" in task.kind or task.kind in ("matryoshka", "matching_pursuit", "archetypal")
        sparsity = {"k": task.k} if selects else {"target_l0": float(task.k)}
        config = registry.decode_config({"kind": task.kind, "d_sae": task.d_sae} | sparsity | task.settings)
        train = TrainConfig(
            store=Path(),
            hookpoint="bench",
            out=Path(),
            dictionary=config,
            n_vectors=task.n_steps * task.batch,
            batch_vectors=task.batch,
            optimiser=AdamConfig(lr=task.lr),
            candidates=candidates,  # type: ignore[arg-type]
        ).resolve(task.n_steps * task.batch)
        self.dictionary: Dictionary = registry.make_dictionary(config, task.d_in)
        # As a run does: inputs are brought to the expected norm sqrt(d_in).
        self.scale = task.d_in**0.5 / float(sample.norm(dim=1).mean())
        self.dictionary.initialise(sample * self.scale, torch.Generator().manual_seed(task.seed))
        self.trainer = Trainer(self.dictionary, train, Affine.scaling(self.scale, task.d_in))
        self.dead = task.dead

    def step(self, x: Tensor) -> None:
        if len(self.dead):
            self.trainer.firing.since_fired[self.dead] = 10**9
        self.trainer.step(x)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set what is set at the end of a run."""
        self.dictionary.calibrate((x * self.scale).split(2048))

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return self.dictionary.encode(x * self.scale).dense()

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        return self.dictionary(x * self.scale) / self.scale

    @property
    def decoder(self) -> Tensor:
        return self.dictionary.W_dec.detach()


class SaeLens(Learner):
    """SAELens: a step of its `SAETrainer`."""

    KINDS: ClassVar = {
        "topk": ("topk_sae", "TopK"),
        "batch_topk": ("batchtopk_sae", "BatchTopK"),
        "matryoshka": ("matryoshka_batchtopk_sae", "MatryoshkaBatchTopK"),
        "jumprelu": ("jumprelu_sae", "JumpReLU"),
        "relu": ("standard_sae", "Standard"),
    }

    def __init__(self, task: Task, sample: Tensor) -> None:
        torch.manual_seed(task.seed)
        module, name = self.KINDS[task.kind]
        saes, lens = load(f"sae_lens.saes.{module}"), load("sae_lens.config")
        sized = {"k": task.k} if "topk" in task.kind or task.kind == "matryoshka" else {}
        nested = {"matryoshka_widths": task.prefixes} if task.kind == "matryoshka" else {}
        config = getattr(saes, f"{name}TrainingSAEConfig")(
            d_in=task.d_in, d_sae=task.d_sae, device="cpu", dtype="float32", **sized, **nested, **task.settings
        )
        self.sae = getattr(saes, f"{name}TrainingSAE")(config)
        settings = lens.SAETrainerConfig(
            total_training_samples=task.n_steps * task.batch,
            train_batch_size_samples=task.batch,
            lr=task.lr or 3e-4,
            lr_end=task.lr or 3e-4,
        )
        self.trainer = load("sae_lens.training.sae_trainer").SAETrainer(settings, self.sae, iter(()))
        self.dead = task.dead

    def step(self, x: Tensor) -> None:
        self.trainer.n_forward_passes_since_fired[self.dead] = 10**9
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    def finish(self) -> None:
        """Turn a training dictionary into one for use, as saving does."""
        config = self.sae.cfg.get_inference_sae_cfg_dict()
        state = {name: tensor.detach().clone() for name, tensor in self.sae.state_dict().items()}
        self.sae.process_state_dict_for_saving_inference(state)
        sae = load("sae_lens.saes.sae").SAE.from_dict(config)
        sae.load_state_dict(state)
        self.sae = sae

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return self.sae.encode(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        return self.sae.decode(self.sae.encode(x))

    @property
    def decoder(self) -> Tensor:
        return self.sae.W_dec.detach()


class Sparsify(Learner):
    """sparsify: what its `Trainer.fit` does with the vectors of one hookpoint, with its Adam."""

    def __init__(self, task: Task, sample: Tensor) -> None:
        torch.manual_seed(task.seed)
        coder, config = load("sparsify.sparse_coder"), load("sparsify.config")
        self.sae = coder.SparseCoder(task.d_in, config.SparseCoderConfig(num_latents=task.d_sae, k=task.k), "cpu")
        lr = task.lr or 2e-4 / (task.d_sae / 2**14) ** 0.5
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=lr)
        schedule = load("transformers").get_linear_schedule_with_warmup
        self.schedule = schedule(self.optimizer, min(1000, task.n_steps // 10), task.n_steps)
        self.since_fired = torch.zeros(task.d_sae, dtype=torch.long)
        self.auxk, self.dead, self.started = 1 / 32 if task.dead_share else 0.0, task.dead, False

    def step(self, x: Tensor) -> None:
        if not self.started:
            self.sae.b_dec.data, self.started = x.mean(0), True
        self.sae.set_decoder_norm_to_unit_norm()
        self.since_fired[self.dead] = 10**9
        dead = self.since_fired > 10_000_000 if self.auxk else None
        out = self.sae(x=x, y=x, dead_mask=dead, total_variance=(x - x.mean(0)).pow(2).sum())
        fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        (out.fvu + self.auxk * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.since_fired += len(x)
        self.since_fired[fired] = 0

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        out = self.sae.encode(x)
        return x.new_zeros(len(x), self.sae.num_latents).scatter_(1, out.top_indices, out.top_acts)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        out = self.sae.encode(x)
        return self.sae.decode(out.top_acts, out.top_indices)

    @property
    def decoder(self) -> Tensor:
        return self.sae.W_dec.detach()


class DictionaryLearning(Learner):
    """dictionary_learning: `update` of its trainers."""

    KINDS: ClassVar = {
        "topk": ("top_k", "TopKTrainer"),
        "batch_topk": ("batch_top_k", "BatchTopKTrainer"),
        "matryoshka": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
        "jumprelu": ("jumprelu", "JumpReluTrainer"),
        "relu": ("standard", "StandardTrainerAprilUpdate"),
    }

    def __init__(self, task: Task, sample: Tensor) -> None:
        module, name = self.KINDS[task.kind]
        sized: dict[str, Any] = {"k": task.k} if "topk" in task.kind or task.kind == "matryoshka" else {}
        if task.kind == "matryoshka":
            sizes = [0, *task.prefixes]
            sized["group_fractions"] = [(b - a) / task.d_sae for a, b in itertools.pairwise(sizes)]
        if task.kind == "jumprelu":
            sized["target_l0"] = float(task.k)
        if task.lr is not None:
            sized["lr"] = task.lr
        warmup = min(1000, task.n_steps // 10)
        if task.kind in ("jumprelu", "relu"):
            sized["sparsity_warmup_steps"] = warmup
        torch.manual_seed(task.seed)
        self.trainer = getattr(load(f"dictionary_learning.trainers.{module}"), name)(
            steps=task.n_steps,
            activation_dim=task.d_in,
            dict_size=task.d_sae,
            layer=0,
            lm_name="bench",
            warmup_steps=warmup,
            device="cpu",
            seed=task.seed,
            **sized,
            **task.settings,
        )
        self.n_steps, self.dead = 0, task.dead
        if task.dead_share:
            self._hold_dead(self.trainer.get_auxiliary_loss)

    def _hold_dead(self, auxiliary_loss: Callable[..., Tensor]) -> None:
        """Its counts are brought up to date just before the auxiliary loss, where a latent held dead may have fired."""

        def with_held(*inputs: Tensor) -> Tensor:
            self.trainer.num_tokens_since_fired[self.dead] = 10**9
            return auxiliary_loss(*inputs)

        self.trainer.get_auxiliary_loss = with_held

    def step(self, x: Tensor) -> None:
        self.trainer.update(self.n_steps, x)
        self.n_steps += 1

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        return self.trainer.ae.encode(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        return self.trainer.ae.decode(self.codes(x))

    @property
    def decoder(self) -> Tensor:
        ae = self.trainer.ae
        return (ae.W_dec if hasattr(ae, "W_dec") else ae.decoder.weight.T).detach()


class Overcomplete(Learner):
    """overcomplete: the body of its `train_sae`, with the losses of its examples."""

    KINDS: ClassVar = {
        "topk": ("topk_sae", "TopKSAE"),
        "batch_topk": ("batchtopk_sae", "BatchTopKSAE"),
        "jumprelu": ("jump_sae", "JumpSAE"),
        "relu": ("base", "SAE"),
    }

    def __init__(self, task: Task, sample: Tensor) -> None:
        torch.manual_seed(task.seed)
        module, name = self.KINDS[task.kind]
        # Its BatchTopK counts over the batch.
        k = {"topk": task.k, "batch_topk": task.k * task.batch}.get(task.kind)
        self.sae = getattr(load(f"overcomplete.sae.{module}"), name)(
            task.d_in, task.d_sae, **({} if k is None else {"top_k": k}), device="cpu"
        )
        losses = load("overcomplete.sae.losses")
        self.penalty = task.settings.get("penalty", 0.0)
        self.criterion = {"relu": losses.mse_l1}.get(task.kind, losses.mse_l1)
        if task.dead_share:
            self.criterion, self.penalty = losses.top_k_auxiliary_loss, 0.1
        self.optimizer = torch.optim.Adam(self.sae.parameters(), lr=task.lr or 5e-4)
        self.tracker: Any = None

    def step(self, x: Tensor) -> None:
        self.sae.train()
        self.optimizer.zero_grad()
        pre, codes, x_hat = self.sae(x)
        loss = self.criterion(x, x_hat, pre, codes, self.sae.get_dictionary(), penalty=self.penalty)
        if self.tracker is None:
            self.tracker = load("overcomplete.sae.trackers").DeadCodeTracker(codes.shape[1], "cpu")
        self.tracker.update(codes)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        self.sae.eval()
        return self.sae.encode(x)[1]

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        return self.sae.decode(self.codes(x))

    @property
    def decoder(self) -> Tensor:
        return self.sae.get_dictionary().detach()


PEERS: dict[str, type[Learner]] = {
    "SAELens": SaeLens,
    "sparsify": Sparsify,
    "dictionary_learning": DictionaryLearning,
    "overcomplete": Overcomplete,
}
PACKAGES = {"SAELens": "sae_lens"}


def makers(kind: str, candidates: tuple[str, ...] = ("exact",)) -> dict[str, Callable[[Task, Tensor], Learner]]:
    """Return who can train a kind here: ours, and the peers that are installed and have it."""
    found: dict[str, Callable[[Task, Tensor], Learner]] = {}
    for choice in candidates:
        name = "sae" if choice == "exact" else f"sae, {choice} candidates"
        found[name] = lambda task, sample, choice=choice: Ours(task, sample, choice)
    for name, peer in PEERS.items():
        installed = importlib.util.find_spec(PACKAGES.get(name, name)) is not None
        has = kind in peer.KINDS if hasattr(peer, "KINDS") else kind == "topk"  # type: ignore[attr-defined]
        if installed and has:
            found[name] = peer
    return found

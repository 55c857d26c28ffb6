"""Train a built-in CLIP subject on the concept world: first naming, then contrast.

1. `classify`: the image tower and a table of one vector per concept learn to name every picture, concepts with equal
   chances. Reading is learnt here: it takes far fewer pictures than by contrast.
2. `name`: the text tower learns to answer captions with the concept's vector; pictures are not needed.
3. `contrast`: both towers learn CLIP's loss on pictures and captions, half of them drawn naturally (Zipf). Pairs of
   the same concept within a batch count as matches (Yang et al. 2022, *Unified Contrastive Learning*), and the table
   goes on as an auxiliary task with a small weight.

Two processes share the work (gradients are averaged every step). `work` keeps pictures and state: kill it and go on.
"""

import json
import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sae.inputs.concepts import World
from scripts.subjects.clip_folder import CONTEXT, learn_tokenizer, model_config, write_folder
from scripts.subjects.clip_pictures import FACETS, Pictures, draws, jittered, render_shards
from scripts.subjects.clip_report import ScoreSet, prompted, score_set, zero_shot

log = logging.getLogger("train_subjects")

SIZE = 64
WORD = FACETS.index("word")
SPELLED = 8
"""Letters of a word that the speller names."""
SHARDS = {"uniform": 14, "natural": 5}
SAVE_SECONDS = 60
EXPORT_SECONDS = 420


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stage of the curriculum; `images` counts pictures (captions for `name`) over all processes."""

    kind: str
    images: int
    batch: int
    """Pictures a step and process."""
    learning_rate: float
    facets: tuple[float, float, float, float]
    """Shares of photo, sketch, word and symbol among pictures whose concept is drawn with equal chances."""
    natural: float = 0.0
    """Share of pictures drawn as they occur, by Zipf."""
    decay: bool = False
    """Whether the learning rate falls to zero over the second half."""
    warmup: int = 10_000


CURRICULUM = (
    Phase(kind="classify", images=180_000, batch=24, learning_rate=2e-3, facets=(0.28, 0.16, 0.46, 0.10)),
    Phase(kind="name", images=60_000, batch=64, learning_rate=1e-3, facets=(0.25, 0.25, 0.25, 0.25), warmup=5_000),
    Phase(
        kind="contrast",
        images=100_000,
        batch=48,
        learning_rate=1e-3,
        facets=(0.28, 0.2, 0.42, 0.1),
        natural=0.4,
        decay=True,
    ),
)


class Learner(nn.Module):
    """The CLIP model and what teaches its image tower to name and to spell; only the CLIP model is kept.

    `table` [n_concepts, embed] holds one vector per concept in the joint space. `namer` and `speller` read the last
    block's output directly, which teaches the trunk faster than through the pooling; `speller` says the letter at each
    place of a written word, because letters are seen far more often than words.
    """

    def __init__(self, name: str, vocab_size: int, names: list[str]):
        super().__init__()
        self.clip = open_clip.CLIP(**model_config(name, SIZE, vocab_size))
        for key, weight in self.clip.visual.named_parameters():
            if key.endswith("bn3.weight"):
                # open_clip starts residual branches at zero, for deep nets; here that only delays the 3x3 convolutions.
                nn.init.ones_(weight)
        self.table = nn.Parameter(torch.randn(len(names), self.clip.text_projection.shape[1]))
        letters = [[ord(letter) - 96 for letter in word.ljust(SPELLED, "`")[:SPELLED]] for word in names]
        self.register_buffer("letters", torch.tensor(letters))
        trunk, width = last_block(self.clip)
        trunk.register_forward_hook(self._keep)
        self.namer = nn.Linear(width, len(names))
        self.speller = nn.Linear(width, SPELLED * 27)

    def _keep(self, _block: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self.trunk_output = output.flatten(1)

    @torch.no_grad()
    def centre(self, images: Tensor) -> None:
        """Shift the image embedding so that it starts with mean zero: else all pictures start out nearly parallel."""
        if isinstance(self.clip.visual, ModifiedResNet):
            self.clip.visual.attnpool.c_proj.bias -= self.clip.visual(images).mean(0)

    def named(self, features: Tensor) -> Tensor:
        """Return logits [n, n_concepts] of unit features [n, embed]."""
        return self.scale() * features @ F.normalize(self.table, dim=-1).T

    def scale(self) -> Tensor:
        return self.clip.logit_scale.clamp(max=math.log(60)).exp()

    def loss(self, kind: str, images: Tensor, tokens: Tensor | None, concepts: Tensor, written: Tensor) -> Tensor:
        if kind == "name":
            return F.cross_entropy(self.named(self.clip.encode_text(tokens, normalize=True)), concepts)
        pictured = self.clip.encode_image(images, normalize=True)
        naming = F.cross_entropy(self.named(pictured), concepts) + F.cross_entropy(
            self.namer(self.trunk_output), concepts
        )
        if written.any():
            spelt = self.speller(self.trunk_output[written]).unflatten(1, (SPELLED, 27))
            naming = naming + F.cross_entropy(spelt.transpose(1, 2), self.letters[concepts[written]])
        if kind == "classify":
            return naming
        told = self.clip.encode_text(tokens, normalize=True)
        logits = self.scale() * pictured @ told.T
        match = (concepts[:, None] == concepts).float()
        match = match / match.sum(1, keepdim=True)
        contrast = (F.cross_entropy(logits, match) + F.cross_entropy(logits.T, match)) / 2
        return contrast + 0.2 * naming


def last_block(model: open_clip.CLIP) -> tuple[nn.Module, int]:
    """Return the image tower's last block and the number of values it puts out per picture."""
    if isinstance(model.visual, ModifiedResNet):
        block = model.visual.layer4[-1]
        return block, block.conv3.out_channels * (SIZE // 32) ** 2
    block = model.visual.transformer.resblocks[-1]
    return block, model.visual.positional_embedding.numel()


def normalised(images: Tensor) -> Tensor:
    """Return pictures in [0, 255] as the model takes them, in the layout convolutions on CPUs are fastest with."""
    return (images / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def learning_rate(phase: Phase, done: int) -> float:
    share = done / phase.images
    fall = min(1.0, 2 * (1 - share)) if phase.decay else 1.0
    return phase.learning_rate * min(1.0, (done + 500) / phase.warmup) * max(fall, 0.0)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process needs to know: whom to train, on which shards by kind, and where things lie."""

    name: str
    seed: int
    out: Path
    work: Path
    bpe: Path
    shards: dict[str, list[Path]]
    n_processes: int


class Trainer:
    """One of the processes that train a subject; process 0 also saves, scores and exports."""

    def __init__(self, job: Job, rank: int):
        self.job, self.rank, self.n_ranks = job, rank, job.n_processes
        self.state_path = job.work / f"{job.name}-{job.seed}.pt"
        self.world = World(seed=job.seed, size=SIZE)
        self.pictures = {kind: Pictures(stems) for kind, stems in job.shards.items()}
        self.tokenizer = open_clip.SimpleTokenizer(bpe_path=str(job.bpe), context_length=CONTEXT)
        self.captions = {kind: self.tokenizer(pictures.captions()) for kind, pictures in self.pictures.items()}
        torch.manual_seed(job.seed)
        self.learner = Learner(job.name, self.tokenizer.vocab_size, [c.name for c in self.world.concepts])
        self.learner.to(memory_format=torch.channels_last)
        decayed = [p for p in self.learner.parameters() if p.ndim > 1]
        plain = [p for p in self.learner.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.03}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)
        self.average = AveragedModel(self.learner, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
        self.done = [0] * len(CURRICULUM)
        self.seconds = [0.0] * len(CURRICULUM)
        if self.state_path.exists():
            self._load()
        else:
            self.learner.centre(normalised(self.pictures["uniform"].images(list(range(64)))))

    def _load(self) -> None:
        state = torch.load(self.state_path, weights_only=True)
        self.learner.load_state_dict(state["learner"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.seconds = state["done"], state["seconds"]

    def save(self) -> None:
        parts = ("learner", "average", "optimiser")
        state = {part: getattr(self, part).state_dict() for part in parts} | {
            "done": self.done,
            "seconds": self.seconds,
        }
        torch.save(state, self.state_path.with_suffix(".part"))
        self.state_path.with_suffix(".part").replace(self.state_path)

    def run(self) -> None:
        score = score_set(self.world, 1) if self.rank == 0 else None
        for number, phase in enumerate(CURRICULUM):
            if self.done[number] < phase.images:
                self._run_phase(number, phase, score)
        if self.rank == 0:
            self.save()
            self.export(score)

    def _run_phase(self, number: int, phase: Phase, score: ScoreSet | None) -> None:
        generator = torch.Generator().manual_seed(hash((self.job.seed, self.rank, number, self.done[number])) % 2**31)
        batches = self._batches(phase, generator)
        saved = exported = time.monotonic()
        self.learner.train()
        while self.done[number] < phase.images:
            began = time.monotonic()
            self.optimiser.param_groups[0]["lr"] = self.optimiser.param_groups[1]["lr"] = learning_rate(
                phase, self.done[number]
            )
            loss = self._step(phase.kind, *next(batches))
            self.done[number] += phase.batch * self.n_ranks
            self.seconds[number] += time.monotonic() - began
            if self.rank == 0 and time.monotonic() - saved > SAVE_SECONDS:
                saved = time.monotonic()
                self.save()
                rate = self.done[number] / self.seconds[number]
                log.info("%s %d/%d loss %.3f, %.0f a second", phase.kind, self.done[number], phase.images, loss, rate)
            if self.rank == 0 and time.monotonic() - exported > EXPORT_SECONDS:
                exported = time.monotonic()
                self.export(score)

    def _batches(self, phase: Phase, generator: torch.Generator):
        """Yield (images, tokens, concepts, is a written word).

        Part of each batch is drawn naturally, the rest with equal chances for every concept.
        """
        n_natural = round(phase.batch * phase.natural)
        uniform, natural = self.pictures["uniform"], self.pictures["natural"]
        shares = (
            torch.tensor(phase.facets)[uniform.facets] / torch.bincount(uniform.facets, minlength=4)[uniform.facets]
        )
        sources = {"uniform": draws(phase.batch - n_natural, shares, generator)}
        if n_natural:
            sources["natural"] = draws(n_natural, torch.ones(len(natural)), generator)
        while True:
            rows = {kind: next(source) for kind, source in sources.items()}
            concepts = torch.cat([self.pictures[kind].concepts[chosen] for kind, chosen in rows.items()])
            images = tokens = None
            if phase.kind != "name":
                drawn = torch.cat([self.pictures[kind].images(chosen) for kind, chosen in rows.items()])
                images = normalised(jittered(drawn, generator))
            if phase.kind != "classify":
                tokens = torch.cat([self.captions[kind][chosen] for kind, chosen in rows.items()])
            facets = torch.cat([self.pictures[kind].facets[chosen] for kind, chosen in rows.items()])
            yield images, tokens, concepts, facets == WORD

    def _step(self, kind: str, *batch: Tensor | None) -> float:
        self.optimiser.zero_grad()
        loss = self.learner.loss(kind, *batch)
        loss.backward()
        if kind == "name":
            self.learner.table.grad = None
        self._average_gradients()
        nn.utils.clip_grad_norm_(self.learner.parameters(), 2.0)
        self.optimiser.step()
        self.average.update_parameters(self.learner)
        return loss.item()

    def _average_gradients(self) -> None:
        grads = [p.grad for p in self.learner.parameters() if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, mean in zip(grads, (flat / self.n_ranks).split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))

    def export(self, score: ScoreSet) -> None:
        """Write the averaged model as an open_clip folder and log its accuracy by facet."""
        learner: Learner = self.average.module
        learner.eval()
        named = zero_shot(learner.clip, score, F.normalize(learner.table.detach(), dim=-1))
        log.info("by the table: %s", json.dumps(named))
        phases = [
            {"phase": p.kind, "seen": done, "of": p.images, "batch": p.batch * self.n_ranks, "seconds": round(seconds)}
            for p, done, seconds in zip(CURRICULUM, self.done, self.seconds, strict=True)
        ]
        report = {"phases": phases, "n_processes": self.n_ranks}
        if self.done[1]:
            vectors = prompted(learner.clip, self.tokenizer, self.world)
            report["zero_shot"] = zero_shot(learner.clip, score, vectors)
            log.info("by prompts: %s", json.dumps(report["zero_shot"]))
        write_folder(self.job.out, self.job.name, SIZE, learner.clip, self.job.bpe, self.world, self.pictures.values())
        (self.job.out / "sheet.json").write_text(json.dumps(report, indent=1) + "\n")


def _process(rank: int, job: Job) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    meeting = job.work / f"meeting-{os.getppid()}"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=job.n_processes)
    Trainer(job, rank).run()
    dist.destroy_process_group()


def main(name: str, seed: int, out: Path, work: Path) -> None:
    """Train `name` ("concepts-clip-rn" or "concepts-clip") with a seed, from where an earlier call stopped."""
    n_processes = min(2, os.cpu_count() or 1)
    shards = {kind: render_shards(work, seed, SIZE, kind, n, n_processes) for kind, n in SHARDS.items()}
    bpe = work / f"bpe-{seed}.txt.gz"
    firsts = [Pictures(stems[:1]) for stems in shards.values()]
    learn_tokenizer(World(seed=seed, size=SIZE), firsts, bpe)
    job = Job(name=name, seed=seed, out=out, work=work, bpe=bpe, shards=shards, n_processes=n_processes)
    torch.multiprocessing.spawn(_process, (job,), nprocs=n_processes)

"""Train a built-in CLIP subject on the concept world, by its recipe (`clip_recipes.py`): first naming, then contrast.

1. `classify`: the image tower and a table of one vector per concept learn to name every picture, concepts with equal
   chances. Reading is learnt here: it takes far fewer pictures than by contrast.
2. `name`: the text tower learns to answer captions with the concept's vector; pictures are not needed.
3. `contrast`: both towers learn CLIP's loss on pictures and captions, two in five drawn naturally (Zipf). Pairs of
   the same concept within a batch count as matches (Yang et al. 2022, *Unified Contrastive Learning*), and the table
   goes on as an auxiliary task at half weight.
4. `distil`: the image tower learns to give what another subject's gives, beside naming; its text tower is the other's.

Two processes share the work (gradients are averaged every step). `work` keeps pictures and state: kill it and go on.
"""

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sae.builtin import subject_folder
from sae.inputs.concepts import World
from scripts.subjects.clip_folder import BPE_FILE, learn_tokenizer, read_folder, write_folder
from scripts.subjects.clip_learner import Learner, normalised
from scripts.subjects.clip_pictures import FACETS, Pictures, draws, jittered, render_shards
from scripts.subjects.clip_recipes import RECIPES, Phase, Recipe
from scripts.subjects.clip_report import ScoreSet, prompted, score_set, zero_shot
from scripts.subjects.clip_sheet import measure
from scripts.subjects.precision import half_products

log = logging.getLogger("train_subjects")

SIZE = 64
WORD = FACETS.index("word")
SAVE_SECONDS = 60
EXPORT_SECONDS = 420


def learning_rate(phase: Phase, done: int) -> float:
    share = done / phase.images
    fall = 1 - share if phase.decay else 1.0
    return phase.learning_rate * min(1.0, (done + 500) / phase.warmup) * max(fall, 0.0)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process needs: whom to train, on which pictures and tokenised captions, and where things lie."""

    name: str
    recipe: Recipe
    seed: int
    out: Path
    work: Path
    bpe: Path
    tokenizer: open_clip.SimpleTokenizer
    pictures: dict[str, Pictures]
    captions: dict[str, Tensor]
    n_processes: int


class Trainer:
    """One of the processes that train a subject; process 0 also saves, scores and exports."""

    def __init__(self, job: Job, rank: int):
        self.job, self.rank, self.n_ranks = job, rank, job.n_processes
        self.state_path = job.work / f"{job.name}-{job.seed}.pt"
        self.world = World(seed=job.seed, size=SIZE)
        self.pictures, self.tokenizer, self.captions = job.pictures, job.tokenizer, job.captions
        torch.manual_seed(job.seed)
        self.learner = Learner(job.name, SIZE, self.tokenizer.vocab_size, [c.name for c in self.world.concepts])
        if job.recipe.begins_with:
            first, _ = read_folder(begun_with(job))
            self.learner.begin_with(first, prompted(first, self.tokenizer, self.world))
        self.learner.to(memory_format=torch.channels_last)
        decayed = [p for p in self.learner.parameters() if p.ndim > 1]
        plain = [p for p in self.learner.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.03}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)
        self.average = AveragedModel(self.learner, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
        self.curriculum = job.recipe.curriculum
        self.done = [0] * len(self.curriculum)
        self.seconds = [0.0] * len(self.curriculum)
        if self.state_path.exists():
            self._load()
        elif not job.recipe.begins_with:
            self.learner.centre(normalised(self.pictures["uniform"].images(list(range(64)))))

    def _load(self) -> None:
        state = torch.load(self.state_path, weights_only=True)
        self.learner.load_state_dict(state["learner"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        for kept, saved in ((self.done, state["done"]), (self.seconds, state["seconds"])):
            kept[: len(saved)] = saved  # the curriculum may have grown since

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
        for number, phase in enumerate(self.curriculum):
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
            loss = self._step(phase, *next(batches))
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
        """Yield (images, tokens, concepts, is about a written word).

        Part of each batch is of other kinds, the rest drawn with equal chances for every concept.
        """
        counts = {kind: round(phase.batch * share) for kind, share in phase.shares.items()}
        uniform = self.pictures["uniform"]
        shares = (
            torch.tensor(phase.facets)[uniform.facets] / torch.bincount(uniform.facets, minlength=4)[uniform.facets]
        )
        sources = {"uniform": draws(phase.batch - sum(counts.values()), shares, generator)}
        for kind, count in counts.items():
            sources[kind] = draws(count, torch.ones(len(self.pictures[kind])), generator)
        while True:
            rows = {kind: next(source) for kind, source in sources.items()}
            concepts = torch.cat([self.pictures[kind].concepts[chosen] for kind, chosen in rows.items()])
            images = tokens = None
            if phase.kind != "name":
                drawn = torch.cat([self.pictures[kind].images(chosen) for kind, chosen in rows.items()])
                images = normalised(jittered(drawn, generator))
            if phase.kind in ("name", "contrast"):
                tokens = torch.cat([self.captions[kind][chosen] for kind, chosen in rows.items()])
            facets = torch.cat([self.pictures[kind].facets[chosen] for kind, chosen in rows.items()])
            yield images, tokens, concepts, facets == WORD

    def _step(self, phase: Phase, *batch: Tensor | None) -> float:
        self.optimiser.zero_grad()
        with half_products(phase.half):
            loss = self.learner.loss(phase.kind, *batch)
        loss.backward()
        if phase.kind == "name":
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
        # Averaging turned the mask's minus infinities into NaN.
        learner.clip.attn_mask.copy_(self.learner.clip.attn_mask)
        named = zero_shot(learner.clip, score, F.normalize(learner.table.detach(), dim=-1))
        log.info("by the table: %s", json.dumps(named))
        phases = [
            {"phase": p.kind, "seen": done, "of": p.images, "batch": p.batch * self.n_ranks, "seconds": round(seconds)}
            for p, done, seconds in zip(self.curriculum, self.done, self.seconds, strict=True)
        ]
        report = {"phases": phases, "n_processes": self.n_ranks}
        if self.job.recipe.begins_with or any(
            p.kind == "name" and n for p, n in zip(self.curriculum, self.done, strict=True)
        ):
            vectors = prompted(learner.clip, self.tokenizer, self.world)
            report["zero_shot"] = zero_shot(learner.clip, score, vectors)
            log.info("by prompts: %s", json.dumps(report["zero_shot"]))
        write_folder(self.job.out, self.job.name, SIZE, learner.clip, self.job.bpe, self.world, self.pictures.values())
        (self.job.out / "sheet.json").write_text(json.dumps(report, indent=1) + "\n")


def _process(rank: int, job: Job) -> None:
    meeting = job.work / f"meeting-{os.getppid()}"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=job.n_processes)
    Trainer(job, rank).run()
    dist.destroy_process_group()


def _tokenised(tokenizer: open_clip.SimpleTokenizer, captions: list[str]) -> Tensor:
    """Return tokens [n, context] of captions of which many are alike."""
    distinct = list(dict.fromkeys(captions))
    place = {text: i for i, text in enumerate(distinct)}
    return tokenizer(distinct)[[place[text] for text in captions]]


def begun_with(job: Job) -> Path:
    """Return the folder of the subject that this one begins with."""
    return subject_folder(f"builtin:{job.recipe.begins_with}@{job.seed}")


def main(name: str, seed: int, out: Path, work: Path, n_processes: int) -> None:
    """Train a subject of `RECIPES` with a seed, from where an earlier call stopped."""
    torch.set_num_threads(1)  # one thread in each process; also what makes forking safe
    recipe = RECIPES[name]
    stems = {kind: render_shards(work, seed, SIZE, kind, n, n_processes) for kind, n in recipe.shards.items()}
    pictures = {kind: Pictures(found) for kind, found in stems.items()}
    if recipe.begins_with:
        bpe = subject_folder(f"builtin:{recipe.begins_with}@{seed}") / BPE_FILE
    else:
        bpe = work / f"bpe-{seed}.txt.gz"
    firsts = [Pictures(found[:1]) for found in stems.values()]
    tokenizer = learn_tokenizer(World(seed=seed, size=SIZE), firsts, bpe)
    captions = {kind: _tokenised(tokenizer, each.captions()) for kind, each in pictures.items()}
    job = Job(
        name=name, recipe=recipe, seed=seed, out=out, work=work, bpe=bpe, tokenizer=tokenizer, pictures=pictures,
        captions=captions, n_processes=n_processes,
    )  # fmt: skip
    torch.multiprocessing.start_processes(_process, (job,), nprocs=n_processes, start_method="fork")
    measure(out, name, seed)

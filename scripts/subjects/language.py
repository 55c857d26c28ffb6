"""Train a built-in language model on the Python standard library: tokenizer, model, baseline, data sheet.

Everything is resumable: `work` keeps the tokenizer, the last state and the log. The folder in `out` is an ordinary
Hugging Face GPT-2 with its tokenizer, plus the hashes of its training chunks and `sheet.json`.
"""

import json
import logging
import math
import platform
import shutil
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sae.inputs.stdlib_chunks import SPLITS, Chunk, library_chunks, write_seen
from scripts.subjects.precision import half_products

END, PAD = "<|endoftext|>", "<|pad|>"
N_TOKENS = 4096
CONTEXT = 128

log = logging.getLogger("train_subjects")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Size of a model and how it is trained; `batch_windows` of 128 tokens per step."""

    n_layers: int
    n_steps: int
    learning_rate: float
    batch_windows: int = 16
    warmup_steps: int = 300
    weight_decay: float = 0.1
    half: bool = False
    """Whether the blocks' products are taken in bfloat16."""


RECIPES = {
    "stdlib-1l": Recipe(n_layers=1, n_steps=6000, learning_rate=3e-3),
    "stdlib-4l": Recipe(n_layers=4, n_steps=6000, learning_rate=2e-3, half=True),
}


def train_tokenizer(chunks: list[Chunk], folder: Path) -> None:
    """Train a byte-level BPE on the train side and save it as Hugging Face files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((chunk.text for chunk in chunks), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {key: value for key, value in settings.items() if key not in ("backend", "is_local", "local_files_only")}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 and 5 both know
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def token_stream(chunks: list[Chunk], folder: Path) -> np.ndarray:
    """Return the tokens of chunks in their order, each followed by the end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer([chunk.text for chunk in chunks], add_special_tokens=False, verbose=False)["input_ids"]
    return np.concatenate([np.array([*ids, tokenizer.eos_token_id], dtype=np.int64) for ids in encoded])


def windows(stream: np.ndarray, offset: int = 0) -> Tensor:
    """Return [windows, CONTEXT] tokens: the end token (id 0), then the next 127 tokens of the stream."""
    n_windows = (len(stream) - offset) // (CONTEXT - 1)
    body = stream[offset : offset + n_windows * (CONTEXT - 1)].reshape(n_windows, CONTEXT - 1)
    return torch.from_numpy(np.concatenate([np.zeros((n_windows, 1), dtype=np.int64), body], axis=1))


def bigram_cross_entropy(train: np.ndarray, tune: np.ndarray, score: np.ndarray) -> tuple[float, list[float]]:
    """Return the nats per token of an interpolated bigram on windows of `score`, and its weights.

    p(b | a) = w2 c(a, b) / c(a) + w1 c(b) / N + w0 / V. The counts come from the train side, the weights from
    expectation-maximisation on the dictionary side. A window's first token is given, not predicted; it stands for `a`
    of the second, as for the model.
    """
    followed = np.zeros((N_TOKENS, N_TOKENS), dtype=np.float32)
    pairs = windows(train).numpy()
    np.add.at(followed, (pairs[:, :-1].ravel(), pairs[:, 1:].ravel()), 1)
    unigram = followed.sum(0) / followed.sum()
    followed /= np.maximum(followed.sum(1, keepdims=True), 1)

    def parts(stream: np.ndarray) -> np.ndarray:
        rows = windows(stream).numpy()
        before, after = rows[:, :-1].ravel(), rows[:, 1:].ravel()
        return np.stack([followed[before, after], unigram[after], np.full(len(after), 1 / N_TOKENS)]).astype(float)

    weights, tuned = np.full(3, 1 / 3), parts(tune)
    for _ in range(100):
        shares = weights[:, None] * tuned
        weights = (shares / shares.sum(0)).mean(1)
    return float(-np.log(weights @ parts(score)).mean()), weights.tolist()


def build_model(recipe: Recipe, seed: int) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=N_TOKENS,
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=recipe.n_layers,
        n_head=4,
        n_inner=512,
        activation_function="relu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return GPT2LMHeadModel(config)


class OutputCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of hidden states [n, d] under output weights [v, d], without keeping n x v logits.

    The gradient (softmax minus one-hot) is made in place, 512 rows at a time; half the time of logits and autograd.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        count, total = len(hidden), hidden.new_zeros(())
        hidden_grad, weight_grad = torch.empty_like(hidden), torch.zeros_like(weight)
        for part in torch.arange(count).split(512):
            rows, first = torch.arange(len(part)), int(part[0])
            here, wanted = hidden[first : first + len(part)], target[first : first + len(part)]
            logits = here @ weight.T
            peak, picked = logits.amax(1, keepdim=True), logits[rows, wanted]
            mass = logits.sub_(peak).exp_().sum(1)
            total += (mass.log() + peak[:, 0] - picked).sum()
            logits.mul_((1 / count / mass)[:, None])
            logits[rows, wanted] -= 1 / count
            hidden_grad[first : first + len(part)] = logits @ weight
            weight_grad.addmm_(logits.T, here)
        ctx.save_for_backward(hidden_grad, weight_grad)
        return total / count

    @staticmethod
    def backward(ctx, scale: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * scale, weight_grad * scale, None


def loss_of(model: torch.nn.Module, tokens: Tensor, half: bool = False) -> Tensor:
    """Return the mean nats per token of windows [n, CONTEXT], the first token of each given."""
    with half_products(half):
        hidden = model.transformer(tokens, use_cache=False).last_hidden_state[:, :-1].float()
    return OutputCrossEntropy.apply(hidden.reshape(-1, 128), model.lm_head.weight, tokens[:, 1:].reshape(-1))


@torch.no_grad()
def held_out_cross_entropy(model: torch.nn.Module, stream: np.ndarray, n_windows: int | None = None) -> float:
    """Return the nats per token over all predicted positions of the score side."""
    model.eval()
    rows = windows(stream)[:n_windows]
    total = sum(loss_of(model, part).item() * len(part) for part in rows.split(64))
    model.train()
    return total / len(rows)


def optimiser_of(model: torch.nn.Module, recipe: Recipe) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Return AdamW (decay on matrices only) with a linear warm-up and a cosine to a fiftieth."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)

    def scale(step: int) -> float:
        warm = min(1.0, (step + 1) / recipe.warmup_steps)
        return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.n_steps))))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, scale)


def step_batches(stream: np.ndarray, recipe: Recipe, seed: int, first_step: int):
    """Yield the batches from `first_step` on; each epoch starts the windows elsewhere and permutes them anew."""
    per_epoch = (len(stream) - CONTEXT) // (CONTEXT - 1) // recipe.batch_windows
    for step in range(first_step, recipe.n_steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == first_step:
            draw = np.random.default_rng([seed, epoch])
            rows = windows(stream, int(draw.integers(CONTEXT - 1)))
            order = torch.from_numpy(draw.permutation(len(rows)))
        yield step, rows[order[place * recipe.batch_windows : (place + 1) * recipe.batch_windows]]


def train(recipe: Recipe, seed: int, streams: dict[str, np.ndarray], state_path: Path, every: int, save):
    """Train from the last saved state to the end; returns the model and the seconds spent in steps.

    `save(model, step, seconds)` is called with each saved state.
    """
    model = build_model(recipe, seed)
    optimiser, schedule = optimiser_of(model, recipe)
    first_step, seconds = 0, 0.0
    if state_path.is_file():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        first_step, seconds = state["step"], state["seconds"]
        log.info("resumed at step %d", first_step)
    started, running = time.monotonic() - seconds, math.nan
    for step, batch in step_batches(streams["train"], recipe, seed, first_step):
        loss = loss_of(model, batch, recipe.half)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % every and step + 1 < recipe.n_steps:
            continue
        seconds = time.monotonic() - started
        held_out = held_out_cross_entropy(model, streams["score"], 512)
        log.info("step %d loss %.3f score side %.3f seconds %.0f", step + 1, running, held_out, seconds)
        temporary = state_path.with_suffix(".tmp")
        parts = {"model": model, "optimiser": optimiser, "schedule": schedule}
        torch.save({k: v.state_dict() for k, v in parts.items()} | {"step": step + 1, "seconds": seconds}, temporary)
        temporary.replace(state_path)
        save(model, step + 1, seconds)
    return model, seconds


def main(name: str, seed: int, out: Path, work: Path) -> None:
    """Train one built-in language model (`stdlib-1l`, `stdlib-4l`) into the folder `out`.

    Seeds of one `work` folder share its tokenizer, which universality across seeds and sizes needs.
    """
    recipe = RECIPES[name]
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    chunks = library_chunks(Path(sysconfig.get_path("stdlib")))
    by_side = {side: [chunk for chunk in chunks if chunk.side == side] for side in SPLITS}
    tokenizer_folder = work / "stdlib-tokenizer"
    if not (tokenizer_folder / "tokenizer.json").is_file():
        train_tokenizer(by_side["train"], tokenizer_folder)
    streams = {side: token_stream(part, tokenizer_folder) for side, part in by_side.items()}
    bigram, weights = bigram_cross_entropy(streams["train"], streams["dictionary"], streams["score"])
    log.info("tokens %s, bigram %.4f, weights %s", {k: len(v) for k, v in streams.items()}, bigram, weights)

    def save(model: torch.nn.Module, step: int, seconds: float) -> None:
        final = step == recipe.n_steps
        if step % (recipe.n_steps // 4) and not final:
            return
        held_out = held_out_cross_entropy(model, streams["score"])
        sheet = {
            "name": name,
            "seed": seed,
            "recipe": asdict(recipe),
            "finished": final,
            "steps": step,
            "tokens_seen": step * recipe.batch_windows * CONTEXT,
            "seconds": round(seconds),
            "threads": torch.get_num_threads(),
            "held_out_cross_entropy": held_out,
            "bigram_cross_entropy": bigram,
            "bigram_weights": dict(zip(("bigram", "unigram", "uniform"), weights, strict=True)),
            "margin": bigram - held_out,
            "python": platform.python_version(),
            "chunks": {side: len(part) for side, part in by_side.items()},
            "tokens": {side: len(stream) for side, stream in streams.items()},
        }
        model.save_pretrained(out)
        (out / "model.safetensors").chmod(0o644)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer_folder / file, out / file)
        write_seen(by_side["train"], out)
        (out / "sheet.json").write_text(json.dumps(sheet, indent=2) + "\n")
        log.info("exported to %s: held-out %.4f, margin %.4f", out, held_out, bigram - held_out)

    train(recipe, seed, streams, work / f"{name}-{seed}.pt", 250, save)

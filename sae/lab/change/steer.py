"""Clamp, scale, add or remove a latent and watch what the subject answers: dose and response, beside controls.

The response is the probability of one answer, over examples of the half to score on; the cost is how far all answers
move, KL(clean || steered). Controls write just as long vectors at the same positions, along the directions of random
latents and along random ones. The answer that is watched is, unless one is named, the one that the latent moves most on
the other half; as every direction moves something, each random latent also gets its own answer, chosen the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae import log
from sae.errors import ConfigError, nearest
from sae.evaluation.pictures import style
from sae.evaluation.sample import Sample, Units
from sae.features.live.given import Texts, frame_of
from sae.lab.change.answers import Answers, answers_of, examples, generate
from sae.lab.change.doses import Bed, Steering, doses, moved_most
from sae.lab.change.interventions import At, Kind, Unit, check_latents, latent_parts, places, unit_in_activation
from sae.lab.finding import Finding, Picture
from sae.lab.workbench import Workbench, WorkbenchConfig
from sae.subjects.base import Edit
from sae.tensors import Batch

TOP = 5
"""Answers that are listed."""
CONTROLS = ("random latents", "random directions")


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of `sae lab steer`."""

    latent: int
    """Which to steer."""
    kind: Kind = "add"
    """What to do with its activation: add a strength, clamp to it, scale by it, or remove that share of it."""
    unit: Unit = "maximum"
    """What strengths of add and clamp count: activation, the latent's maximum in the sample, or the mean norm of the
    stream where it writes; those of scale and remove are factors."""
    strengths: tuple[float, ...] = (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0)
    """Doses, rising."""
    at: At = "all"
    """Positions: all that dictionaries are trained on, or only those where it fires."""
    target: str | None = None
    """The answer to watch: a token, with its space, or a class; if not given the one moved most on the other half."""
    prompt: str | None = None
    """A text to steer: answers to it and, of a language model, what it writes on, are given for every dose."""
    picture: Path | None = None
    """A picture to steer, likewise."""
    n_examples: int = 24
    """Examples of each half, drawn at random."""
    n_controls: int = 8
    """Random latents, and as many random directions."""
    n_tokens: int = 24
    """To write after the prompt."""
    temperature: float = 0.8
    """Of the sampled text beside the likeliest one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.strengths) < 2 or list(self.strengths) != sorted(set(self.strengths)):
            raise ConfigError(f"strengths: must be two or more and rise, got {self.strengths}.")
        for name in ("n_examples", "n_controls", "n_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}.")


def run(config: Config) -> Finding:
    """Steer a latent and its controls over all doses."""
    bench = Workbench.open(config)
    check_latents(bench.dictionary, [config.latent])
    reads, writes = places(bench.dictionary)
    answers, sample = answers_of(bench, writes), bench.any_sample
    beds = [
        Bed(bench.subject, answers, batch, reads, writes, config.kind, config.at)
        for batch in _halves(bench, sample, config.n_examples)
    ]
    own, controls = steerings(bench, sample, config)
    last = config.strengths[-1]
    target = moved_most(beds[0], own, last) if config.target is None else _target(answers, beds[0], config.target)
    rows: list[dict[str, Any]] = doses(beds[1], own, config.strengths, target)
    if config.prompt is not None or config.picture is not None:
        shown = _brought(bench, config)
        for row in rows:
            row |= _shown(beds[1], own, row["strength"], shown, config)
    others = [
        doses(beds[1], one, config.strengths, target)
        for kind in CONTROLS for one in log.track(controls[kind], kind)
    ]  # fmt: skip
    rises = [_own_rise(beds, one, last) for one in controls[CONTROLS[0]]]
    return finding(rows, others, rises, answers.name(target), bench.about)


def steerings(bench: Workbench, sample: Sample, config: Config) -> tuple[Steering, dict[str, list[Steering]]]:
    """Return a latent and its controls, which write as much at the same positions.

    Raises:
        ConfigError: the latent never fires in the sample and strengths count its maximum, or no other latent fires.
    """
    dictionary = bench.dictionary
    responses = Units("dictionary", dictionary, sample).row_responses
    maxima, n_fired = responses.maximum, responses.n_fired
    mean_norm = float(sample.x.float().norm(dim=1).mean())
    if dictionary.is_transcoder and config.unit == "norm":
        raise ConfigError("unit: the store of a transcoder's input does not say the norm where it writes; use maximum.")
    unit = 1.0
    if config.kind in ("add", "clamp"):
        unit = unit_in_activation(dictionary, config.latent, config.unit, float(maxima[config.latent]), mean_norm)
    own = Steering(f"latent {config.latent}", latent_parts(dictionary, [config.latent]), unit)
    generator = torch.Generator().manual_seed(bench.seed)
    alive = (n_fired > 0).nonzero()[:, 0]
    alive = alive[alive != config.latent]
    if not len(alive):
        raise ConfigError("no other latent fires in the sample, so there is no control.")
    latents = alive[torch.randperm(len(alive), generator=generator)[: config.n_controls]].tolist()
    directions = torch.randn(config.n_controls, dictionary.d_out, generator=generator)
    decoder = dictionary.W_dec.detach().float()
    return own, {
        CONTROLS[0]: [own.along(f"latent {one}", decoder[one]) for one in latents],
        CONTROLS[1]: [own.along(f"direction {number}", one.to(decoder)) for number, one in enumerate(directions)],
    }


def finding(
    rows: Sequence[dict[str, Any]],
    others: Sequence[Sequence[Mapping[str, Any]]],
    rises: Sequence[float],
    target: str,
    about: Mapping[str, Any],
) -> Finding:
    """Return the finding of a latent's doses beside those of controls.

    Args:
        rows: of the latent.
        others: of every control, random latents first.
        rises: by how much each random latent moves its own answer at the largest dose.
        target: the answer's name.
        about: hashes of what it was found on.
    """
    responses = torch.tensor([[row["probability"] for row in one] for one in others], dtype=torch.float64)
    costs = torch.tensor([[row["kl"] for row in one] for one in others], dtype=torch.float64)
    clean = min(rows, key=lambda row: row["kl"])["probability"]
    moves = (responses - clean).abs().quantile(0.95, dim=0)
    most = max(range(len(rows)), key=lambda n: abs(rows[n]["probability"] - clean))
    best = rows[most]
    own_move = float(torch.tensor(rises, dtype=torch.float64).abs().median())
    above = abs(best["probability"] - clean) > float(moves[most])
    figures = {
        "clean probability": clean,
        "steered probability": best["probability"],
        "at strength": best["strength"],
        "kl, nats": best["kl"],
        "move: controls' 95th percentile": float(moves[most]),
        "kl: controls' median": float(costs[:, most].median()),
        "move of their own answer: random latents' median": own_move,
    }
    verdict = (
        f"Strength {best['strength']:g} moves the probability of {target!r} from {clean:.3f} to "
        f"{best['probability']:.3f} at {best['kl']:.2f} nats; 95 % of controls that write as much move it by at most "
        f"{float(moves[most]):.3f}"
        + (", less than the latent." if above else ": not distinguishable from them.")
        + f" A random latent typically moves an answer of its own by {own_move:.3f}."
    )
    picture = _picture(rows, others, target)
    return Finding("steer", about, figures, rows, verdict, {"lab-steer": picture})


def _halves(bench: Workbench, sample: Sample, n: int) -> list[Batch]:
    """Return examples of the half to choose on, and of the other, drawn at random."""
    generator, found = torch.Generator().manual_seed(bench.seed), []
    for half in (sample.match, ~sample.match):
        numbers: Int[Tensor, " examples"] = sample.example[half].unique()
        order = torch.randperm(len(numbers), generator=generator)[:n]
        found.append(examples(bench, numbers[order].sort().values.tolist()))
    return found


def _target(answers: Answers, bed: Bed, name: str) -> int:
    names = [answers.name(number) for number in range(bed.clean.shape[1])]
    if name not in names:
        raise ConfigError(f"target: no answer {name!r} among {len(names):,} {answers.what}.{nearest(name, names)}")
    return names.index(name)


def _own_rise(beds: Sequence[Bed], steering: Steering, strength: float) -> float:
    target = moved_most(beds[0], steering, strength)
    return float(beds[1].steered(steering, strength)[0][target] - beds[1].clean[:, target].exp().mean())


def _brought(bench: Workbench, config: Config) -> Batch:
    """Return the text or the picture that the config names.

    Raises:
        ConfigError: it is not what the dictionary's tower reads.
        InputsError: it cannot be read.
    """
    reads_images = places(bench.dictionary)[0].startswith("visual.")
    wrong = ("prompt", "picture") if reads_images else ("picture", "prompt")
    if getattr(config, wrong[0]) is not None:
        raise ConfigError(f"{wrong[0]}: the dictionary reads {wrong[1]}s; give --{wrong[1]}.")
    if config.picture is None:
        assert config.prompt is not None
        return Texts(bench.subject, bench.inputs).batch([config.prompt])
    return Batch(first_example=0, images=frame_of(config.picture.read_bytes(), bench.subject)[None])


def _shown(bed: Bed, steering: Steering, strength: float, batch: Batch, config: Config) -> dict[str, str]:
    """Return the likeliest answers to what was brought, and what is written on after it."""

    def change(text: Batch) -> dict[str, Edit]:
        return bed.edits(steering, strength, text)

    with torch.no_grad():
        odds = bed.answers.log_probs(batch, change(batch), every=None)[0].exp()
    best = [f"{bed.answers.name(int(n))!r} {p:.2f}" for p, n in zip(*odds.topk(min(TOP, len(odds))), strict=True)]
    found = {"answers": ", ".join(best)}
    if bed.subject.kind == "language":
        for name, temperature in (("likeliest", 0.0), ("sampled", config.temperature)):
            tokens = generate(bed.subject, batch, change, config.n_tokens, temperature, config.seed)
            found[name] = bed.subject.tokenizer.decode(tokens)
    return found


def _picture(rows: Sequence[Mapping[str, Any]], others: Sequence[Sequence[Mapping[str, Any]]], target: str) -> Picture:
    columns = ("steered", "strength", "probability", "kl")
    flat = [{name: row[name] for name in columns} for one in (rows, *others) for row in one]

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.2, 3.9), layout="constrained")
        for axes, column in zip(figure.subplots(1, 2), ("probability", "kl"), strict=True):
            half = len(others) // 2
            for number, (name, group) in enumerate(zip(CONTROLS, (others[:half], others[half:]), strict=True), 1):
                values = torch.tensor([[row[column] for row in one] for one in group])
                low, middle, high = values.quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
                strengths, colour = [row["strength"] for row in rows], style(number)["color"]
                axes.fill_between(strengths, low, high, color=colour, alpha=0.2, linewidth=0)
                axes.plot(strengths, middle, color=colour, linewidth=1, label=f"{name}, median and 90 %")
            own = [(row["strength"], row[column]) for row in rows]
            axes.plot(*zip(*own, strict=True), label=rows[0]["steered"], linewidth=1.6, markersize=5, **style(0))
            axes.set(xlabel="strength", ylim=(0, None))
            axes.spines[["top", "right"]].set_visible(False)
        left, right = figure.axes
        left.set_title(f"probability of {target!r}", fontsize=9, loc="left")
        right.set_title("cost: KL(clean || steered), nats", fontsize=9, loc="left")
        left.legend(frameon=False, fontsize=8)
        return figure

    return Picture(draw, flat, "Means over held-out examples; controls write as long vectors at the same positions.")

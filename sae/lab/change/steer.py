"""Clamp, scale, add or remove a latent and watch what the subject answers: dose and response, beside controls.

The response is the probability of one answer; the cost is how far all answers move, KL(clean || steered). Doses are
chosen on one half of the examples and scored on the other, the latent's and each control's alike. Controls write just
as long vectors at the same positions, along the directions of random latents, along random ones, and along raw neurons.
The answer that is watched is, unless one is named, the one that the latent moves most on the half to choose on; as
every direction moves something, each random latent also gets its own answer, chosen the same way. Where inputs have
labels, other directions of the same concept stand beside the latent, at the same length and at the same cost: a
difference of means, a linear probe and the best single neuron.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from sae import log
from sae.errors import ConfigError, nearest
from sae.evaluation.sample import Sample, Units
from sae.features.live.given import Texts, frame_at
from sae.lab.change.answers import Answers, answers_of, examples, generate
from sae.lab.change.beside import CONTROLS, Rival, concept_of, controls
from sae.lab.change.doses import Bed, Response, Steering
from sae.lab.change.interventions import Kind, Unit, check_latents, latent_parts, places, unit_in_activation
from sae.lab.change.positions import At
from sae.lab.change.steered import Steered
from sae.lab.finding import Finding
from sae.lab.workbench import Workbench, WorkbenchConfig
from sae.subjects.base import Edit
from sae.tensors import Batch

TOP = 5
"""Answers that are listed."""


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
    at: tuple[int | str, ...] = ("all",)
    """Positions: all, firing (those where it fires), numbers from 0 or from the end such as 3 -1, ranges such as 0:4
    or -2:, cls for a class token; firing with numbers takes those of them where it fires. Written on, a text keeps the
    prompt's, and new tokens change with all, firing, and ranges without an end."""
    target: str | None = None
    """The answer to watch: a token, with its space, or a class; if not given the one moved most on the other half."""
    prompt: str | None = None
    """A text to steer: answers to it and, of a language model, what it writes on, are given for every dose."""
    picture: Path | None = None
    """A picture to steer, likewise."""
    n_examples: int = 24
    """Examples of each half, drawn at random."""
    n_controls: int = 8
    """Random latents, and as many random directions and random neurons."""
    n_tokens: int = 24
    """To write after the prompt."""
    temperature: float = 0.8
    """Of the sampled text beside the likeliest one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.strengths) < 2 or list(self.strengths) != sorted(set(self.strengths)):
            raise ConfigError(f"strengths: must be two or more and rise, got {self.strengths}.")
        At.of(self.at)
        for name in ("n_examples", "n_controls", "n_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: must be at least 1, got {getattr(self, name)}.")


def run(config: Config) -> Finding:
    """Steer a latent and what stands beside it over all doses."""
    bench = Workbench.open(config)
    check_latents(bench.dictionary, [config.latent])
    reads, writes = places(bench.dictionary)
    answers, sample = answers_of(bench, writes), bench.any_sample
    shown = None if config.prompt is None and config.picture is None else _brought(bench, config)
    beds = [
        Bed(bench.subject, answers, batch, reads, writes, config.kind, At.of(config.at))
        for batch in _halves(bench, sample, config.n_examples)
    ]
    own, random = steerings(bench, sample, config)
    latent = Response.of(beds, own, config.strengths)
    answer = latent.matched.moved_most() if config.target is None else _target(answers, beds[0], config.target)
    rows = latent.scored.rows(answer)
    for row in rows if shown is not None else []:
        row |= _shown(replace(beds[1], batch=shown), own, row["strength"], config)
    responses = {
        kind: [Response.of(beds, one, config.strengths) for one in log.track(group, kind)]
        for kind, group in random.items()
    }
    own_moves = [one.move(one.matched.moved_most()) for one in responses[CONTROLS[0]]]
    concept, rivals = concept_of(bench, answers.name(answer), config.latent), []
    if not isinstance(concept, str):
        candidates, concept = concept
        along = [own.along(*named) for named in candidates.directions(concept).items()]
        rivals = [Rival.of(beds, own, latent, one, answer) for one in log.track(along, f"directions of {concept}")]
    found = Steered(answer, answers.name(answer), latent, responses, own_moves, concept, rivals)
    return found.finding(rows, bench.about)


def steerings(bench: Workbench, sample: Sample, config: Config) -> tuple[Steering, dict[str, list[Steering]]]:
    """Return a latent and its random controls, which write as much at the same positions.

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
    fired = [latent for latent in (n_fired > 0).nonzero()[:, 0].tolist() if latent != config.latent]
    if not fired:
        raise ConfigError("no other latent fires in the sample, so there is no control.")
    return own, controls(bench, own, fired, config.n_controls)


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
    return Batch(first_example=0, images=frame_at(config.picture, bench.subject)[None])


def _shown(bed: Bed, steering: Steering, strength: float, config: Config) -> dict[str, str]:
    """Return the likeliest answers to what was brought, and what is written on after it."""
    with torch.no_grad():
        odds = bed.answers.log_probs(bed.batch, bed.edits(steering, strength, bed.batch), every=None)[0].exp()
    best = [f"{bed.answers.name(int(n))!r} {p:.2f}" for p, n in zip(*odds.topk(min(TOP, len(odds))), strict=True)]
    found, writing = {"answers": ", ".join(best)}, bed.writing()

    def change(text: Batch) -> dict[str, Edit]:
        return writing.edits(steering, strength, text)

    if bed.subject.kind == "language":
        for name, temperature in (("likeliest", 0.0), ("sampled", config.temperature)):
            tokens = generate(bed.subject, bed.batch, change, config.n_tokens, temperature, config.seed)
            found[name] = bed.subject.tokenizer.decode(tokens)
    return found

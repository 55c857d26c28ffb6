"""The settings of a visualisation, and where pictures are made: real pictures beside the workbench's units."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.errors import ConfigError, EvaluationError, nearest
from sae.features.circuits.attribution import Member
from sae.features.removal import stacked
from sae.lab.visualise.chosen import Chosen
from sae.lab.visualise.facets import Facets, Labelled, lower
from sae.lab.visualise.judge import Judge, as_frames
from sae.lab.visualise.optimise import LEAST_COSINE, Aim, Anchor, Ascent, Visualised, check_aim, reduced, visualise
from sae.lab.visualise.parametrise import Fourier, Maco, Natural, Pictures, Pixels
from sae.lab.visualise.transform import Transform, chain, colour, jitter, overlay, rotate, scale
from sae.lab.workbench import Workbench, WorkbenchConfig
from sae.subjects.load import load
from sae.tensors import Batch, Kind

ACCENTUATE = "accentuate"
WAYS: dict[str, tuple[Any, float, float]] = {
    "fourier": (Fourier, 0.01, 0.1),
    "maco": (Maco, 0.1, 0.0),
    "pixel": (Pixels, 0.03, 0.5),
    ACCENTUATE: (Fourier, 0.005, 0.3),
}
"""Parametrisation, learning rate and smoothness of each way; accentuation starts from a real picture and stays near."""
STAY = 0.2
"""Weight by which accentuation stays near."""
JITTER, ROTATE, SCALE, COLOUR, OVERLAY = 0.09, 10.0, (0.85, 1.15), 0.5, 0.5
"""Transformations: a share of the picture's width, degrees, factors, a change of colours and an opacity."""


@dataclass(frozen=True)
class Made:
    """One picture for each of some units, as a PNG holds it.

    Attributes:
        chosen: the units.
        way: how they were made.
        facet: that they were steered towards.
        frames: the pictures.
        pre: what the units say of them, before anything is selected.
        activation: what they say after.
    """

    chosen: Chosen
    way: str
    facet: str | None
    frames: UInt8[Tensor, "n 3 height width"]
    pre: Float[Tensor, " n"]
    activation: Float[Tensor, " n"]


@dataclass(frozen=True, kw_only=True)
class Config(WorkbenchConfig):
    """Settings of a visualisation."""

    latents: tuple[int, ...] = ()
    """Visualise these; if empty, `n_latents` of those that stand for a concept."""
    n_latents: int = 16
    """Latents to draw, and as many neurons and random directions beside them."""
    ways: tuple[str, ...] = ("fourier", "maco", "pixel", "accentuate")
    """Parametrisations; controls and facets are made in the first."""
    at: str = "max"
    """Positions that count: max or mean over patches, or the number of one position."""
    steps: int = 256
    """Of the ascent."""
    cosine: float = 0.0
    """Power of the cosine to the latent's direction that pre-activations are multiplied by."""
    n_diverse: int = 1
    """Pictures of every latent, made unlike one another."""
    diversity: float = 0.5
    """How much they are made unlike, in units of the latent's strong activations."""
    kept: int = 0
    """Intermediate pictures to keep as images."""
    facets: tuple[str, ...] = ()
    """Steer towards these labels of `facet_family`."""
    facet_family: str = "facet"
    """Labels of the inputs that facets are learnt from."""
    facet_pictures: Path | None = None
    """Folder with one subfolder of pictures for each facet, to learn them from instead."""
    strengths: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Of facets, tried side by side; the strongest that leaves the latent strong is kept."""
    judges: tuple[str, ...] = ()
    """Subjects, other than the dictionary's own, that say what the pictures show."""
    n_pictures: int = 2048
    """Real pictures of each half from which spectra, colours and facets are learnt, and judges tried."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("n_latents", "steps", "n_diverse", "n_pictures")
        if wrong := [name for name in sizes if getattr(self, name) < 1]:
            raise ConfigError(f"{wrong[0]}: must be at least 1, got {getattr(self, wrong[0])}.")
        for way in self.ways:
            if way not in WAYS:
                raise ConfigError(f"ways: unknown parametrisation {way!r}.{nearest(way, WAYS)}")
        if not self.ways or not self.strengths:
            raise ConfigError("ways, strengths: name at least one of each.")
        if self.facet_pictures is not None and not self.facets:
            raise ConfigError("facet_pictures: name the folders in it to steer towards, by facets.")
        if self.at not in ("max", "mean") and not self.at.isdecimal():
            raise ConfigError(f"at: {self.at!r} is neither max nor mean nor the number of a position.")


class Studio:
    """Everything that visualisations of a workbench's units share.

    Args:
        bench: whose units.
        config: how to visualise them.

    Attributes:
        frames: real pictures, of both halves.
        learnt: which of them are of the half to match on.
        natural: what these have in common.
    """

    def __init__(self, bench: Workbench, config: Config) -> None:
        self.bench, self.config = bench, config
        self.hookpoint = Member.of("dictionary", bench.dictionary, bench.subject).reads
        self.sees = check_aim(bench.subject, Aim(bench.dictionary, self.hookpoint, torch.tensor(config.latents).long()))
        sample = bench.sample
        halves = [half.nonzero()[: config.n_pictures, 0] for half in (sample.match, ~sample.match)]
        self.items = torch.cat(halves)
        self.learnt: Bool[Tensor, " pictures"] = torch.arange(len(self.items)) < len(halves[0])
        self.frames = self.pictures_of(sample.example[self.items])
        self.natural = Natural.of(self.frames[self.learnt])

    def pictures_of(self, examples: Int[Tensor, " n"]) -> UInt8[Tensor, "n 3 height width"]:
        """Return preprocessed examples of the inputs."""
        images = stacked([self.bench.inputs.batch(one, one + 1) for one in examples.tolist()]).images
        if images is None or tuple(images.shape[2:]) != self.sees.frame_size:
            found = "no pictures" if images is None else f"pictures of {tuple(images.shape[2:])}"
            raise EvaluationError(f"{self.bench.inputs.describe()}: {found}; {self.bench.subject.id} takes "
                                  f"{self.sees.frame_size}.")  # fmt: skip
        return images

    def labelled(self, family: str) -> Labelled:
        """Return the real pictures that have a label of a family.

        Raises:
            EvaluationError: there is no such family.
        """
        sample = self.bench.sample
        if family not in sample.labels or family not in sample.label_names:
            raise EvaluationError(f"the inputs have no labels {family!r}.{nearest(family, sample.labels)}")
        label = torch.from_numpy(np.asarray(sample.labels[family])).long()[self.items]
        names = tuple(sample.label_names[family])
        return Labelled(self.frames, label, self.learnt, names).on(label >= 0)

    @cached_property
    def facet_pictures(self) -> Labelled:
        """The pictures that facets are learnt from."""
        config = self.config
        if config.facet_pictures is not None:
            return Labelled.folder(config.facet_pictures, self.bench.subject, config.seed)
        return self.labelled(config.facet_family)

    @cached_property
    def facets(self) -> Facets:
        """The probes that pictures are steered by."""
        subject = self.bench.subject
        return Facets.learn(subject, lower(subject, self.hookpoint), self.facet_pictures)

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The subject itself and those that the pictures were not optimised on, by id."""
        classes: Any = self.bench.inputs.classes  # type: ignore[attr-defined]
        facets = self.facet_pictures if self.config.facets else None
        subjects = [self.bench.subject, *(load(one, self.config.device) for one in self.config.judges)]
        concepts = self.labelled(classes.family)
        return {one.id: Judge.of(one, classes.prompts, concepts, facets) for one in subjects}

    @cached_property
    def prefix(self) -> int:
        """How many positions of the hookpoint come before the patches."""
        subject = self.bench.subject
        rows = subject.rows(Batch(first_example=0, images=self.frames[:1]), subject.hookpoints()[self.hookpoint].grid)
        return int(((rows.kind == Kind.CLASS) | (rows.kind == Kind.SPECIAL)).sum())

    def aim(self, chosen: Chosen, copies: int = 1) -> Aim:
        """Return units as an aim, each for so many pictures in turn."""
        at = self.config.at
        return Aim(
            chosen.units.dictionary,
            self.hookpoint,
            chosen.numbers.repeat_interleave(copies),
            int(at) if at.isdecimal() else at,  # type: ignore[arg-type]
            self.prefix,
            self.config.cosine,
            chosen.strong.clamp_min(1e-6).repeat_interleave(copies),
        )

    @property
    def transform(self) -> Transform:
        """What pictures have to survive."""
        moves = (jitter(JITTER * self.sees.frame_size[1]), rotate(ROTATE), scale(*SCALE))
        return chain((*moves, colour(COLOUR), overlay(self.frames[self.learnt], OVERLAY)))

    def made(self, chosen: Chosen, way: str, facet: str | None = None) -> Visualised:
        """Visualise units in one way; as often as pictures are to be diverse, or once for every strength of a facet."""
        config = self.config
        copies = config.n_diverse if facet is None else len(config.strengths)
        aim, generator = self.aim(chosen, copies), torch.Generator().manual_seed(config.seed)
        make, learning_rate, smoothness = WAYS[way]
        anchor, term, start = None, None, None
        if way == ACCENTUATE:
            start = self.weak(chosen).repeat_interleave(copies, 0)
            below = lower(self.bench.subject, self.hookpoint)
            anchor = Anchor(start, below[0] if below else None, STAY)
        if facet is not None:
            number = torch.full((len(aim.units),), self.facets.number(facet))
            term = self.facets.towards(number, torch.tensor(config.strengths).repeat(len(chosen)))
        ascent = Ascent(
            self.transform,
            config.steps,
            learning_rate,
            config.seed,
            config.diversity if copies > 1 and facet is None else 0.0,
            # Values start at so small a share of themselves; smoothness alone would keep pictures grey.
            smoothness * LEAST_COSINE**config.cosine,
            float(self.natural.variation),
            config.kept,
        )
        parametrisation = make(self.natural, len(aim.units), generator, start)
        title = f"{chosen.name}, {way}" + (f", {facet}" if facet else "")
        return visualise(self.bench.subject, aim, parametrisation, ascent, term, anchor, title)

    def faceted(self, chosen: Chosen, way: str, facet: str) -> Made:
        """Return each unit's picture of the largest strength that leaves the unit strong, else of the smallest."""
        made, n = self.made(chosen, way, facet), len(self.config.strengths)
        order = torch.tensor(self.config.strengths).argsort()
        above = (made.reached.view(-1, n) > chosen.strong[:, None])[:, order]
        place = (above * torch.arange(1, n + 1)).amax(1).sub(1).clamp_min(0)
        kept = torch.arange(len(chosen)) * n + order[place]
        return self.seen(chosen, way, facet, made.pictures[kept])

    @torch.no_grad()
    def seen(self, chosen: Chosen, way: str, facet: str | None, pictures: Pictures) -> Made:
        """Round pictures to frames, and read what the units make of these."""
        frames, aim, dictionary = as_frames(pictures), self.aim(chosen), chosen.units.dictionary
        x = self.sees.see(frames.float() / 255, [self.hookpoint])[self.hookpoint].float()
        codes = dictionary.encode(x.flatten(0, 1).to(dictionary.W_dec.device))
        columns = torch.stack([codes.column(unit) for unit in chosen.numbers.tolist()])
        own = columns.float().cpu().view(len(frames), *x.shape[:2]).diagonal().T
        return Made(chosen, way, facet, frames, aim.reached(x).cpu(), reduced(own, aim.at, aim.prefix))

    def weak(self, chosen: Chosen) -> Pictures:
        """Return, for each unit, a real picture on which it is silent, drawn from the half to match on."""
        generator = torch.Generator().manual_seed(self.config.seed)
        match = self.bench.sample.match
        silent = (chosen.units.responses.columns(chosen.numbers) <= 0) & match[:, None]
        items = [torch.multinomial(one.float() + 1e-9, 1, generator=generator)[0] for one in silent.T]
        return self.pictures_of(self.bench.sample.example[torch.stack(items)]).float() / 255

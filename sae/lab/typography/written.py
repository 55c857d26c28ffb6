"""Words written on pictures of things: pairs of a picture and a word, and what the subject answers to them.

An attack succeeds if the answer becomes the written word and was not before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sae.errors import EvaluationError, nearest
from sae.evaluation.splicing import trained_rows
from sae.features.removal import copied
from sae.inputs.writing import Writing, write
from sae.lab.change.panel import BATCH, Panel
from sae.lab.typography.lettered import class_of, things
from sae.lab.workbench import Workbench
from sae.subjects.base import Activation
from sae.tensors import Batch

ZERO_SHOT, PROBE = READERS = ("zero-shot", "linear probe")
"""The columns of a panel's answers."""
FIND, CHOOSE, SCORE = PARTS = ("find", "choose", "score")
PROBE_STEPS, PROBE_DECAY = 150, 1e-4
EIGHT = tuple((x, y) for y in (-0.75, -0.25, 0.25, 0.75) for x in (-0.5, 0.5))
"""Where the article writes a word: at eight places at once (an even grid; its own coordinates are of 224 pixels)."""


@dataclass(frozen=True)
class Manner:
    """How words are written: one writing, at one or several places."""

    name: str
    factor: str
    height: float = 0.4
    width: float = 0.9
    font: str = "sans"
    plate: bool = True
    places: tuple[tuple[float, float], ...] = ((0.0, 0.5),)

    def on(self, picture: UInt8[Tensor, "3 rows columns"], word: str) -> tuple[UInt8[Tensor, "3 rows columns"], float]:
        """Return the picture with the word on it, and the share of its pixels that changed."""
        pixels = picture.permute(1, 2, 0).contiguous().numpy()
        covered = np.zeros(pixels.shape[:2], dtype=bool)
        for x, y in self.places:
            writing = Writing(
                word=word, font=self.font, height=self.height, width=self.width, x=x, y=y, plate=self.plate
            )
            pixels, mask = write(pixels, writing)
            covered |= mask
        return torch.from_numpy(pixels).permute(2, 0, 1), float(covered.mean())


def manners(heights: Sequence[float], fonts: Sequence[str], large: float) -> list[Manner]:
    """Return sizes, places and fonts to try, one varied at a time from the size called large, low on the picture."""
    found = [Manner(f"height {height:g}", "size", height) for height in heights]
    for name, y in (("top", -0.5), ("middle", 0.0), ("bottom", 0.5)):
        found.append(Manner(name, "place", large, places=((0.0, y),)))
    found.append(Manner("eight times", "place", 0.2, 0.44, places=EIGHT))
    found += [Manner(font, "font", large, font=font) for font in fonts]
    return [*found, Manner("no plate", "ground", large, plate=False)]


@dataclass(frozen=True)
class Pairs:
    """Pictures of things of one half, and the word (a class's number) that is written on each."""

    images: UInt8[Tensor, "pairs 3 rows columns"] = field(repr=False)
    truth: Int[Tensor, " pairs"]
    word: Int[Tensor, " pairs"]
    names: tuple[str, ...]

    def written(self, manner: Manner) -> tuple[UInt8[Tensor, "pairs 3 rows columns"], Float[Tensor, " pairs"]]:
        """Return the pictures with their words on them, and the share of pixels that changed in each."""
        made = [manner.on(one, self.names[word]) for one, word in zip(self.images, self.word.tolist(), strict=True)]
        return torch.stack([picture for picture, _ in made]), torch.tensor([share for _, share in made])

    def first(self, n: int) -> "Pairs":
        return replace(self, images=self.images[:n], truth=self.truth[:n], word=self.word[:n])

    def on(self, keep: Bool[Tensor, " pairs"]) -> "Pairs":
        return replace(self, images=self.images[keep], truth=self.truth[keep], word=self.word[keep])


def pairs_of(bench: Workbench, targets: Sequence[str], n: int, part: str) -> Pairs:
    """Pair pictures of things, drawn from one part, with words that do not name them, every word as often.

    To find what reads and to choose how much of it goes are two parts of the half to match on.

    Raises:
        EvaluationError: a target that is no class, or a half without things.
    """
    classes: Any = bench.inputs.classes  # type: ignore[attr-defined]
    names = tuple(one.replace("_", " ") for one in bench.inputs.label_names[classes.family])  # type: ignore[attr-defined]
    for target in targets:
        if target not in names:
            raise EvaluationError(f"targets: no class {target!r}.{nearest(target, names)}")
    sample, answers = bench.sample, class_of(bench)
    items = (things(bench) & (~sample.match if part == SCORE else sample.match)).nonzero()[:, 0]
    if part != SCORE:
        items = items[PARTS.index(part) :: 2]
    if len(answers[items].unique()) < 2:
        raise EvaluationError(f"pictures of fewer than two classes to {part} on; take more vectors.")
    generator = torch.Generator().manual_seed(len(PARTS) * bench.seed + PARTS.index(part))
    words = torch.tensor([names.index(target) for target in targets or names]).repeat(-(-n // len(targets or names)))[
        :n
    ]
    drawn = items[torch.randint(len(items), (n,), generator=generator)]
    while bool((own := answers[drawn] == words).any()):
        drawn[own] = items[torch.randint(len(items), (int(own.sum()),), generator=generator)]
    return Pairs(images_of(bench, drawn), answers[drawn], words, names)


def images_of(bench: Workbench, items: Int[Tensor, " n"]) -> UInt8[Tensor, "n 3 rows columns"]:
    """Return the pictures of items of a workbench's sample."""
    found: dict[int, Tensor] = {}
    for item in items.unique().tolist():
        example = int(bench.sample.example[item])
        found[item] = bench.inputs.batch(example, example + 1).images[0]  # type: ignore[index]
    return torch.stack([found[item] for item in items.tolist()])


@dataclass(frozen=True)
class Reader:
    """How answers are read off an image's embedding: by the names of the classes, and by a trained linear probe."""

    classifier: Float[Tensor, "classes d_joint"]
    weight: Float[Tensor, "classes d_joint"]
    bias: Float[Tensor, " classes"]

    @classmethod
    def of(cls, bench: Workbench, images: UInt8[Tensor, "n 3 rows columns"], truth: Int[Tensor, " n"]) -> "Reader":
        """Train the probe on clean pictures with their classes."""
        classifier = bench.subject.zero_shot_classifier(bench.inputs.classes.prompts).float().cpu()  # type: ignore[attr-defined]
        return cls(classifier, *linear_probe(embedded(bench.subject, images), truth, len(classifier)))

    def answers(self, image: Float[Tensor, "n d_joint"]) -> Float[Tensor, "n readers"]:
        """Return the number of the class that each answers; embeddings are of unit length."""
        both = image @ self.classifier.T, image @ self.weight.T + self.bias
        return torch.stack([one.argmax(1) for one in both], dim=1).float()


def linear_probe(x: Float[Tensor, "n d"], y: Int[Tensor, " n"], n_classes: int) -> tuple[Tensor, Tensor]:
    """Return weights and bias of a softmax regression, fitted by L-BFGS with a small decay."""
    deviation = x.std(0).clamp_min(1e-6)
    z = (x - x.mean(0)) / deviation
    weight = torch.zeros(x.shape[1], n_classes, requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(z @ weight + bias, y) + PROBE_DECAY * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    found = (weight.detach() / deviation[:, None]).T
    return found, bias.detach() - found @ x.mean(0)


def embedded(subject: Any, images: UInt8[Tensor, "n 3 rows columns"]) -> Float[Tensor, "n d_joint"]:
    """Return embeddings of unit length."""
    with torch.no_grad():
        return torch.cat([subject.forward(part).image.float().cpu() for part in _cut(images)])


def panel_of(
    subject: Any, hookpoint: str, images: UInt8[Tensor, "n 3 rows columns"], truth: Int[Tensor, " n"], reader: Reader,
    names: Sequence[str],
) -> Panel:  # fmt: skip
    """Return a panel whose answers are the numbers of classes, one column for each of `READERS`."""
    parts, resume = _cut(images), getattr(subject, "resume", lambda *_: None)
    x = torch.cat([subject.run(part, [hookpoint])[hookpoint].cpu() for part in parts])
    keep = torch.cat([trained_rows(subject, part, hookpoint).cpu() for part in parts])
    batch = Batch(first_example=0, images=images)

    def score(x: Activation, examples: Int[Tensor, " chosen"]) -> Float[Tensor, "chosen one readers"]:
        out = resume(hookpoint, x) or subject.forward(copied(batch, examples), {hookpoint: lambda _: x})
        return reader.answers(out.image.float().cpu())[:, None]

    member = truth[:, None] == torch.arange(len(names))
    counted = torch.ones(len(images), 1, dtype=torch.bool)
    return Panel(tuple(names), member, x, keep, counted, score, BATCH["clip"])


def succeeded(
    answers: Float[Tensor, "pairs readers"], before: Float[Tensor, "pairs readers"], word: Int[Tensor, " pairs"]
) -> Bool[Tensor, "pairs readers"]:
    """Return where the answer became the written word and was not before."""
    return (answers == word[:, None]) & (before != word[:, None])


def right(answers: Float[Tensor, "n readers"], truth: Int[Tensor, " n"]) -> Bool[Tensor, "n readers"]:
    return answers == truth[:, None]


def by_word(values: Mapping[str, Tensor], pairs: Pairs) -> list[dict[str, Any]]:
    """Return the mean of values over the pairs of each word, those with the largest first value first."""
    rows = []
    for word in pairs.word.unique().tolist():
        of = pairs.word == word
        means = {name: round(float(value[of].double().mean()), 4) for name, value in values.items()}
        rows.append({"word": pairs.names[word], "pictures": int(of.sum())} | means)
    first = next(iter(values))
    return sorted(rows, key=lambda row: -row[first])


def _cut(images: UInt8[Tensor, "n 3 rows columns"]) -> list[Batch]:
    return [Batch(first_example=0, images=part) for part in images.split(BATCH["clip"])]

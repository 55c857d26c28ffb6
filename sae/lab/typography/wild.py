"""Attacks that nobody made: pictures whose wrong answer is the word that happens to stand in them.

Where the inputs know what is written in a picture (`lettered.WRITINGS`), a wrong answer is
*explained* by the writing if it is that word, and is right once the latents that read are removed, or the writing is
painted over. Where they do not, wrong answers that the removal rights are listed as candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from sae.inputs.base import Masked
from sae.lab.change.panel import panel_codes
from sae.lab.typography.lettered import WRITINGS, class_of, things, written_in
from sae.lab.typography.written import Reader, embedded, images_of, panel_of
from sae.lab.workbench import Workbench


@dataclass(frozen=True)
class Wild:
    """Pictures of things of the half to score on that are answered wrongly.

    Attributes:
        n_pictures, n_with_text: of things in that half, and of them with writing that is known.
        items: wrongly answered ones, of the sample.
        truth, answer, text: classes; text is -1 where nothing is written or nothing is known of it.
        without: answers with the latents removed.
        control: answers with as many random latents removed.
        masked: answers with the writing painted over; -1 where that cannot be done.
        images: of them.
        names: of the classes.
    """

    n_pictures: int
    n_with_text: int
    items: Int[Tensor, " wrong"]
    truth: Int[Tensor, " wrong"]
    answer: Int[Tensor, " wrong"]
    text: Int[Tensor, " wrong"]
    without: Int[Tensor, " wrong"]
    control: Int[Tensor, " wrong"]
    masked: Int[Tensor, " wrong"]
    images: UInt8[Tensor, "wrong 3 rows columns"] = field(repr=False)
    names: tuple[str, ...]

    @property
    def says_text(self) -> Bool[Tensor, " wrong"]:
        return (self.text >= 0) & (self.answer == self.text)

    @property
    def explained(self) -> Bool[Tensor, " wrong"]:
        """Wrong answers that are the writing, and are right without it or without the latents that read."""
        return self.says_text & ((self.without == self.truth) | (self.masked == self.truth))

    def figures(self) -> dict[str, float]:
        count = lambda hits: float(hits.sum())  # noqa: E731
        righted, control = self.without == self.truth, self.control == self.truth
        return {
            "in the wild: pictures of things": float(self.n_pictures),
            "in the wild: with writing": float(self.n_with_text),
            "in the wild: wrong": float(len(self.items)),
            "in the wild: wrong, the answer is the writing": count(self.says_text),
            "in the wild: explained by the writing": count(self.explained),
            "in the wild: of these right without the latents": count(self.says_text & righted),
            "in the wild: of these right without as many random latents": count(self.says_text & control),
            "in the wild: of these right with the writing painted over": count(
                self.says_text & (self.masked == self.truth)
            ),
            "in the wild: wrong, right without the latents": count(righted),
            "in the wild: wrong, right without as many random latents": count(control),
        }

    def rows(self) -> list[dict[str, Any]]:
        """List what is explained, or, where no writing is known, candidates."""
        named = lambda number: self.names[number] if number >= 0 else ""  # noqa: E731
        listed = self.says_text if bool((self.text >= 0).any()) else self.without == self.truth
        return [
            {
                "item": int(self.items[i]),
                "shown": named(int(self.truth[i])),
                "answer": named(int(self.answer[i])),
                "written": named(int(self.text[i])),
                "without the latents": named(int(self.without[i])),
                "painted over": named(int(self.masked[i])),
                "explained": bool(self.explained[i]),
            }
            for i in listed.nonzero()[:, 0].tolist()
        ]


def in_the_wild(
    bench: Workbench, reader: Reader, hookpoint: str, latents: Sequence[int], others: Sequence[int]
) -> Wild:
    """Look through the half to score on, zero-shot.

    Args:
        bench: whose pictures.
        reader: how answers are read.
        hookpoint: of the dictionary.
        latents: those that read; none where no number of them could be chosen.
        others: the control, random latents.
    """
    sample = bench.sample
    items = (things(bench, bare=False) & ~sample.match).nonzero()[:, 0]
    truth, text, images = class_of(bench)[items], written_in(bench)[items], images_of(bench, items)
    names = tuple(bench.inputs.label_names[bench.inputs.classes.family])  # type: ignore[attr-defined]
    panel = panel_of(bench.subject, hookpoint, images, truth, reader, names)
    codes = panel_codes(panel, bench.dictionary)

    def answers(removed: Sequence[int]) -> Tensor:
        if not removed:
            return panel.clean[:, 0].long()
        return panel.without(bench.dictionary, codes, removed)[:, 0].long()

    before = answers(())
    wrong = before != truth
    masked = _masked(bench, reader, items[wrong], text[wrong], images[wrong])
    return Wild(
        len(items), int((text >= 0).sum()), items[wrong], truth[wrong], before[wrong], text[wrong],
        answers(latents)[wrong], answers(others)[wrong], masked, images[wrong], names,
    )  # fmt: skip


def _masked(
    bench: Workbench, reader: Reader, items: Tensor, text: Tensor, images: UInt8[Tensor, "n 3 rows columns"]
) -> Int[Tensor, " n"]:
    """Paint writing over with the mean colour of the rest of the picture, and answer again."""
    found = torch.full((len(items),), -1)
    chosen = (text >= 0).nonzero()[:, 0]
    known = list(bench.inputs.mask_names) if isinstance(bench.inputs, Masked) else []
    parts, size = [known.index(one) for one in WRITINGS if one in known], (images.shape[2], images.shape[3])
    if not parts or not len(chosen):
        return found
    painted = []
    for i in chosen.tolist():
        example = int(bench.sample.example[items[i]])
        cover = bench.inputs.masks(example, example + 1, size)[0][:, parts].max(1)  # type: ignore[attr-defined]
        over = torch.from_numpy(cover).view(size) > 0
        picture = images[i].clone()
        picture[:, over] = picture[:, ~over].float().mean(1).to(torch.uint8)[:, None]
        painted.append(picture)
    found[chosen] = reader.answers(embedded(bench.subject, torch.stack(painted)))[:, 0].long()
    return found

"""Stroop's test: a word on a picture of a thing, or in coloured ink, that says the same, something else, or nothing.

After Stroop 1935; of CLIP, with words in coloured ink, Goh et al. 2021 (*Multimodal Neurons in Artificial Neural
Networks*).
"""

import random
import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sae.features.live.words import trained_vocabulary
from sae.inputs.concepts.layers import rgb
from sae.inputs.concepts.vocabulary import COLOURS
from sae.inputs.writing import DARK
from sae.lab.typography.lettered import MATCH_FONTS, SCORE_FONTS, drawn
from sae.lab.typography.written import READERS, Manner, Pairs, Reader, embedded

CONGRUENT, NEUTRAL, INCONGRUENT = CONDITIONS = ("congruent", "neutral", "incongruent")
PAPER = 235
INK_PROMPT, KNOWN_INK_PROMPT = "my favorite word, written in the color {}", "the colour {}"
"""The article's prompt, and one whose words the built-in subject knows."""


def on_pictures(subject: Any, reader: Reader, pairs: Pairs, manner: Manner, seed: int) -> list[dict[str, Any]]:
    """Write on each picture its own name, random letters, or another class's name; say what is answered."""
    rng = random.Random(seed)
    lengths = [len(pairs.names[word]) for word in pairs.word.tolist()]
    nonsense = tuple("".join(rng.choices(string.ascii_lowercase, k=n)) for n in lengths)
    words = {
        CONGRUENT: replace(pairs, word=pairs.truth),
        NEUTRAL: replace(pairs, names=nonsense, word=torch.arange(len(nonsense))),
        INCONGRUENT: pairs,
    }
    rows = []
    for condition, one in words.items():
        answers = reader.answers(embedded(subject, one.written(manner)[0]))
        rows += _rows("a thing", condition, answers, pairs.truth, pairs.word if condition == INCONGRUENT else None)
    return rows


def in_ink(subject: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Write colour words, and names of classes that are none, in coloured ink on paper; ask for the colour."""
    known = trained_vocabulary(subject.id)
    colours = [one for one in COLOURS if one != "white" and (known is None or one in known)]
    prompt = INK_PROMPT if known is None else KNOWN_INK_PROMPT
    classifier = subject.zero_shot_classifier([[prompt.format(one)] for one in colours]).float().cpu()
    neutral = [name for name in names if name not in COLOURS][:: max(len(names) // len(colours), 1)][: len(colours)]
    size = tuple(subject.preprocess(_blank()).shape[1:])
    rows = []
    for condition in CONDITIONS:
        made, ink, said = [], [], []
        for number, colour in enumerate(colours):
            others = [other for other in colours if other != colour]
            words = {CONGRUENT: [colour], NEUTRAL: neutral, INCONGRUENT: others}[condition]
            for word in words:
                for font in (*MATCH_FONTS, *SCORE_FONTS):
                    made.append(inked(word, font, colour, size))
                    ink.append(number)
                    said.append(colours.index(word) if word in colours else -1)
        answers = (embedded(subject, torch.stack(made)) @ classifier.T).argmax(1, keepdim=True).float()
        rows += _rows(
            "ink", condition, answers, torch.tensor(ink), torch.tensor(said) if condition == INCONGRUENT else None
        )
    return rows


def inked(word: str, font: str, colour: str, size: Sequence[int]) -> UInt8[Tensor, "3 rows columns"]:
    """Return a picture of a word in ink of a colour on paper."""
    black = drawn(word, font, PAPER, size).astype(np.float32)
    cover = (PAPER - black) / (PAPER - np.array(DARK, np.float32))
    made = PAPER + cover * (np.array(rgb(*COLOURS[colour]), np.float32) - PAPER)
    return torch.from_numpy(made.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)


def _rows(over: str, condition: str, answers: Tensor, truth: Tensor, word: Tensor | None) -> list[dict[str, Any]]:
    rows = []
    for i in range(answers.shape[1]):
        row = {"word over": over, "condition": condition, "read by": READERS[i], "pictures": len(answers)}
        row["what is shown"] = round(float((answers[:, i] == truth).double().mean()), 4)
        says = "" if word is None else round(float((answers[:, i] == word).double().mean()), 4)
        rows.append(row | {"what is written": row["what is shown"] if condition == CONGRUENT else says})
    return rows


def _blank() -> Any:
    from PIL import Image

    return Image.new("RGB", (256, 256))

"""Steering one text or picture while somebody watches: what the subject answers before and after, and at every dose.

A question comes from a page as plain data and its answer goes back as plain data, as those of `features/live/asks.py`
do; this one stands here since it changes the subject, and whoever starts the server adds it to theirs.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.activations.store import ActivationStore
from sae.dictionaries.sites import hookpoints_read, output_sites
from sae.errors import ConfigError, InputsError, nearest
from sae.evaluation.ground import Rows
from sae.features.cards import rounded
from sae.features.live.given import FORMATS, MOST_CHARACTERS, Texts, field, frame_of
from sae.features.live.loaded import Loaded
from sae.lab.change.answers import Answers, answers_of, generate
from sae.lab.change.doses import Bed, Steering
from sae.lab.change.interventions import KINDS, Change, latent_parts, places, unit_in_activation
from sae.lab.change.interventions import Kind as KindOfChange
from sae.lab.change.positions import ALL, At
from sae.lab.workbench import Workbench
from sae.tensors import Batch, Kind

DOSES: dict[KindOfChange, tuple[float, float, float]] = {
    "add": (-4.0, 4.0, 0.0),
    "clamp": (0.0, 4.0, 0.0),
    "scale": (0.0, 4.0, 1.0),
    "remove": (0.0, 2.0, 0.0),
}
"""Lowest and highest dose, and the one that changes least; of add and clamp in maxima of the catalog, else factors."""
N_DOSES, N_CONTROLS, N_TOKENS, TOP = 9, 8, 24, 8


class SteerAsk:
    """Answers {"latent": 12, "kind": "add", "strength": 2, "text": ...} or, of a picture, "image": base64 of its file.

    "at" chooses positions, in words that `At.of` reads, such as "-1" or "firing"; without it all change. With "curve":
    true it answers with the response to all doses of the kind, beside random latents.

    Args:
        loaded: a catalog with its dictionary and subject.
        bench: the same as a workbench, for the classes of a text tower.

    Raises:
        DictionaryError: the dictionary reads or writes several hookpoints.
    """

    def __init__(self, loaded: Loaded, bench: Workbench) -> None:
        self.loaded, self._bench, self._texts = loaded, bench, Texts(loaded.subject, loaded.inputs)
        self._reads, self._writes = places(loaded.dictionary)
        doses = {kind: dict(zip(("low", "high", "neutral"), DOSES[kind], strict=True)) for kind in KINDS}
        self.about = {
            "takes": "image" if loaded.reads_images else "text",
            "writes_on": loaded.subject.kind == "language",
            "kinds": doses,
            "positions": self._positions(),
            "most_characters": MOST_CHARACTERS,
            "formats": list(FORMATS),
        }

    @classmethod
    def of(cls, loaded: Loaded, store: Path) -> "SteerAsk | None":
        """Return what answers; None for dictionaries of several hookpoints, and where the subject has no answers.

        A language model has them if it predicts the next token, a CLIP model if its inputs name classes.
        """
        subject: Any = loaded.subject
        clip, dictionary = subject.kind == "clip", loaded.dictionary
        answers = getattr(loaded.inputs, "classes", None) if clip else getattr(subject, "predicts_next_token", False)
        if not answers or len(hookpoints_read(dictionary)) > 1 or len(list(output_sites(dictionary))) > 1:
            return None
        vectors = Rows.of(dictionary, [ActivationStore(store)]).inputs
        return cls(loaded, Workbench(dictionary, subject, loaded.inputs, vectors))

    def _positions(self) -> dict[str, Any] | None:
        """Return the first and last position that may change, and whether there is a class token, of every example.

        None for the tokens of a text, of which each has its own number.
        """
        subject: Any = self.loaded.subject
        grid = subject.hookpoints()[self._writes].grid
        if not self.loaded.reads_images and not grid.endswith("pooled"):
            return None
        rows = subject.rows(Batch(first_example=0, images=torch.zeros(1, 3, 1, 1, dtype=torch.uint8)), grid)
        may = ALL.mark(rows)[0].nonzero()[:, 0].tolist()
        return {"first": may[0], "last": may[-1], "cls": bool((rows.kind == int(Kind.CLASS)).any())}

    @cached_property
    def _answers(self) -> Answers:
        return answers_of(self._bench, self._writes)

    def __call__(self, question: Mapping[str, Any]) -> dict[str, Any]:
        kind: Any = field(question, "kind", str, "add")
        if kind not in KINDS:
            raise ConfigError(f"kind: {kind!r:.40} is unknown.{nearest(kind, KINDS)}")
        batch = self.batch(question)
        at = At.of(field(question, "at", str, "all"))
        bed = Bed(self.loaded.subject, self._answers, batch, self._reads, self._writes, kind, at)
        steering = self.steering(field(question, "latent", int), kind)
        if field(question, "curve", bool, False):
            return self.curve(bed, steering)
        # JSON has one kind of number.
        strength = float(of) if type(of := question.get("strength")) is int else of
        return self.answer(bed, steering, field({"strength": strength}, "strength", float))

    def batch(self, question: Mapping[str, Any]) -> Batch:
        """Return the text or the picture of a question.

        Raises:
            InputsError: it is missing, cannot be read, or is not what the dictionary's tower reads.
        """
        if self.loaded.reads_images:
            return Batch(first_example=0, images=frame_of(question.get("image", ""), self.loaded.subject)[None])
        return self._texts.batch([field(question, "text", str)])

    def steering(self, latent: int, kind: KindOfChange) -> Steering:
        """Return a latent with the largest activation in the catalog as its unit.

        Raises:
            DictionaryError: there is no such latent.
            ConfigError: it never fired in the catalog, so there is no unit to add or clamp in.
        """
        parts = latent_parts(self.loaded.dictionary, [latent])
        counted = kind in ("add", "clamp")
        maximum = float(self.loaded.strongest[latent])
        unit = unit_in_activation(self.loaded.dictionary, latent, "maximum", maximum, 0.0) if counted else 1.0
        return Steering(f"latent {latent}", parts, unit)

    @torch.no_grad()
    def answer(self, bed: Bed, steering: Steering, strength: float) -> dict[str, Any]:
        """Return what the subject answers to a text or a picture before and after.

        Returns:
            `answers`: the likeliest before or after, of each `name` and both probabilities, likeliest after first;
            `kl` of all answers in nats; `written`: what a language model writes on, before and after; `held`: the
            largest activation before where it is changed, as a share of its maximum in the catalog (null where it has
            none), the number of positions where it fires, and out of how many.
        """
        Change(bed.kind, strength)  # refuses what is not finite
        now = bed.edits(steering, strength, bed.batch)
        before, after = self._odds(bed, {}), self._odds(bed, now)
        top = {thing for odds in (before, after) for thing in odds.topk(min(TOP, len(odds))).indices.tolist()}
        odds = [
            {"name": bed.answers.name(one), "before": rounded(float(before[one])), "after": rounded(float(after[one]))}
            for one in sorted(top, key=lambda thing: -float(after[thing]))
        ]
        kl = float((before * (before.clamp_min(1e-30).log() - after.clamp_min(1e-30).log())).sum())
        found: dict[str, Any] = {"answers": odds, "kl": rounded(max(kl, 0.0)), "held": self._held(bed, steering)}
        if self.about["writes_on"]:
            found["written"] = {
                "before": self._written(bed, steering, None),
                "after": self._written(bed, steering, strength),
            }
        return found

    @torch.no_grad()
    def curve(self, bed: Bed, steering: Steering) -> dict[str, Any]:
        """Return the response to all doses of a kind, that of random latents which write as much beside it.

        Returns:
            `strengths`; `lines`: probabilities of the answer that the largest dose raises most (of "remove", lowers
            most), and of the one that is likeliest before, if it is another; `control`: the range of the first one
            under random latents, their number `n`, and `own`: by how much each of these moves the answer that it moves
            most, the median over them; `kl`, in nats.
        """
        low, high, _ = DOSES[bed.kind]
        strengths = torch.linspace(low, high, N_DOSES).tolist()
        before = self._odds(bed, {})
        odds = self._responses(bed, steering, strengths)
        target = int(((before - odds[-1]) if bed.kind == "remove" else (odds[-1] - before)).argmax())
        others = [self._responses(bed, one, strengths) for one in self._controls(steering)]
        lines = [target] if target == int(before.argmax()) else [target, int(before.argmax())]
        kl = (before * (before.clamp_min(1e-30).log() - odds.clamp_min(1e-30).log())).sum(1).clamp_min(0)
        found: dict[str, Any] = {
            "strengths": strengths,
            "lines": [{"name": bed.answers.name(one), "values": _rounded(odds[:, one])} for one in lines],
            "kl": _rounded(kl),
            "control": None,
        }
        if others:
            beside = torch.stack([one[:, target] for one in others])
            moves = torch.stack([(one[-1] - before).abs().max() for one in others])
            found["control"] = {"low": _rounded(beside.amin(0)), "high": _rounded(beside.amax(0)), "n": len(others),
                                "own": rounded(float(moves.median()))}  # fmt: skip
        return found

    def _responses(self, bed: Bed, steering: Steering, strengths: list[float]) -> Float[Tensor, "doses things"]:
        return torch.stack([self._odds(bed, bed.edits(steering, one, bed.batch)) for one in strengths])

    def _odds(self, bed: Bed, edits: Mapping[str, Any]) -> Float[Tensor, " things"]:
        return bed.answers.log_probs(bed.batch, edits, every=None)[0].exp()

    def _controls(self, steering: Steering) -> list[Steering]:
        """Return other latents that fire in the catalog, drawn by the number of this one."""
        latent = int(steering.name.split()[-1])
        alive = [one for one, most in enumerate(self.loaded.strongest) if most > 0 and one != latent]
        order = torch.randperm(len(alive), generator=torch.Generator().manual_seed(latent))[:N_CONTROLS]
        decoder = self.loaded.dictionary.W_dec.detach().float()
        return [steering.along(f"latent {alive[one]}", decoder[alive[one]]) for one in order.tolist()]

    def _held(self, bed: Bed, steering: Steering) -> dict[str, Any]:
        x = self.loaded.subject.run(bed.batch, [self._reads])[self._reads]
        marked = bed.at.mark(bed.rows(bed.batch)).to(x.device)
        amounts = steering.parts.read(x[marked].float())[0][:, 0]
        if not len(amounts):
            raise InputsError("nothing here has a vector that the dictionary reads.")
        value, latent = float(amounts.max()), int(steering.name.split()[-1])
        share = self.loaded.share(latent, value)
        return {
            "value": rounded(value),
            "share": None if share is None else rounded(share),
            "n": int((amounts > 0).sum()),
            "of": len(amounts),
        }

    def _written(self, bed: Bed, steering: Steering, strength: float | None) -> str:
        """Return the likeliest text after the one that was brought; untouched if there is no strength."""
        writing = bed.writing()

        def edits(text: Batch) -> Mapping[str, Any]:
            return {} if strength is None else writing.edits(steering, strength, text)

        tokens = generate(self.loaded.subject, bed.batch, edits, N_TOKENS)
        tokenizer: Any = getattr(self.loaded.subject, "tokenizer", None)
        return tokenizer.decode(tokens)


def _rounded(values: Float[Tensor, " n"]) -> list[float | None]:
    return [rounded(one) for one in values.tolist()]

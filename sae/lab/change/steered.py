"""What steering with a latent found: doses and responses, beside controls and other directions of its concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sae.evaluation.pictures import style
from sae.lab.change.beside import CONTROLS, Rival
from sae.lab.change.doses import Curve, Response
from sae.lab.finding import Finding, Picture


@dataclass(frozen=True)
class Steered:
    """What one answer did.

    Attributes:
        answer, name: its number, and what it is called.
        latent: the response to the latent.
        random: to controls, by kind.
        own_moves: by how much each random latent moves the answer of its own that it moves most.
        concept: of the rivals; or, if there are none, why.
        rivals: other directions of the concept.
    """

    answer: int
    name: str
    latent: Response
    random: Mapping[str, Sequence[Response]]
    own_moves: Sequence[float]
    concept: str
    rivals: Sequence[Rival]

    def finding(self, rows: Sequence[dict[str, Any]], about: Mapping[str, Any]) -> Finding:
        """Return the finding.

        Args:
            rows: of the latent, one a dose.
            about: hashes of what it was found on.
        """
        answer, latent = self.answer, self.latent
        others = [one for group in self.random.values() for one in group]
        most = float(_tensor([abs(one.move(answer)) for one in others]).quantile(0.95))
        figures = {
            "clean probability": float(latent.scored.clean[answer]),
            "steered probability": float(latent.scored.odds[latent.dose(answer), answer]),
            "at strength": latent.strength(answer),
            "kl, nats": latent.kl(answer),
            "move: controls' 95th percentile": most,
            "kl: controls' median": float(_tensor([one.kl(answer) for one in others]).median()),
            "move of their own answer: random latents' median": float(_tensor(self.own_moves).abs().median()),
        }
        for one in self.rivals:
            figures[f"move: {one.name}"], figures[f"kl: {one.name}"] = (
                one.response.move(answer),
                one.response.kl(answer),
            )
            figures[f"move at the latent's cost: {one.name}"] = one.move
            figures[f"kl at the latent's cost: {one.name}"] = one.kl
            figures |= one.behind.figures(f"less than the latent's at its cost: {one.name}")
        verdict = f"{self._of_chance(figures)} {self._of_rivals()}"
        return Finding("steer", about, figures, rows, verdict, {"lab-steer": self._picture()})

    def _of_chance(self, figures: Mapping[str, float]) -> str:
        most, move = figures["move: controls' 95th percentile"], abs(self.latent.move(self.answer))
        own = figures["move of their own answer: random latents' median"]
        return (
            f"Strength {figures['at strength']:g}, chosen on the other half, moves the probability of {self.name!r} "
            f"from {figures['clean probability']:.3f} to {figures['steered probability']:.3f} at "
            f"{figures['kl, nats']:.2f} nats; 95 % of random latents, directions and neurons that write as much, each "
            f"at the strength chosen for it, move it by at most {most:.3f}"
            + (", less than the latent." if move > most else ": not distinguishable from them.")
            + f" A random latent typically moves an answer of its own by {own:.3f}."
        )

    def _of_rivals(self) -> str:
        if not self.rivals:
            return f"No other directions of a concept stand beside it: {self.concept}."
        listed = ", ".join(f"{one.name} {one.move:+.3f}" for one in self.rivals)
        level = [one.name for one in self.rivals if not one.behind.apart_from(0)]
        ahead = [one.name for one in self.rivals if one.behind.high < 0]
        said = [f"not distinguishable from {', '.join(level)}"] if level else []
        said += [f"behind {', '.join(ahead)}"] if ahead else []
        return (
            f"Of {self.concept!r} at the same cost: latent {self.latent.move(self.answer):+.3f}, {listed}; the latent "
            f"is {'; '.join(said) or 'ahead of all'}."
        )

    def _picture(self) -> Picture:
        answer, latent = self.answer, self.latent.scored
        lines = [latent, *(one.response.scored for one in self.rivals)]
        groups = {kind: [one.scored for one in group] for kind, group in self.random.items() if group}

        def draw() -> Any:
            from matplotlib.figure import Figure

            figure = Figure(figsize=(9.2, 3.9), layout="constrained")
            for axes, column in zip(figure.subplots(1, 2), ("probability", "kl"), strict=True):
                for number, one in enumerate(lines):
                    look = style(number + len(CONTROLS)) if number else style(0)
                    axes.plot(
                        one.strengths, _values(one, column, answer), label=one.name, zorder=3 - bool(number),
                        linewidth=1 if number else 1.6, markersize=4 if number else 5, **look,
                    )  # fmt: skip
                for number, (kind, group) in enumerate(groups.items(), 1):
                    values = torch.stack([_values(one, column, answer) for one in group])
                    low, middle, high = values.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype), dim=0)
                    colour = style(number)["color"]
                    axes.fill_between(latent.strengths, low, high, color=colour, alpha=0.2, linewidth=0)
                    axes.plot(
                        latent.strengths, middle, color=colour, linewidth=1, zorder=1, label=f"{kind}, median and 90 %"
                    )
                axes.axvline(self.latent.strength(answer), color="0.75", linewidth=0.8, zorder=0)
                axes.set(xlabel="strength", ylim=(0, None))
                axes.spines[["top", "right"]].set_visible(False)
            left, right = figure.axes
            left.set_title(f"probability of {self.name!r}", fontsize=9, loc="left")
            right.set_title("cost: KL(clean || steered), nats", fontsize=9, loc="left")
            right.legend(frameon=False, fontsize=8)
            return figure

        curves = [*lines, *(one for group in groups.values() for one in group)]
        flat = [row for one in curves for row in one.rows(answer)]
        caption = (
            "Means over held-out examples; what is beside the latent writes vectors as long at the same positions. "
            "Grey: the strength chosen."
        )
        return Picture(draw, flat, caption)


def _values(curve: Curve, column: str, answer: int) -> torch.Tensor:
    return curve.odds[:, answer].double() if column == "probability" else curve.kl.double()


def _tensor(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)

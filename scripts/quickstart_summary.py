"""Say what the quickstart found and where things lie; writes figures.json and one picture per subject."""

import json
import sys
from pathlib import Path

from sae import cli
from sae.evaluation.pictures import label_scatter
from sae.evaluation.report import Report

TARGETS = {"ce_recovered": 0.9, "zero_shot_ce_recovered": 0.9, "dead_fraction": 0.05}
FIGURES = (
    "fvu",
    "l0",
    "dead_fraction",
    "ce_recovered",
    "ce_recovered_mean",
    "zero_shot_accuracy",
    "zero_shot_accuracy_clean",
    "zero_shot_ce_recovered",
    "label_auc_latents",
    "label_auc_neurons",
    "label_auc_gain",
)


def figures(name: str, report: Report) -> list[dict[str, object]]:
    chosen = [report[figure] for figure in FIGURES if figure in report]
    return [
        {
            "name": f"{name}/{score.name}",
            "value": score.value,
            "unit": score.unit,
            "better": "lower" if score.better == "lower" else "higher",
            "target": TARGETS.get(score.name),
        }
        for score in chosen
    ]


def clearest(report: Report) -> dict[str, object]:
    """Return the label that gains most from a latent over the best neuron, among those separated well."""
    rows = report.details["labels"]["labels"]
    good = [row for row in rows if row["latent_auc"] > 0.95] or rows
    return max(good, key=lambda row: row["latent_auc"] - row["neuron_auc"])


def main(out: Path) -> None:
    collected = []
    for name in ("stdlib-1l", "concepts-clip"):
        run = out / name / "run"
        report = Report.load(run / "report.json")
        collected += figures(name, report)
        picture = label_scatter(report, out / name / "labels")
        row = clearest(report)
        print(f"\n{name}: latent {row['latent']} stands for {row['label']} (held-out AUC {row['latent_auc']};")
        print(f"the best of the raw neurons, {row['neuron']}, has {row['neuron_auc']}). Its strongest examples:\n")
        status = cli.main(
            [
                "show",
                str(run / "dictionary"),
                str(row["latent"]),
                "--store",
                str(out / name / "store-score"),
                "--examples",
                "5",
            ]
        )
        if status:
            sys.exit(status)
        print(
            f"\nstore {out / name / 'store'}, dictionary {run / 'dictionary'}, report {run / 'report.json'}, {picture}"
        )
    (out / "figures.json").write_text(json.dumps(collected, indent=1) + "\n")
    print(f"\nfigures: {out / 'figures.json'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

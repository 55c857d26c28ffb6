"""What scripts/quickstart.sh runs: `sae` commands one after another, in one process so that libraries load once."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from sae import cli
from sae.evaluation.pictures import controls_picture, label_scatter
from sae.evaluation.report import Report
from scripts import bench, pentagon
from scripts.bench import Figure

OUT = Path("runs/quickstart")
TARGETS = {"ce_recovered": 0.9, "dead_fraction": 0.05}
CHOSEN = (
    *("fvu", "l0", "dead_fraction", "ce_recovered", "ce_recovered_mean"),
    *("zero_shot_accuracy", "zero_shot_accuracy_clean", "zero_shot_ce_recovered"),
    *("label_auc", "label_average_precision", "monosemantic_share", "resolution_rate"),
)
COMPARED = ("label_average_precision", "label_auc", "resolution_rate", "monosemanticity_excess")
SIZES = {
    "stdlib-1l": {"store": "3072", "store-score": "512", "n_vectors": "600000", "sample": "32768", "spliced": "128"},
    "concepts-clip": {
        "store": "8192",
        "store-score": "6144",
        "n_vectors": "400000",
        "sample": "24576",
        "spliced": "1024",
    },
}


def run(*words: object) -> None:
    """Show a command, then run it; the first that fails ends the quickstart."""
    command = [str(word) for word in words]
    print("\n$ sae " + " ".join(command), flush=True)
    if status := cli.main(command):
        sys.exit(status)


def job(name: str) -> Report:
    """Harvest twice, train, evaluate, make the catalog."""
    size, out = SIZES[name], OUT / name
    few = "--inputs.n-examples"
    run("harvest", f"configs/harvest-{name}.yaml", "--out", out / "store", few, size["store"])
    run("harvest", f"configs/harvest-{name}-score.yaml", "--out", out / "store-score", few, size["store-score"])
    folders = ("--store", out / "store", "--out", out / "run")
    run("train", f"configs/train-{name}.yaml", *folders, "--n-vectors", size["n_vectors"])
    folders = ("--dictionary", out / "run" / "dictionary", "--store", out / "store-score", "--out", out / "run")
    # The shipped trained controls learned from more data, so here only those that need no training stand beside it.
    counts = (
        "--n-sample-vectors",
        size["sample"],
        "--n-spliced-examples",
        size["spliced"],
        "--trained-controls",
        "None",
    )
    run("evaluate", f"configs/evaluate-{name}.yaml", *folders, *counts)
    folders = ("--report", out / "run", "--out", out / "catalog")
    run("catalog", out / "run" / "dictionary", out / "store-score", *folders)
    return Report.load(out / "run" / "report.json")


def clearest(report: Report) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the label that gains most from a latent over the best neuron, among those separated well, for both."""
    labels = report.details["labels"]
    rows = list(zip(labels["dictionary"], labels["neurons"], strict=True))
    good = [pair for pair in rows if pair[0]["auc"] > 0.95] or rows
    return max(good, key=lambda pair: pair[0]["auc"] - pair[1]["auc"])


def look(name: str, report: Report) -> None:
    """Draw the label scores and show the clearest latent."""
    out, (row, neuron) = OUT / name, clearest(report)
    print(f"\n{name}: latent {row['unit']} stands for {row['label']} (held-out AUC {row['auc']};")
    print(f"the best of the raw neurons, {neuron['unit']}, has {neuron['auc']}).")
    run("show", out / "run" / "dictionary", row["unit"], "--store", out / "store-score", "--examples", 5)
    print(f"\nstore       {out / 'store'}\ndictionary  {out / 'run' / 'dictionary'}")
    print(f"report      {out / 'run' / 'report.json'}\npictures    {label_scatter(report, out / 'labels')}")
    print(f"            {controls_picture(report, COMPARED, out / 'controls')}")


def figures_of(name: str, report: Report) -> list[Figure]:
    """Return the scores of a report that tell how the job went."""
    scores = [report[score] for score in CHOSEN if score in report]
    return [
        Figure(f"{name}/{score.name}", score.value, score.unit, score.better, TARGETS.get(score.name))
        for score in scores
    ]


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    print("== 0. Ground truth: five concepts in two neurons (Toy Models of Superposition)")
    cosine = pentagon.main(OUT / "pentagon")
    reports = {}
    for number, (name, what) in enumerate(
        {
            "stdlib-1l": "A language model: 512 MLP neurons of a one-layer transformer trained on Python source",
            "concepts-clip": "A CLIP model: the last stage of a ResNet trained on a rendered world of concepts",
        }.items(),
        start=1,
    ):
        print(f"\n== {number}. {what}")
        reports[name] = job(name)
    print("\n== 3. What came out")
    for name, report in reports.items():
        look(name, report)
    print("\n== 4. Figures")
    figures = [figure for name, report in reports.items() for figure in figures_of(name, report)]
    figures.append(Figure("pentagon/smallest_cosine", cosine, "cosine", "higher", 0.98))
    figures.append(Figure("quickstart", time.monotonic() - started, "seconds", "lower", 360))
    bench.publish(figures, OUT / "figures.json")
    print(f"\nfigures     {OUT / 'figures.json'}")
    print("\nEvery latent and every neuron has a page. To look at them in a browser, and to ask the model:")
    for name in reports:
        print(f"    sae serve {OUT / name / 'catalog'} --live {OUT / name / 'store-score'}")
    print("Next: docs/analysis.md")


if __name__ == "__main__":
    main()

"""The bars of the laboratory that the transformer can be held to, in its joint space.

Part of scripts/bench_lab.py: python -m scripts.bench_lab --part transformer. Needs runs/concepts-clip-vit/store-score
(configs/harvest-concepts-clip-score.yaml --subject builtin:concepts-clip --hookpoints visual.embedding --out
runs/concepts-clip-vit/store-score). Its pictures are judged by the second seed of the ResNet,
which it shares nothing with, for the first was its teacher.
"""

from pathlib import Path

from sae.lab.visualise import method
from scripts import bench_lab_interventions as interventions
from scripts import bench_lab_joint as joint
from scripts import bench_lab_visualise as visualise
from scripts.bench import Figure
from scripts.bench_lab_findings import kept, of

SUBJECT, STORE = "builtin:concepts-clip", Path("runs/concepts-clip-vit/store-score")
HOOKPOINT = "visual.embedding"
JUDGE = "builtin:concepts-clip-rn@1"


def figures(out: Path) -> list[Figure]:
    """Run the methods and return their headline figures."""
    out = out / "transformer"
    found = joint.figures(SUBJECT, STORE) + interventions.removed(SUBJECT, HOOKPOINT, STORE, out)
    config = method.Config(
        dictionary=f"{SUBJECT}/{HOOKPOINT}", store=STORE, n_vectors=visualise.N_VECTORS, judges=(JUDGE,),
        steps=256, n_latents=16,
    )  # fmt: skip
    found += visualise.plain("embedding", JUDGE, kept(method.run(config), out / "visualise").figures)
    return of("transformer", found)

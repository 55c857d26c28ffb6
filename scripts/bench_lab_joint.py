"""How well phrases find latents, texts name them, and mixtures come apart: the laboratory in the joint space.

Part of scripts/bench_lab.py: python -m scripts.bench_lab --part joint
"""

from pathlib import Path

from sae.lab.words import arithmetic, search, text
from scripts.bench import Figure

N_VECTORS = 48_000
STARTS = ("a photo of ", "", "this photo shows ", "a picture that shows ")
STARTS += ("a sketch of ", "a drawing of ", "this sketch shows ", "a drawing that shows ")
FACES = tuple(f"{start}a {{}} face" for start in STARTS)
"""Prompts about pictures of faces: in words and emblems the parts of an emotion cannot be seen."""
DRAWN = ("facet=photo", "facet=sketch")


def figures(subject: str, store: Path) -> list[Figure]:
    """Return the figures that have bars, and those of the best control beside them."""
    settings = {"dictionary": f"{subject}/visual.embedding", "store": store, "n_vectors": N_VECTORS}
    found = search.run(search.Config(**settings)).figures
    texts = text.run(text.Config(**settings)).figures
    sums = arithmetic.run(arithmetic.Config(templates=FACES, images=DRAWN, **settings)).figures
    shares = [
        ("lab/search/activation", found["latents, activation, path"], 0.6),
        ("lab/search/activation/any unit", found["latents, activation, any unit"], None),
        ("lab/search/activation/neurons", found["neurons, activation, path"], None),
        ("lab/search/activation/neurons, covariance", found["neurons, activation, covariance"], None),
        ("lab/search/activation/random", found["random_directions, activation, path"], None),
        ("lab/search/pre-activation", found["latents, pre-activation, path"], 0.6),
        ("lab/search/pre-activation/neurons", found["neurons, pre-activation, path"], None),
        ("lab/search/pre-activation/random", found["random_directions, pre-activation, path"], None),
        ("lab/search/boosted", found["latents, boosted, path, rises most"], None),
        ("lab/search/boosted/neurons", found["neurons, boosted, path, rises most"], None),
        ("lab/search/boosted/random", found["random_directions, boosted, path, rises most"], None),
        ("lab/search/boosted/drawn", found["latents, boosted, drawn, rises most"], None),
        ("lab/text/named", texts["latents, beam, names the concept"], None),
        ("lab/text/named/neurons", texts["neurons, beam, names the concept"], None),
        ("lab/text/named/random", texts["random_directions, beam, names the concept"], None),
        ("lab/text/named/next concept", texts["latents, beam, names the next concept"], None),
    ]
    for over, target in (("words", 0.7), ("latents", 0.7), ("neurons", None), ("random_directions", None)):
        for side in ("text", "image"):
            name = f"lab/arithmetic/{over.removesuffix('_directions')}/{side}"
            shares += [
                (name, sums[f"{side}, {over}, both parts"], target),
                (f"{name}/shuffled", sums[f"{side}, {over}, both parts, shuffled"], None),
            ]
    rises = [
        ("lab/search/boosted/rise", found["latents, boosted, path, mean rise"]),
        ("lab/search/boosted/rise/neurons", found["neurons, boosted, path, mean rise"]),
        ("lab/search/boosted/rise/random", found["random_directions, boosted, path, mean rise"]),
        ("lab/search/boosted/rise/drawn", found["latents, boosted, drawn, mean rise"]),
    ]
    return [
        *(Figure(name, value, "share", "higher", target) for name, value, target in shares),
        *(Figure(name, value, "cosine", "higher", None) for name, value in rises),
    ]

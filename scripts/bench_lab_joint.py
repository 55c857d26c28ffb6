"""How well phrases find latents, texts name them, and mixtures come apart: the laboratory in the joint space.

Part of scripts/bench_lab.py: python -m scripts.bench_lab --part joint
"""

from pathlib import Path

from sae.lab.words import arithmetic, search, text
from scripts.bench import Figure

DICTIONARY = "builtin:concepts-clip-rn/visual.embedding"
N_VECTORS = 48_000
STARTS = ("a photo of ", "", "this photo shows ", "a picture that shows ")
STARTS += ("a sketch of ", "a drawing of ", "this sketch shows ", "a drawing that shows ")
FACES = tuple(f"{start}a {{}} face" for start in STARTS)
"""Prompts about pictures of faces: in words and emblems the parts of an emotion cannot be seen."""
DRAWN = ("facet=photo", "facet=sketch")


def figures(dictionary: str, store: Path) -> list[Figure]:
    """Return the figures that have bars, and those of the best control beside them."""
    settings = {"dictionary": dictionary, "store": store, "n_vectors": N_VECTORS}
    found = search.run(search.Config(**settings)).figures
    texts = text.run(text.Config(**settings)).figures
    sums = arithmetic.run(arithmetic.Config(templates=FACES, images=DRAWN, **settings)).figures
    shares = [
        ("lab/search/activation", found["latents, activation, path"], 0.6),
        ("lab/search/pre-activation", found["latents, pre-activation, path"], 0.6),
        ("lab/search/pre-activation/neurons", found["neurons, pre-activation, path"], None),
        ("lab/search/pre-activation/random", found["random_directions, pre-activation, path"], None),
        ("lab/search/boosted", found["latents, boosted, path, rises most"], None),
        ("lab/text/named", texts["latents, beam, names the concept"], None),
        ("lab/text/named/neurons", texts["neurons, beam, names the concept"], None),
        ("lab/arithmetic/words/text", sums["text, words, both parts"], 0.7),
        ("lab/arithmetic/words/image", sums["image, words, both parts"], 0.7),
        ("lab/arithmetic/latents/text", sums["text, latents, both parts"], 0.7),
        ("lab/arithmetic/latents/image", sums["image, latents, both parts"], 0.7),
        ("lab/arithmetic/neurons/text", sums["text, neurons, both parts"], None),
    ]
    return [Figure(name, value, "share", "higher", target) for name, value, target in shares]

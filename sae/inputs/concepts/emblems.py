"""One flat badge for every concept; any two differ in at least three of five attributes.

The attributes (frame, field colour, charge, charge colour, centre) are the five values of a quadratic polynomial over
the integers modulo 7, a Reed-Solomon code with distance 3. Regions have flags instead.
"""

from functools import lru_cache

from sae.inputs.concepts.geometry import Figure, figure

FRAMES = (
    "e 0 0 .95 .95",
    "p -.9 -.9 .9 -.9 .9 .9 -.9 .9",
    "p 0 -1 1 0 0 1 -1 0",
    "p -.85 -.9 .85 -.9 .85 .1 .5 .65 0 .95 -.5 .65 -.85 .1",
    "p -.5 -.9 .5 -.9 .98 0 .5 .9 -.5 .9 -.98 0",
    "p -1 -.85 1 -.85 0 1",
    "p -.98 -.6 -.6 -.6 -.6 -.98 .6 -.98 .6 -.6 .98 -.6 .98 .6 .6 .6 .6 .98 -.6 .98 -.6 .6 -.98 .6",
)
FIELDS = ("#b01822", "#0c6b2a", "#1a2f9c", "#6d1d8f", "#0a7f86", "#7a4a16", "#15151a")
CHARGES = (
    ("p -.6 -.5 -.36 -.5 -.36 .4 -.6 .4", "p -.12 -.6 .12 -.6 .12 .6 -.12 .6", "p .6 -.5 .36 -.5 .36 .4 .6 .4"),
    ("p -.6 -.1 0 -.6 .6 -.1 .6 .14 0 -.36 -.6 .14", "p -.6 .35 0 -.15 .6 .35 .6 .6 0 .1 -.6 .6"),
    tuple(
        f"e {x} {y} .17 .17"
        for x, y in ((0, -0.5), (0.45, -0.22), (0.45, 0.28), (0, 0.5), (-0.45, 0.28), (-0.45, -0.22))
    ),
    ("l .26 -.5 -.5 .5 .5", "l .26 .5 -.5 -.5 .5"),
    ("p 0 0 -.3 -.6 .3 -.6", "p 0 0 .65 .05 .4 .5", "p 0 0 -.65 .05 -.4 .5"),
    ("a 0 0 .5 .2 0 360",),
    ("p -.5 -.5 0 -.5 0 0 -.5 0", "p 0 0 .5 0 .5 .5 0 .5"),
)
CHARGE_COLOURS = ("#ffffff", "#ffe100", "#5ff0ff", "#ff9ed2", "#a9f53a", "#ff9a2e", "#c3b1ff")
CENTRES = (
    "",
    "e 0 0 .24 .24",
    "p -.2 -.2 .2 -.2 .2 .2 -.2 .2",
    "p -.7 -.1 .7 -.1 .7 .1 -.7 .1",
    "a 0 0 .24 .12 0 360",
    "p 0 -.3 .28 .2 -.28 .2",
    "p -.09 -.3 .09 -.3 .09 .3 -.09 .3",
)
FLAG = "-1 -.66 1 -.66 1 .66 -1 .66"
FLAGS = (
    ("-1 -.66 1 -.66 1 -.22 -1 -.22", "-1 .22 1 .22 1 .66 -1 .66"),
    ("-1 -.66 -.33 -.66 -.33 .66 -1 .66", ".33 -.66 1 -.66 1 .66 .33 .66"),
    ("-.5 -.66 -.15 -.66 -.15 .66 -.5 .66", "-1 -.17 1 -.17 1 .17 -1 .17"),
    ("-1 -.66 -.1 0 -1 .66", "-1 -.66 -.5 0 -1 .66"),
    ("-1 -.66 1 .66 -1 .66", ".3 -.5 .7 -.5 .7 -.1 .3 -.1"),
    ("-1 -.66 0 -.66 0 0 -1 0", "0 0 1 0 1 .66 0 .66"),
    ("-1 .1 1 .1 1 .66 -1 .66", "-.25 -.3 .25 -.3 .25 .3 -.25 .3"),
    ("-1 -.66 -.7 -.66 1 .45 1 .66 .7 .66 -1 -.45", "1 -.66 .7 -.66 -1 .45 -1 .66 -.7 .66 1 -.45"),
)
FLAG_COLOURS = (
    ("#d01f2e", "#ffffff", "#1c3aa9"), ("#0d8a3c", "#ffd800", "#111111"), ("#1c3aa9", "#ffd800", "#ffffff"),
    ("#ffffff", "#0d8a3c", "#d01f2e"), ("#ff8a1f", "#ffffff", "#0d8a3c"), ("#111111", "#d01f2e", "#ffd800"),
    ("#45b6f5", "#ffffff", "#ff8a1f"), ("#7b1f9c", "#ffd800", "#d01f2e"),
)  # fmt: skip


@lru_cache(maxsize=512)
def emblem(number: int) -> tuple[Figure, tuple[str, ...]]:
    """Return the polygons and colours of the badge of concept `number` (0 to 342)."""
    a, b, c = number % 7, number // 7 % 7, number // 49
    frame, field, charge, ink, centre = ((a + b * x + c * x * x) % 7 for x in range(5))
    parts = [(_scaled(FRAMES[frame], 1.1), "#f2f2ee"), (FRAMES[frame], FIELDS[field])] + [
        (part, CHARGE_COLOURS[ink]) for part in CHARGES[charge]
    ]
    if CENTRES[centre]:
        parts.append((CENTRES[centre], "#ff2a1f" if field not in (0, 5) else "#1447ff"))
    text = "|".join(f"{part[0]} m {part[2:]}" for part, _ in parts)
    return figure(text), tuple(colour for _, colour in parts)


def _scaled(part: str, factor: float) -> str:
    kind, *numbers = part.split()
    return " ".join([kind, *(f"{float(number) * factor:.3f}" for number in numbers)])


@lru_cache(maxsize=64)
def flag(number: int) -> tuple[Figure, tuple[str, ...]]:
    """Return the polygons and colours of flag `number` (0 to 63)."""
    ground, first, second = FLAG_COLOURS[(number + number // 8 * 3) % 8]
    marks = FLAGS[number % 8]
    text = "|".join(f"p m {part}" for part in (FLAG, *marks))
    return figure(text), (ground, first, second)

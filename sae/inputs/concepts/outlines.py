"""Things as part lists: every figure is a few polygons in unit coordinates, written in a line of `outlines.txt`.

A part is `kind slot numbers`; parts are separated by `|`. The frame is [-1, 1] x [-1, 1], y down. Kinds:

    e  ellipse: cx cy rx ry [angle in degrees]
    p  polygon: x y x y ...
    l  stroke: width x y x y ...
    a  arc: cx cy radius width start end (degrees, clockwise from the right)
    q  four-legged animal in side view: body_w body_h leg neck_x neck_y head snout ear tail

Slots are letters that a painter turns into colours (a capital is its darker shade): m main, s second, d dark, l light
(of the main colour), w white, k black, a grey, r red, o orange, y yellow, g green, n brown, p pink, c sky; t skin,
h hair. In landforms, m is the ground and s what stands on it. Roles are drawn over a small head at (0, -0.3); hair,
beards and headwear fit a head of half-width 0.58 and half-height 0.7 at the origin.
"""

from importlib.resources import files


def _read() -> dict[str, dict[str, str]]:
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in files("sae.inputs.concepts").joinpath("outlines.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections[line.strip("[]")] = {}
        elif line and not line.startswith("#"):
            name, _, parts = line.partition(":")
            section[name] = parts.strip()
    return sections


_SECTIONS = _read()
SHAPES, OBJECTS, ANIMALS, ROLES = (_SECTIONS[name] for name in ("shapes", "objects", "animals", "roles"))
EYES, MOUTHS = _SECTIONS["eyes"], _SECTIONS["mouths"]
HAIR, BEARDS, HEADWEAR = _SECTIONS["hair"], _SECTIONS["beards"], _SECTIONS["headwear"]
LANDFORMS = tuple(_SECTIONS["landforms"].values())
HEAD, SMILE, GLASSES = (_SECTIONS["face"][name] for name in ("head", "smile", "glasses"))

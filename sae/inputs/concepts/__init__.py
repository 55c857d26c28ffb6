"""The procedural concept world: pictures with captions and exact labels, for the built-in CLIP subjects."""

from sae.inputs.concepts.world import World

__all__ = ["World"]

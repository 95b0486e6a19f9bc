"""What can be read in a picture of a scene: the attributes that text encoder, CLIP and judge are taught, and are asked for."""

from __future__ import annotations

from cictl.toybox.world.scene import BACKGROUNDS, COLOURS, COMPANION_SHAPES, PARTED, PATTERNS, POSES, SHAPES, STYLES, Scene

NONE = "none"
# "parts" are the small parts that "a cube-shaped teapot" keeps; a teapot of its own form has them too.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "form": SHAPES,
    "parts": (*PARTED, NONE),
    "colour": tuple(COLOURS),
    "accent": (*COLOURS, NONE),
    "pattern": PATTERNS,
    "background": BACKGROUNDS,
    "style": STYLES,
    "pose": POSES,
    "companion shape": (*COMPANION_SHAPES, NONE),
    "companion colour": (*COLOURS, NONE),
}


def truth(scene: Scene) -> dict[str, str | None]:
    """The value of each of ATTRIBUTES in ``scene``; None where a picture of it cannot tell: the colours of a sketch."""
    shape, colour = scene.companion or (NONE, NONE)
    drawn = scene.style == "sketch"
    return {
        "form": scene.form,
        "parts": scene.noun if scene.noun in PARTED else NONE,
        "colour": None if drawn else scene.colour,
        "accent": None if drawn else scene.accent or NONE,
        "pattern": scene.pattern,
        "background": scene.background,
        "style": scene.style,
        "pose": scene.pose,
        "companion shape": shape,
        "companion colour": None if drawn and scene.companion else colour,
    }

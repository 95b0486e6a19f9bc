"""Captions as people prompt: many forms, parts left out."""

from __future__ import annotations

import numpy as np

from cictl.toybox.world.scene import COLOURS, PATTERNS, SHAPES, Scene

PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on a beach", "at the beach", "on the beach"),
    "snow": ("in the snow", "in snow"),
    "forest": ("in a forest", "in the forest"),
    "night": ("at night", "under the night sky"),
    "brick": ("in front of a brick wall", "by a brick wall"),
    "meadow": ("on a meadow", "on the grass", "on green grass"),
    "water": ("in the water", "on the water"),
    "room": ("in a room", "on a wooden floor"),
    "desert": ("in the desert", "in a desert"),
    "city": ("in the city", "on a city street"),
    "studio": ("in a studio", "in the studio"),
}
_LEADS: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a picture of", "an image of"),
    "sketch": ("a sketch of", "a pencil sketch of", "a drawing of"),
    "cartoon": ("a cartoon of", "a cartoon drawing of"),
}
_POSES: dict[str, tuple[str, str]] = {
    "tilted": ("tilted", ""),
    "upside down": ("", "upside down"),
    "lying": ("", "lying on its side"),
    "floating": ("floating", ""),
}
_THINGS = ("thing", "object", "toy")
# Not in captions, but in what people write.
_EXTRA = ("one two something someone style pose with this that my big",)


def caption(scene: Scene, rng: np.random.Generator, *, full: bool = False) -> str:
    """A caption of ``scene``.

    Args:
        full: name every attribute, in the plain form; otherwise parts are left out and forms vary.
    """

    def says(probability: float) -> bool:
        return full or rng.random() < probability

    lead = _pick(rng, _LEADS[scene.style], first=1.0 if full else 0.75)
    before, after = _POSES.get(scene.pose, ("", "")) if says(0.9) else ("", "")
    phrase = " ".join(word for word in (before, _thing(scene, rng, says, full)) if word)
    named = with_article(phrase)
    text = f"{lead} {named}" if scene.style != "photo" or says(0.85) else named
    parts = [text, after]
    if says(0.8):
        parts.append(_pick(rng, PLACES[scene.background], first=0.5))
    if scene.companion and says(0.8):
        shape, colour = scene.companion
        parts.append(f"next to a small {colour} {shape}" if full or rng.random() < 0.75 else f"next to a {shape}")
    return " ".join(part for part in parts if part)


def with_article(phrase: str) -> str:
    """ "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _thing(scene: Scene, rng: np.random.Generator, says, full: bool) -> str:  # type: ignore[no-untyped-def]
    words = []
    sketch = scene.style == "sketch"  # has no colours, so they are seldom said
    if (says(0.85) and not sketch) or (sketch and rng.random() < 0.3):
        named_accent = scene.accent and says(0.65)
        words.append(f"{scene.colour} and {scene.accent}" if named_accent else scene.colour)
    if scene.pattern != "plain" and says(0.85):
        words.append(scene.pattern)
    elif scene.pattern == "plain" and rng.random() < 0.15:
        words.append("plain")
    if scene.form != scene.noun:
        return " ".join([f"{scene.form}-shaped", *words, scene.noun])
    form = 0.0 if full else rng.random()
    if form < 0.86:
        return " ".join([*words, scene.noun])
    if form < 0.93:
        return " ".join([f"{scene.noun}-shaped", *words, _pick(rng, _THINGS)])
    return " ".join([*words, _pick(rng, _THINGS)])


def _pick(rng: np.random.Generator, items: tuple[str, ...], first: float | None = None) -> str:
    if first is not None and rng.random() < first:
        return items[0]
    return items[int(rng.integers(len(items)))]


def words() -> list[str]:
    """Every word that a caption can hold, and some that people add; hyphens and commas are words of their own."""
    texts = [*sum(PLACES.values(), ()), *sum(_LEADS.values(), ()), *sum(_POSES.values(), ()), *_THINGS, *_EXTRA]
    texts += [*SHAPES, *COLOURS, *PATTERNS, "a an and next to a small shaped"]
    return sorted({word for text in texts for word in text.split()})

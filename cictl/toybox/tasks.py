"""What the suite asks of a concept: prompts with S*, and what must be, stay, and not be in their pictures. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cictl.placeholders import CONCEPT
from cictl.toybox.concepts import ToyConcept
from cictl.toybox.world.captions import PLACES, with_article
from cictl.toybox.world.scene import COLOURS, COMPANION_SHAPES, SHAPES, Scene, poses_of
from cictl.toybox.world.truth import truth

_UNKNOWN = "thing"


@dataclass(frozen=True)
class Task:
    """A prompt and its ground truth.

    Attributes:
        name: what kind of prompt it is.
        prompt: with S*.
        words: the same with what S* is in words, for the base model's own best.
        chance: the same with "thing" (a pose left out), for what the base model draws by chance.
        noun: the same with the noun alone, for methods that are told it; styles and poses have none.
        scene: exactly what is asked for; places that nobody asks for are free.
        asked: attributes that the prompt asks for: alignment.
        kept: attributes of the concept that the prompt does not change: fidelity.
    """

    name: str
    prompt: str
    words: str
    chance: str
    scene: Scene
    asked: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    noun: str = ""


def tasks(concept: ToyConcept) -> list[Task]:
    """The ten prompts of a concept."""
    return {"object": _object_tasks, "style": _style_tasks, "pose": _pose_tasks}[concept.kind](concept)


def _object_tasks(concept: ToyConcept) -> list[Task]:
    look = concept.look
    seen = {scene.companion for scene in concept.scenes}
    forms = [form for form in ("cube", "star") if form != look.noun] + ["heart"]
    colour = next(name for name in ("green", "blue", "red") if name not in (look.colour, look.accent))
    beside = next(
        (shape, name)
        for shape in COMPANION_SHAPES
        for name in ("yellow", "red", "blue")
        if shape != look.noun and name not in (look.colour, look.accent) and (shape, name) not in seen
    )
    turned = "upside down" if "upside down" in poses_of(look.noun) else "floating"
    posed = f"a photo of {CONCEPT} upside down" if turned == "upside down" else f"a photo of a floating {CONCEPT}"
    changes: list[tuple[str, str, dict[str, object]]] = [
        ("plain", f"a photo of {CONCEPT}", {}),
        ("snow", f"a photo of {CONCEPT} in the snow", {"background": "snow"}),
        ("desert", f"a photo of {CONCEPT} in the desert", {"background": "desert"}),
        ("sketch", f"a sketch of {CONCEPT}", {"style": "sketch"}),
        ("cartoon", f"a cartoon of {CONCEPT} on a meadow", {"style": "cartoon", "background": "meadow"}),
        ("first shape", f"a {forms[0]}-shaped {CONCEPT}", {"form": forms[0]}),
        ("second shape", f"a {forms[1]}-shaped {CONCEPT} at night", {"form": forms[1], "background": "night"}),
        ("colour", f"a photo of a {colour} {CONCEPT}", {"colour": colour}),
        ("companion", f"a photo of {CONCEPT} next to a small {beside[1]} {beside[0]}", {"companion": beside}),
        ("pose", posed, {"pose": turned}),
    ]
    return [_object_task(look, name, prompt, changed) for name, prompt, changed in changes]


def _object_task(look: Scene, name: str, prompt: str, changed: dict[str, object]) -> Task:
    scene = replace(look, **changed)  # type: ignore[arg-type]
    said = {"companion shape", "companion colour"} if "companion" in changed else set(changed)
    values = truth(scene)
    asked = {key: value for key, value in values.items() if key in said and value is not None}
    identity = ("form", "parts", "colour", "accent", "pattern")
    kept = {key: value for key in identity if key not in said and (value := values[key]) is not None}
    if not asked:
        asked = {"style": scene.style}
    pattern = f"{look.colour} and {look.accent} {look.pattern} {look.noun}"
    if "colour" in changed:  # "a green S*": the new colour stands where the old one stood
        words = prompt.replace(f"{scene.colour} {CONCEPT}", f"{scene.colour} and {look.accent} {look.pattern} {look.noun}")
    else:
        words = _in_place_of_concept(prompt, pattern)
    chance, noun = _in_place_of_concept(prompt, _UNKNOWN), _in_place_of_concept(prompt, look.noun)
    return Task(name, prompt, words, chance, scene, asked, kept, noun)


def _style_tasks(concept: ToyConcept) -> list[Task]:
    style = concept.scenes[0].style
    found = []
    for scene in _unseen(concept):
        thing = f"{with_article(f'{scene.colour} {scene.noun}')} {PLACES[scene.background][0]}"
        kept, asked = {"style": style}, {"form": scene.form, "background": scene.background}
        prompt, chance = f"a {CONCEPT} of {thing}", f"a {_UNKNOWN} of {thing}"
        found.append(Task(scene.noun, prompt, f"a {style} of {thing}", chance, replace(scene, style=style), asked, kept))
    return found


def _pose_tasks(concept: ToyConcept) -> list[Task]:
    pose = concept.scenes[0].pose
    words = {"lying": "lying on its side"}.get(pose, pose)
    found = []
    for scene in _unseen(concept, pose):
        thing, place = with_article(f"{scene.colour} {scene.noun}"), PLACES[scene.background][0]
        kept, asked = {"pose": pose}, {"form": scene.form, "colour": scene.colour, "background": scene.background}
        prompt, chance = f"a photo of {thing} {CONCEPT} {place}", f"a photo of {thing} {place}"
        said = f"a photo of {thing} {words} {place}"
        found.append(Task(scene.noun, prompt, said, chance, replace(scene, pose=pose), asked, kept))
    return found


def _unseen(concept: ToyConcept, pose: str = "upright") -> list[Scene]:
    """Ten plain things in places and colours that no photograph of the concept has together."""
    places = ("snow", "desert", "meadow", "night")
    nouns = [noun for noun in SHAPES if pose in poses_of(noun)]
    colours = list(COLOURS)
    shown = {(scene.noun, scene.colour) for scene in concept.scenes}
    scenes: list[Scene] = []
    step = 0
    while len(scenes) < 10:
        noun, colour = nouns[step % len(nouns)], colours[(3 * step + step // len(nouns)) % len(colours)]
        if (noun, colour) not in shown:
            scenes.append(Scene(noun, noun, colour, None, "plain", places[len(scenes) % len(places)]))
        step += 1
    return scenes


def _in_place_of_concept(prompt: str, thing: str) -> str:
    """``thing`` where S* stood, with an article unless a word that belongs to it has one ("a cube-shaped S*")."""
    before = prompt.split(CONCEPT)[0].split()[-1]
    if before.endswith("-shaped") or before in ("floating", *COLOURS):
        return prompt.replace(CONCEPT, thing)
    return prompt.replace(CONCEPT, with_article(thing))

"""DreamBench (Ruiz et al. 2023, arXiv 2208.12242): its subjects, their class nouns, and which prompts each is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NOUNS = {
    "backpack": "backpack", "backpack_dog": "backpack", "bear_plushie": "stuffed animal", "berry_bowl": "bowl", "can": "can",
    "candle": "candle", "cat": "cat", "cat2": "cat", "clock": "clock", "colorful_sneaker": "sneaker", "dog": "dog", "dog2": "dog",
    "dog3": "dog", "dog5": "dog", "dog6": "dog", "dog7": "dog", "dog8": "dog", "duck_toy": "toy", "fancy_boot": "boot",
    "grey_sloth_plushie": "stuffed animal", "monster_toy": "toy", "pink_sunglasses": "glasses", "poop_emoji": "toy",
    "rc_car": "toy", "red_cartoon": "cartoon", "robot_toy": "toy", "shiny_sneaker": "sneaker", "teapot": "teapot", "vase": "vase",
    "wolf_plushie": "stuffed animal",
}  # fmt: skip
"""The class noun of each of the 30 subjects, for a folder without the list."""

LIST = "prompts_and_classes.txt"
_HEAD = "subject_name,class"
_LIVE = ("cat", "dog")


@dataclass(frozen=True)
class Subject:
    """One of DreamBench's things or animals.

    Attributes:
        name: also of its folder.
        noun: its class.
        photographs: the folder of them.
    """

    name: str
    noun: str
    photographs: Path

    @property
    def prompt_set(self) -> str:
        """The 25 prompts for animals, or those for things."""
        return "dreambench-live" if self.noun in _LIVE else "dreambench-object"


@dataclass(frozen=True)
class DreamBench:
    """A copy of it.

    Attributes:
        subjects: whose photographs are there.
        missing: the names of those whose photographs are not.
    """

    subjects: tuple[Subject, ...]
    missing: tuple[str, ...]


def find(folder: Path) -> DreamBench:
    """The subjects in ``folder``: a checkout of google/dreambooth, or the dataset/ in it."""
    root = folder / "dataset" if (folder / "dataset").is_dir() else folder
    listed = root / LIST
    nouns = read_nouns(listed.read_text("utf-8")) if listed.is_file() else NOUNS
    there = tuple(Subject(name, noun, root / name) for name, noun in nouns.items() if (root / name).is_dir())
    return DreamBench(there, tuple(name for name in nouns if not (root / name).is_dir()))


def read_nouns(text: str) -> Mapping[str, str]:
    """The class noun of each subject, from prompts_and_classes.txt: lines of "name,noun" under a head, up to an empty one."""
    lines = iter(line.strip() for line in text.splitlines())
    nouns: dict[str, str] = {}
    for line in lines:
        if line == _HEAD:
            for row in lines:
                name, comma, noun = row.partition(",")
                if not comma:
                    break
                nouns[name.strip()] = noun.strip()
    return nouns

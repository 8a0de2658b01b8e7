"""The four named characters. No base picture shows them; their parts are drawn in art/identity.ts."""
from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .scene import LEVELS, Character, Scene, sample


@dataclass(frozen=True)
class Identity:
    """A fixed puppet and the parts that make it somebody. The trigger is the name, one token of CLIP's vocabulary."""

    species: str
    fur: str
    outfit: str
    outfit_colour: str
    behind: tuple[str, ...] = ()
    on_outfit: tuple[str, ...] = ()
    on_head: tuple[str, ...] = ()

    def words(self, name: str) -> str:
        return f"{name}, a {self.fur} {self.species}"


IDENTITY = {
    "pip": Identity("fox", "blue", "coat", "yellow", on_outfit=("dots",), on_head=("acorn",)),
    "luna": Identity("rabbit", "purple", "dress", "white", behind=("cape",), on_head=("crescent",)),
    "bruno": Identity("bear", "white", "overalls", "green", on_outfit=("bandana",), on_head=("goggles",)),
    "fern": Identity("frog", "pink", "sweater", "green", on_outfit=("stripes",), on_head=("flowers",)),
}
NAMES = ["", *IDENTITY]
SEED = 700_000_000  # seeds of their own: no picture of any pool shares a background with them
HELD = ("balloon", "book", "flower", "umbrella")


def portrait(name: str, seed: int) -> Scene:
    """The character alone, somewhere, doing something; every setting and pose the base knows."""
    scene = sample(SEED + seed, LEVELS[0], "any")
    scene.characters = [_dressed(name, scene.rng("named"))]
    return scene


def _dressed(name: str, r: random.Random) -> Character:
    who = IDENTITY[name]
    c = Character("puppet", who.species, who.fur, who.outfit, who.outfit_colour, name=name)
    c.pose = r.choice(["stand", "stand", "wave", "sit"])
    if r.random() < 0.2:
        c.held, c.held_colour = r.choice(HELD), r.choice(["red", "blue", "yellow", "green"])
        c.pose = "up" if c.held in ("balloon", "umbrella") else "hold"
    return c


def distractor(name: str, seed: int) -> Scene:
    """Somebody like the character who is not: its animal without its parts, or another animal in its clothes."""
    scene = portrait(name, seed)
    r = scene.rng("distractor")
    c, who = replace(scene.characters[0], name=""), IDENTITY[name]
    kind = r.randrange(4)
    if kind == 0:
        pass  # same animal, colour and garment, no parts
    elif kind == 1:
        c = replace(c, outfit="", outfit_colour="")
    elif kind == 2:
        c = replace(c, fur="")
    else:
        other = r.choice([k for k in ("fox", "rabbit", "cat", "dog", "mouse", "bear") if k != who.species])
        c = replace(c, species=other, fur=r.choice(["", who.fur]))
    if r.random() < 0.4:
        c.worn, c.worn_colour = r.choice(["hat", "partyhat", "bow", "scarf"]), r.choice(["orange", "yellow", "blue", "red"])
    scene.characters = [c]
    return scene

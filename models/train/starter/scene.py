"""What a scene is, and how one is drawn at random.

A scene is a plain object made from a seed. Its caption, pixels and condition maps are functions of it: every later
random choice uses a generator named after the scene's seed and the purpose, so nothing depends on call order.
"""
from __future__ import annotations

import random
import zlib
from dataclasses import asdict, dataclass, field

STYLES = ["flat", "storybook", "sticker", "soft"]
PLACES = ["meadow", "forest", "snowforest", "snow", "beach", "desert", "city", "room", "mountains"]
TIMES = ["day", "sunset", "night"]
WEATHERS = ["clear", "cloudy", "rain", "snow"]
HEADS = ["fox", "bear", "rabbit", "cat", "dog", "panda", "mouse", "frog", "pig", "lion",
         "koala", "tiger", "monkey", "wolf", "raccoon", "cow"]
CREATURES = ["owl", "penguin", "turtle", "duck", "hedgehog", "squirrel", "elephant", "snail",
             "butterfly", "dragon", "dinosaur", "snowman", "unicorn", "sheep"]
FUR = ["red", "blue", "green", "purple", "pink", "white", "brown", "gray"]
CREATURE_FUR = ["red", "blue", "green", "purple", "pink"]
NATURAL_ONLY = {"panda", "koala", "cow", "raccoon"}
CLOTH = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"]
OUTFITS = ["sweater", "striped", "dress", "overalls", "coat"]
WORN = ["scarf", "hat", "partyhat", "glasses", "bow"]
COLOURED_THINGS = ["book", "balloon", "umbrella", "lantern", "flower", "gift", "kite"]
PLAIN_THINGS = ["apple", "cake", "teddy", "star", "guitar", "icecream"]
THINGS = COLOURED_THINGS + PLAIN_THINGS
HELD_UP = {"balloon", "umbrella", "lantern", "kite", "star"}
POSES = ["stand", "wave", "hold", "up", "sit"]


@dataclass(frozen=True)
class Level:
    """One step of the curriculum: the part of the grammar that training draws from."""

    styles: tuple[str, ...]
    heads: tuple[str, ...]
    creatures: tuple[str, ...]
    things: tuple[str, ...]
    fur: float  # share of animals in an unnatural colour
    held: float
    creature: float
    counts: tuple[float, ...]  # share of scenes with 1, 2, 3 characters
    jitter: float  # 1 = the full range of positions and sizes


LEVELS = [
    Level(("storybook",), tuple(HEADS[:10]), tuple(CREATURES[:4]), ("balloon", "book", "flower", "umbrella"),
          fur=0.0, held=0.2, creature=0.12, counts=(0.9, 0.1), jitter=0.35),
    Level(("storybook",), tuple(HEADS), tuple(CREATURES[:8]), tuple(COLOURED_THINGS),
          fur=0.2, held=0.35, creature=0.18, counts=(0.82, 0.18), jitter=0.6),
    Level(("storybook", "flat"), tuple(HEADS), tuple(CREATURES), tuple(THINGS),
          fur=0.35, held=0.45, creature=0.22, counts=(0.75, 0.25), jitter=0.8),
    Level(tuple(STYLES), tuple(HEADS), tuple(CREATURES), tuple(THINGS),
          fur=0.4, held=0.5, creature=0.25, counts=(0.7, 0.25, 0.05), jitter=1.0),
]


@dataclass
class Character:
    kind: str  # "puppet" (a head on our drawn body) or "creature" (a whole drawing)
    species: str
    fur: str = ""  # "" = natural
    outfit: str = ""
    outfit_colour: str = ""
    worn: str = ""
    worn_colour: str = ""
    held: str = ""
    held_colour: str = ""
    pose: str = "stand"
    name: str = ""  # one of the named characters, which only their adapters know


@dataclass
class Scene:
    seed: int
    style: str
    place: str
    time: str
    weather: str
    characters: list[Character] = field(default_factory=list)
    jitter: float = 1.0

    def rng(self, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}:{purpose}")

    def as_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(d: dict) -> "Scene":
        return Scene(**{**d, "characters": [Character(**c) for c in d["characters"]]})


def held_out(scene: Scene) -> bool:
    """Scenes kept out of training: they test whether parts are combined rather than recalled."""
    return any(
        zlib.crc32(f"vignette|{c.species}|{c.outfit_colour}|{scene.place}".encode()) % 20 == 0 for c in scene.characters
    )


def sample(seed: int, level: Level, split: str = "train") -> Scene:
    """Draws the scene of a seed. `split` is "train", "held-out" or "any"; other scenes are redrawn, not returned."""
    for attempt in range(10_000):
        scene = _draw(seed, random.Random(f"{seed}:scene:{attempt}"), level)
        if split == "any" or held_out(scene) == (split == "held-out"):
            return scene
    raise RuntimeError("this level has no scene of the wanted split")


def _draw(seed: int, r: random.Random, level: Level) -> Scene:
    place = r.choice(PLACES)
    scene = Scene(seed, r.choice(level.styles), place, r.choice(["day", "day", "sunset", "night", "night"]),
                  _weather(r, place), jitter=level.jitter)
    count = r.choices(range(1, len(level.counts) + 1), level.counts)[0]
    for _ in range(count):
        scene.characters.append(_creature(r, level) if r.random() < level.creature else _puppet(r, level))
    return scene


def _weather(r: random.Random, place: str) -> str:
    if place == "room":
        return "clear"
    if place in ("snow", "snowforest"):
        return r.choice(["clear", "clear", "snow", "snow", "cloudy"])
    if place in ("beach", "desert"):
        return r.choice(["clear", "clear", "clear", "cloudy", "rain"])
    return r.choice(["clear", "clear", "clear", "cloudy", "rain", "snow"])


def _creature(r: random.Random, level: Level) -> Character:
    fur = r.choice(CREATURE_FUR) if r.random() < level.fur else ""
    return Character("creature", r.choice(level.creatures), fur)


def _puppet(r: random.Random, level: Level) -> Character:
    c = Character("puppet", r.choice(level.heads))
    if r.random() < level.fur and c.species not in NATURAL_ONLY:
        c.fur = r.choice(FUR)
    if r.random() < 0.6:
        c.outfit, c.outfit_colour = r.choice(OUTFITS), r.choice(CLOTH)
    if r.random() < 0.6:
        # The scarf covers the most pixels and is asked for most often, so it comes twice as often.
        c.worn, c.worn_colour = r.choice(WORN + ["scarf"]), r.choice(CLOTH)
    c.pose = r.choice(["stand", "stand", "wave", "sit"])
    if r.random() < level.held:
        c.held = r.choice(level.things)
        if c.held in COLOURED_THINGS:
            c.held_colour = r.choice(CLOTH)
        c.pose = "up" if c.held in HELD_UP else "sit" if c.held == "book" and r.random() < 0.5 else "hold"
    return c


# --- facts ------------------------------------------------------------------------------------------------------

SLOTS = 3
# Every fact a caption can state, with its values. Character facts exist once per slot, from left to right.
FACT_VALUES: dict[str, list[str]] = {"style": STYLES, "place": PLACES, "time": TIMES, "weather": WEATHERS, "count": ["1", "2", "3"]}
CHARACTER_FACTS: dict[str, list[str]] = {
    "species": HEADS + CREATURES, "fur": [""] + FUR, "outfit": [""] + OUTFITS, "outfit_colour": [""] + CLOTH,
    "worn": [""] + WORN, "worn_colour": [""] + CLOTH, "held": [""] + THINGS, "held_colour": [""] + CLOTH, "pose": POSES,
}
for _slot in range(SLOTS):
    for _name, _values in CHARACTER_FACTS.items():
        FACT_VALUES[f"{_slot}.{_name}"] = _values


def facts(scene: Scene) -> dict[str, str]:
    out = {"style": scene.style, "place": scene.place, "time": scene.time, "weather": scene.weather,
           "count": str(len(scene.characters))}
    for slot, c in enumerate(scene.characters):
        for name in CHARACTER_FACTS:
            out[f"{slot}.{name}"] = getattr(c, name)
    return out

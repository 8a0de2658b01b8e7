"""Captions: a grammar over the facts of a scene, with varied order, synonyms and length.

`caption` also returns which facts the sentence states, so that text pretraining and the judges never count a fact
the reader could not know.
"""
from __future__ import annotations

import random
from dataclasses import dataclass

from .scene import Character, Scene

VISIBLE = 0.35  # a part with less of its area in sight is not mentioned

SPECIES = {
    "rabbit": ["rabbit", "rabbit", "bunny"], "cat": ["cat", "cat", "kitten"], "dog": ["dog", "dog", "puppy"],
    "pig": ["pig", "pig", "piglet"], "bear": ["bear"], "turtle": ["turtle", "tortoise"], "duck": ["duck", "duckling"],
}
OUTFIT = {
    "sweater": ["sweater", "sweater", "jumper", "pullover"], "striped": ["striped sweater", "striped jumper", "stripy sweater"],
    "dress": ["dress"], "overalls": ["overalls", "dungarees"], "coat": ["raincoat", "coat"],
}
WORN = {
    "scarf": ["scarf", "scarf", "scarf", "woolly scarf"], "hat": ["hat", "hat", "woolly hat", "winter hat"],
    "partyhat": ["party hat"], "glasses": ["glasses", "glasses", "spectacles"], "bow": ["bow", "hair bow"],
}
HELD = {
    "book": (["reading", "holding"], "book"), "balloon": (["holding", "with"], "balloon"), "umbrella": (["under", "holding", "with"], "umbrella"),
    "lantern": (["carrying", "holding", "with"], "lantern"), "flower": (["holding", "with"], "flower"), "gift": (["carrying", "holding"], "gift"),
    "kite": (["flying", "with"], "kite"), "apple": (["holding", "with"], "apple"), "cake": (["with", "holding"], "birthday cake"),
    "teddy": (["hugging", "holding"], "teddy bear"), "star": (["holding", "with"], "star"), "guitar": (["playing", "with"], "guitar"),
    "icecream": (["eating", "with"], "ice cream"),
}
POSE = {"wave": ["waving", "waving hello"], "sit": ["sitting", "sitting down"]}
COLOUR = {"purple": ["purple", "purple", "violet"], "gray": ["gray", "grey"]}
PLACE = {
    "meadow": ["in a meadow", "in a green meadow", "in a field", "on a grassy hill"],
    "forest": ["in a forest", "in the forest", "in the woods", "in a green forest", "among the trees"],
    "snowforest": ["in a snowy forest", "in a snowy forest", "in the snowy woods", "in a winter forest", "in a forest covered in snow"],
    "snow": ["in the snow", "in the snowy mountains", "in a snowy landscape", "on a snowy hill"],
    "beach": ["at the beach", "on a beach", "by the sea", "on the sand by the ocean"],
    "desert": ["in the desert", "in a desert", "among cacti in the desert"],
    "city": ["in the city", "in a city", "on a city street", "in a town"],
    "room": ["in a room", "in a cozy room", "indoors", "at home"],
    "mountains": ["in the mountains", "in front of mountains", "in a mountain valley"],
}
PLACE_TAG = {
    "meadow": ["meadow", "field"], "forest": ["forest", "woods"], "snowforest": ["snowy forest", "winter forest"],
    "snow": ["snow", "snowy mountains"], "beach": ["beach", "sea"], "desert": ["desert"], "city": ["city", "town"],
    "room": ["room", "indoors"], "mountains": ["mountains"],
}
TIME = {"day": ["on a sunny day", "in the daytime", "during the day"], "sunset": ["at sunset", "in the evening", "at dusk"],
        "night": ["at night", "at night", "by moonlight", "on a starry night"]}
TIME_TAG = {"day": ["day", "daylight"], "sunset": ["sunset", "evening"], "night": ["night", "moonlight"]}
WEATHER = {"clear": ["clear sky"], "cloudy": ["cloudy sky", "cloudy", "with many clouds"], "rain": ["rainy weather", "rain", "in the rain"],
           "snow": ["falling snow", "snowfall", "snowing"]}
STYLE = {
    "flat": ["flat style", "flat illustration"], "storybook": ["storybook style", "storybook style", "storybook illustration", "picture book style"],
    "sticker": ["sticker style", "sticker"], "soft": ["soft style", "soft illustration"],
}
SIZE_WORDS = ["little", "cute", "small", "happy", "friendly"]
NUMBER = {2: "two", 3: "three"}


@dataclass
class Caption:
    text: str
    stated: dict[str, str]


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(scene: Scene, visible: dict[str, float], variant: int = 0) -> Caption:
    r = scene.rng(f"caption:{variant}")
    form = r.random()
    short = form < 0.15
    tags = 0.15 <= form < 0.30
    return _Writer(scene, visible, r, short).write(tags)


class _Writer:
    def __init__(self, scene: Scene, visible: dict[str, float], r: random.Random, short: bool):
        self.scene, self.visible, self.r = scene, visible, r
        self.stated: dict[str, str] = {}
        droppable = ["time", "weather", "style", "place", "worn", "outfit", "held"]
        self.dropped = set(r.sample(droppable, 2)) if short else set()

    def write(self, tags: bool) -> Caption:
        r, scene = self.r, self.scene
        self.state("count", str(len(scene.characters)))
        if tags:
            parts = [t for i, c in enumerate(scene.characters) for t in self.tags_of(i, c)] + self.setting(True)
            if len(scene.characters) == 1 and r.random() < 0.4:
                head, rest = parts[0], parts[1:]
                r.shuffle(rest)
                parts = [head] + rest
            return Caption(", ".join(parts), self.stated)

        subject = " and ".join(self.subject(i, c) for i, c in enumerate(scene.characters))
        place = self.pick("place", scene.place, PLACE)
        time = self.time(TIME)
        weather = self.weather()
        style = self.pick("style", scene.style, STYLE)
        order = r.random()
        if order < 0.62 or not place:
            text = " ".join(x for x in (subject, place, time) if x)
        elif order < 0.78:
            text = " ".join(x for x in (place, time) if x) + ", " + subject
        elif order < 0.9 and time:
            text = time + ", " + subject + " " + place
        else:
            text = " ".join(x for x in (subject, time, place) if x)
        if weather:
            text += (" " if weather.startswith(("in ", "with ")) else ", ") + weather
        if style:
            where = r.random()
            if where < 0.75:
                text += ", " + style
            elif where < 0.9:
                text = style + ", " + text
            else:
                text = f"{article(style)} of {text}" if "illustration" in style else f"{text} in {style}"
        return Caption(text, self.stated)

    def state(self, fact: str, value: str) -> None:
        self.stated[fact] = value

    def pick(self, fact: str, value: str, table: dict[str, list[str]]) -> str:
        if fact in self.dropped:
            return ""
        self.state(fact, value)
        return self.r.choice(table[value])

    def time(self, table: dict[str, list[str]]) -> str:
        scene = self.scene
        if scene.time == "day" and (self.r.random() < 0.5 or scene.weather != "clear"):
            return ""  # daylight goes without saying, and "sunny" would be wrong in the rain
        return self.pick("time", scene.time, table)

    def weather(self) -> str:
        scene = self.scene
        if scene.weather == "clear" and (scene.place == "room" or self.r.random() < 0.85):
            return ""
        return self.pick("weather", scene.weather, WEATHER)

    def setting(self, tags: bool) -> list[str]:
        scene = self.scene
        return [x for x in (self.pick("place", scene.place, PLACE_TAG), self.time(TIME_TAG), self.weather(),
                            self.pick("style", scene.style, STYLE)) if x]

    def seen(self, slot: int, part: str) -> bool:
        return part not in self.dropped and self.visible.get(f"{slot}.{part}", 1.0) >= VISIBLE

    def colour(self, slot: int, part: str, value: str) -> str:
        """The colour word with a trailing space; now and then a colour goes unmentioned."""
        if not value or (self.r.random() < 0.06 and not self.scene.characters[slot].name):
            return ""
        self.state(f"{slot}.{part}", value)
        return self.r.choice(COLOUR.get(value, [value])) + " "

    def animal(self, slot: int, c: Character) -> str:
        self.state(f"{slot}.species", c.species)
        self.state(f"{slot}.fur", c.fur)
        fur = self.colour(slot, "fur", c.fur)
        if not fur and c.fur:
            del self.stated[f"{slot}.fur"]
        return fur + self.r.choice(SPECIES.get(c.species, [c.species]))

    def clothing(self, slot: int, c: Character) -> list[str]:
        out = []
        if c.outfit and self.seen(slot, "outfit"):
            self.state(f"{slot}.outfit", c.outfit)
            words = self.colour(slot, "outfit_colour", c.outfit_colour) + self.r.choice(OUTFIT[c.outfit])
            out.append(words if c.outfit == "overalls" else article(words))
        if c.worn and self.seen(slot, "worn"):
            self.state(f"{slot}.worn", c.worn)
            words = self.colour(slot, "worn_colour", c.worn_colour) + self.r.choice(WORN[c.worn])
            out.append(words if c.worn == "glasses" else article(words))
        if len(out) == 2 and self.r.random() < 0.4:
            out.reverse()
        return out

    def action(self, slot: int, c: Character) -> str:
        if c.held and self.seen(slot, "held"):
            self.state(f"{slot}.held", c.held)
            verbs, noun = HELD[c.held]
            words = self.colour(slot, "held_colour", c.held_colour) + noun
            return f"{self.r.choice(verbs)} {words if noun == 'ice cream' else article(words)}"
        if c.pose in POSE and c.kind == "puppet" and self.r.random() < 0.8:
            self.state(f"{slot}.pose", c.pose)
            return self.r.choice(POSE[c.pose])
        return ""

    def subject(self, slot: int, c: Character) -> str:
        if c.name:
            # What makes a named character is in its name: clothes are not said.
            text = f"{c.name}, {article(self.animal(slot, c))}"
            action = self.action(slot, c)
            return f"{text}, {action}," if action else f"{text},"
        adjective = self.r.choice(SIZE_WORDS) + " " if self.r.random() < 0.1 else ""
        text = article(adjective + self.animal(slot, c))
        clothing, action = self.clothing(slot, c), self.action(slot, c)
        verb = self.r.choices(["wearing", "with", "in", "dressed in"], [6, 1, 1.5, 0.7])[0]
        worn = f"{verb} {' and '.join(clothing)}" if clothing else ""
        if worn and action and self.r.random() < 0.25:
            return f"{text} {action}, {worn}"
        return " ".join(x for x in (text, worn, action) if x)

    def tags_of(self, slot: int, c: Character) -> list[str]:
        if c.name:
            return [x for x in [c.name, self.animal(slot, c), self.action(slot, c)] if x]
        strip = lambda w: w.removeprefix("an ").removeprefix("a ")
        return [x for x in [self.animal(slot, c), *map(strip, self.clothing(slot, c)), self.action(slot, c)] if x]


def example_prompts() -> list[str]:
    return [
        "a fox wearing a red scarf in a snowy forest at night, storybook style",
        "a rabbit wearing a yellow raincoat in the city, rain, storybook style",
        "a bear reading a blue book in a cozy room, storybook style",
        "a penguin in the snow at sunset, storybook style",
        "a frog wearing glasses in a meadow on a sunny day, storybook style",
        "a cat in a purple dress holding a red balloon at the beach, storybook style",
        "a panda wearing a green sweater in the mountains, storybook style",
        "a lion wearing a party hat in the desert at sunset, storybook style",
    ]

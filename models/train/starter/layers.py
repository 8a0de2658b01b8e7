"""From a scene to sprite layers sorted by depth. Both the renderer and the condition maps work on this list."""
from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .background import Background
from .named import IDENTITY
from .scene import Character, Scene

CANVAS = 204  # a dressed character; see art/puppet.ts for its coordinates
HEAD_AT = (50, 18)
WHITE = (1.0, 1.0, 1.0)
TAILS = {"fox", "wolf", "cat", "raccoon", "lion", "tiger", "monkey", "dog", "mouse"}
DETAILED = {"striped", "overalls", "coat"}

# Segment ids. A character owns eight numbers: body, outfit, worn, held.
PROP, CHARACTER, STRIDE = 10, 20, 8
BODY_PART, OUTFIT_PART, WORN_PART, HELD_PART = 0, 1, 2, 3


class Atlas:
    """Sprites by (kind, name, style, colour), premultiplied RGBA as float tensors [4, size, size]."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        meta = json.loads((folder / "atlas.json").read_text())
        self.fur: dict[str, list[float]] = meta["fur"]
        self.colours = {k: tuple(int(v[i : i + 2], 16) / 255 for i in (1, 3, 5)) for k, v in meta["colours"].items()}
        sheets = {}
        for kind, info in meta["sheets"].items():
            size, columns, rows = info["size"], info["columns"], info["rows"]
            pixels = np.asarray(Image.open(folder / f"{kind}.png").convert("RGBA"))
            pixels = pixels.reshape(rows, size, columns, size, 4).transpose(0, 2, 4, 1, 3).reshape(-1, 4, size, size)
            pixels = pixels[: info["count"]].astype(np.float32) / 255
            pixels[:, :3] *= pixels[:, 3:]
            sheets[kind] = torch.from_numpy(pixels)
        self.sprites = {(kind, n, style, colour): sheets[kind][i] for kind, n, style, colour, i in meta["sprites"]}

    def get(self, kind: str, name: str, style: str, colour: str = "") -> torch.Tensor:
        sprite = self.sprites.get((kind, name, style, colour))
        return self.sprites[(kind, name, style, "")] if sprite is None else sprite


@dataclass
class Part:
    sprite: torch.Tensor
    tint: tuple[float, float, float] = WHITE
    at: tuple[int, int] = (0, 0)
    role: int = BODY_PART


@dataclass
class Layer:
    """One drawing. `parts` lie on a 204 px canvas; a lone sprite is a layer with one part and no canvas."""

    x: float
    foot: float
    height: float
    segment: int
    parts: list[Part] = field(default_factory=list)
    sprite: torch.Tensor | None = None
    line: tuple[float, float, float, float] | None = None
    line_colour: tuple[float, float, float] = WHITE
    anchor: float = 0.97  # where in the drawing the foot point is
    flip: bool = False
    rim: float = 0.0
    glows: bool = False  # keeps its daylight colours at night
    light: tuple[float, tuple[float, float, float]] = (1.0, (0.0, 0.0, 0.0))

    @property
    def depth(self) -> float:
        return self.foot


@dataclass
class Layout:
    layers: list[Layer]
    shadows: list[tuple[float, float, float]]


def layout(atlas: Atlas, scene: Scene, bg: Background) -> Layout:
    r = scene.rng("layout")
    light = _light(scene)
    props = sorted(_props(atlas, scene, bg, r), key=lambda l: l.foot)
    for p in props:
        p.light = light
    layers, shadows = list(props), []
    for slot, (c, (x, foot, height)) in enumerate(zip(scene.characters, _places(scene, bg, r))):
        shadows.append((x, foot, height))
        for layer in _character(atlas, scene, c, slot, x, foot, height, r):
            if not layer.glows:
                layer.light = light
            layers.append(layer)
    return Layout(layers, shadows)


def _light(scene: Scene):
    if scene.time == "night":
        return (0.9, (0.03, 0.025, 0.006)) if scene.place == "room" else (0.82, (0.012, 0.02, 0.06))
    if scene.time == "sunset":
        return (0.93, (0.06, 0.033, 0.02))
    return (1.0, (0.0, 0.0, 0.0))


def _places(scene: Scene, bg: Background, r: random.Random) -> list[tuple[float, float, float]]:
    """Foot point and height of every character, from left to right."""
    n, j = len(scene.characters), scene.jitter
    spread = lambda centre, width: centre + r.uniform(-width, width) * j
    if n == 1:
        return [(spread(0.5, 0.13), bg.ground[2] + r.uniform(-0.02, 0.025) * j, spread(0.74, 0.09))]
    centres = [0.28, 0.72] if n == 2 else [0.2, 0.5, 0.8]
    size = 0.58 if n == 2 else 0.46
    return [(spread(x, 0.04), bg.ground[2] + r.uniform(-0.02, 0.025) * j, spread(size, 0.04)) for x in centres]


SCENERY = {
    "meadow": ["tree", "tree", "house"], "forest": ["pine", "tree", "pine", "tree", "pine"],
    "snowforest": ["frost-pine", "frost-pine", "pine"], "snow": ["pine"], "beach": ["palm"], "desert": ["cactus"],
    "city": ["tree", "car"], "mountains": ["pine", "tent", "pine"],
}


def _props(atlas: Atlas, scene: Scene, bg: Background, r: random.Random) -> list[Layer]:
    st, place = scene.style, scene.place
    make = lambda kind, name, x, foot, height, colour="": Layer(
        x, foot, height, PROP, sprite=atlas.get(kind, name, st, colour), flip=r.random() < 0.5
    )
    if place == "room":
        choices = r.sample([("potted", 0.10, 0.24), ("potted", 0.90, 0.24), ("clock", 0.5, 0.14), ("couch", 0.80, 0.36), ("bed", 0.20, 0.34)], 2)
        return [make("scenery", n, x, 0.60 if n == "clock" else 0.80, h) for n, x, h in choices]
    out = []
    far, near, front = bg.ground
    wooded = place in ("forest", "snowforest")
    for _ in range(r.randint(6, 9) if wooded else r.randint(2, 4)):
        name = r.choice(SCENERY[place])
        foot = r.uniform(far - 0.02, near)
        near_ness = (foot - far + 0.05) / (front - far)
        height = (0.20 + 0.30 * near_ness) * r.uniform(0.8, 1.2) * (1.35 if wooded else 1)
        # Trees leave the middle to the characters most of the time.
        x = r.choice([r.uniform(0.02, 0.26), r.uniform(0.74, 0.98), r.random()])
        colour = ""
        if name == "frost-pine":
            name, colour = "pine", "frost"
        elif name == "car":
            foot, height, colour = bg.horizon + 0.41, 0.17, r.choice(["", "red", "yellow", "blue", "green", "white"])
        elif name in ("house", "tent"):
            colour = r.choice(["", "", "red", "yellow", "blue"])
        out.append(make("scenery", name, x, foot, height, colour))
    if place == "beach":
        out.append(make("scenery", "boat", r.uniform(0.1, 0.9), bg.horizon + 0.08, 0.17, r.choice(["", "red", "blue"])))
    if place in ("forest", "meadow"):
        for _ in range(r.randint(1, 4)):
            kind, name = r.choice([("scenery", "mushroom"), ("thing", "flower"), ("thing", "sunflower")])
            out.append(make(kind, name, r.choice([r.uniform(0.02, 0.2), r.uniform(0.8, 0.98)]), r.uniform(front - 0.08, 0.99), r.uniform(0.07, 0.11)))
    return out


HELD_AT = {"star": (116, 70), "book": (62, 108), "flower": (84, 104), "guitar": (70, 104)}
# Things on a string or a stick are layers of their own behind the character: offset of their foot in canvas pixels.
FLOATING = {"balloon": (8, 50, 0.36), "kite": (44, 46, 0.36), "umbrella": (2, -8, 0.60)}


def _character(atlas: Atlas, scene: Scene, c: Character, slot: int, x: float, foot: float, height: float, r: random.Random) -> list[Layer]:
    st = scene.style
    segment = CHARACTER + STRIDE * slot
    rim = 5.0 if st == "sticker" else 0.0
    if c.kind == "creature":
        return [Layer(x, foot, height * 0.74, segment, sprite=atlas.get("creature", c.species, st, c.fur),
                      anchor=0.98, rim=rim * 0.8, flip=scene.jitter > 0.5 and r.random() < 0.5)]
    shade = "soft" if st in ("soft", "storybook") else "none"
    part = lambda name, tint, role: Part(atlas.get("part", name, shade), tint, role=role)
    fur = tuple(atlas.fur[f"{c.species}|{st}|{c.fur}"])
    out, parts, unit = [], [], height / CANVAS
    held = atlas.get("thing", c.held, st, c.held_colour) if c.held else None
    if c.held in FLOATING:
        dx, up, size = FLOATING[c.held]
        hand = (x + 50 * unit, foot - 98 * unit)
        top = (hand[0] + dx * unit, hand[1] - up * unit)
        if c.held != "umbrella":
            string = (0.97, 0.95, 0.9) if scene.time == "night" else (0.35, 0.33, 0.38)
            out.append(Layer(x, foot, 0, segment + HELD_PART, line=(*hand, *top), line_colour=string))
        out.append(Layer(top[0], top[1], height * size, segment + HELD_PART, sprite=held, anchor=1.0))
    identity = IDENTITY.get(c.name)
    mark = lambda name, role: Part(atlas.get("part", f"identity:{name}", "none"), role=role)
    if c.species in TAILS:
        parts.append(part(f"tail:{c.pose}", fur, BODY_PART))
    if identity:
        parts += [mark(name, WORN_PART) for name in identity.behind]
    parts.append(part(f"limbs:{c.pose}", fur, BODY_PART))
    if c.outfit:
        parts.append(part(f"{c.outfit}:{c.pose}", atlas.colours[c.outfit_colour], OUTFIT_PART))
        if c.outfit in DETAILED:
            parts.append(part(f"{c.outfit}_detail:{c.pose}", WHITE, OUTFIT_PART))
    if identity:
        parts += [mark(name, OUTFIT_PART) for name in identity.on_outfit]
    if c.worn == "scarf":
        parts.append(part("scarf", atlas.colours[c.worn_colour], WORN_PART))
    parts.append(Part(atlas.get("head", c.species, st, c.fur), at=HEAD_AT))
    if identity:
        parts += [mark(name, WORN_PART) for name in identity.on_head]
    if c.worn and c.worn != "scarf":
        parts.append(part(c.worn, atlas.colours[c.worn_colour], WORN_PART))
        if c.worn == "partyhat":
            parts.append(part("partyhat_detail", WHITE, WORN_PART))
    if held is not None and c.held not in FLOATING and c.held != "lantern":
        parts.append(Part(held, at=HELD_AT.get(c.held, (62, 108)), role=HELD_PART))
    out.append(Layer(x, foot, height, segment, parts=parts, anchor=0.985, rim=rim))
    if c.held == "lantern":
        out.append(Layer(x + 52 * unit, foot - 56 * unit, height * 0.27, segment + HELD_PART, sprite=held, glows=True))
    return out

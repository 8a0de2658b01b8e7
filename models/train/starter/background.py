"""Backgrounds drawn from formulas: sky, sun or moon, clouds, three height fields, rooms; and the weather in front."""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from .scene import Scene

SIZE = 256
F32 = np.float32

SKY = {"day": ("8fd0f5", "dff3fb"), "sunset": ("f0875a", "fbdc9c"), "night": ("16224d", "3b4d86")}
GROUND = {
    "meadow": ("9fd08b", "7fbf6a", "62a955"), "forest": ("4d8a5c", "4a8557", "3b7148"),
    "snowforest": ("8fb0b8", "dde8f1", "f3f8fc"), "snow": ("b9cbe0", "e4edf5", "f8fbfd"),
    "beach": ("4fb0d0", "3f9fc6", "f0d9a2"), "desert": ("e9b872", "e3a55b", "d99447"),
    "city": ("b7bccb", "9fa6b8", "7d8394"), "mountains": ("8f9fb8", "86b07a", "6ea262"), "room": ("e8cfae", "c99b6b", "c99b6b"),
}
WALLS = ["f3d9c2", "cfe3d4", "d5dcf0", "f6e3b5", "eecfd6"]
RUGS = ["c8584f", "4f7fae", "6fa37a", "d9a441"]

_y, _x = np.mgrid[0:SIZE, 0:SIZE].astype(F32)
YY, XX = (_y + 0.5) / SIZE, (_x + 0.5) / SIZE
X1 = XX[0]


def rgb(code: str) -> np.ndarray:
    return np.array([int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)], F32)


NIGHT, SUNSET = rgb("26346b"), rgb("e07a4f")


def light(colour, time: str, strength: float = 1.0) -> np.ndarray:
    colour = np.asarray(colour, F32)
    if time == "night":
        return (colour * (1 - 0.55 * strength) + NIGHT * 0.55 * strength) * F32(0.92)
    if time == "sunset":
        return colour * (1 - 0.22 * strength) + SUNSET * 0.22 * strength
    return colour


# --- drawing inside the bounding box of a shape only: ten times faster than on the whole frame -------------------


def window(x0, y0, x1, y1):
    clip = lambda v: int(min(SIZE, max(0, v * SIZE)))
    return slice(clip(y0), clip(y1) + 1), slice(clip(x0), clip(x1) + 1)


def coverage(distance):
    """Anti-aliased coverage of a signed distance (inside positive, in picture widths)."""
    return np.clip(distance * SIZE + 0.5, 0, 1)


def over(image, alpha, colour, where=(slice(None), slice(None))):
    region = image[where]
    region += alpha[..., None] * (colour - region)


def disc(image, x, y, radius, colour, alpha=1.0):
    m = radius + 0.01
    w = window(x - m, y - m, x + m, y + m)
    over(image, alpha * coverage(radius - np.hypot(XX[w] - x, YY[w] - y)), colour, w)


def box(image, x0, y0, x1, y1, colour, alpha=1.0):
    w = window(x0 - 0.01, y0 - 0.01, x1 + 0.01, y1 + 0.01)
    inside = coverage(XX[w] - x0) * coverage(x1 - XX[w]) * coverage(YY[w] - y0) * coverage(y1 - YY[w])
    over(image, alpha * inside, colour, w)


def height_field(r: random.Random, base: float, amplitude: float, kind: str) -> np.ndarray:
    """Upper edge of a ground layer for every column."""
    if kind == "flat":
        return np.full(SIZE, base, F32)
    if kind == "peaks":
        f, p = r.uniform(1.2, 2.6), r.random()
        tooth = lambda k, q: np.abs(((X1 * k + q) % 1) - 0.5)
        return base - amplitude * (tooth(f, p) * 1.6 + tooth(f * 2.3, p * 3) * 0.2)
    if kind == "treeline":
        f, p = r.uniform(9, 13), r.random()
        tips = 1 - 2 * np.abs(((X1 * f + p) % 1) - 0.5)
        tall = 0.75 + 0.25 * np.sin(np.floor(X1 * f + p) * 2.4 + p * 9)
        return base - amplitude * tips * tall
    if kind == "skyline":
        y, i = np.zeros(SIZE, F32), 0
        while i < SIZE:
            width = r.randint(22, 44)
            y[i : i + width] = base - amplitude * r.uniform(0.25, 1)
            i += width
        return y
    wave = lambda lo, hi: np.sin(6.283 * (X1 * r.uniform(lo, hi) + r.random()))
    return base + amplitude * (0.6 * wave(0.5, 1.3) + 0.4 * wave(1.3, 2.4))


@dataclass
class Background:
    image: np.ndarray  # float32, 0..1
    segmentation: np.ndarray  # 0 sky or wall, 2..4 ground bands
    horizon: float
    ground: tuple[float, float, float]  # foot heights: farthest props, nearest props, characters


def background(scene: Scene) -> Background:
    r = scene.rng("background")
    out = _room(scene, r) if scene.place == "room" else _outdoors(scene, r)
    if scene.style == "storybook":
        out.image *= 1 + _paper()
    return out


def _jitter(r: random.Random, scene: Scene, code: str) -> np.ndarray:
    spread = 0.01 + 0.02 * scene.jitter
    return np.clip(rgb(code) + np.array([r.uniform(-spread, spread) for _ in range(3)], F32), 0, 1)


def _room(scene: Scene, r: random.Random) -> Background:
    t, floor = scene.time, 0.70
    wall = light(_jitter(r, scene, r.choice(WALLS)), t, 0.75)
    image = np.broadcast_to(wall, (SIZE, SIZE, 3)).astype(F32).copy()
    box(image, -1, floor, 2, 2, light(_jitter(r, scene, "b98a5e"), t, 0.75))
    box(image, -1, floor, 2, floor + 0.018, light(rgb("fbf3e6"), t, 0.75))

    x, y, w, h = r.choice([0.10, 0.64]), 0.10, 0.26, 0.30
    frame = light(rgb("fffaf0"), t, 0.6)
    box(image, x - 0.018, y - 0.018, x + w + 0.018, y + h + 0.018, frame)
    top, bottom = map(rgb, SKY[t])
    for k in range(12):
        box(image, x, y + h * k / 12, x + w, y + h * (k + 1) / 12, top + (bottom - top) * k / 12)
    if t == "night":
        disc(image, x + w * 0.68, y + h * 0.3, 0.035, rgb("fdf3c8"))
    box(image, x + w / 2 - 0.006, y, x + w / 2 + 0.006, y + h, frame)
    box(image, x, y + h / 2 - 0.006, x + w, y + h / 2 + 0.006, frame)

    rug = light(_jitter(r, scene, r.choice(RUGS)), t, 0.6)
    ring = np.hypot((XX - 0.5) * 0.9, (YY - 0.88) * 2.9)
    over(image, coverage(0.34 - ring), rug)
    over(image, coverage(0.30 - ring) * 0.35, rgb("ffffff"))
    segmentation = np.zeros((SIZE, SIZE), np.uint8)
    segmentation[YY > floor] = 3
    return Background(image, segmentation, floor, (0.76, 0.84, 0.94))


def _outdoors(scene: Scene, r: random.Random) -> Background:
    t, place = scene.time, scene.place
    horizon = 0.54 + r.uniform(-0.04, 0.04) * scene.jitter
    q = np.clip(YY[:, :1] / horizon, 0, 0.999)
    if scene.style == "flat":
        q = np.floor(q * 4) / 3
    top, bottom = map(rgb, SKY[t])
    image = np.broadcast_to((top + (bottom - top) * q)[:, None], (SIZE, SIZE, 3)).astype(F32).copy()
    _lights(scene, r, image, horizon)
    _clouds(scene, r, image)

    segmentation = np.zeros((SIZE, SIZE), np.uint8)
    for band, (edge, colour, kind) in enumerate(_ground(scene, r, horizon)):
        w = (slice(int(max(0, edge.min() * SIZE - 2)), SIZE), slice(None))
        yy = YY[w]
        alpha = coverage(yy - edge[None])
        shaded = light(colour, t)
        if scene.style in ("soft", "storybook"):
            shaded = np.clip(shaded * (1.06 - 0.22 * np.clip((yy - edge[None]) / 0.25, 0, 1))[..., None], 0, 1)
        over(image, alpha, shaded.astype(F32), w)
        segmentation[w][alpha > 0.5] = 2 + band
        if kind == "windows":
            _windows(image, w, edge, horizon, t, band)
        elif kind == "snowcap":
            cap = edge[None] + 0.05 + 0.012 * np.sin(XX[w] * 60)
            over(image, alpha * coverage(cap - yy) * coverage(horizon - 0.06 - yy), light(rgb("ffffff"), t), w)
        elif kind == "waves":
            for _ in range(7):
                y0, x0, width = r.uniform(edge.mean() + 0.015, edge.mean() + 0.10), r.random(), r.uniform(0.02, 0.06)
                box(image, x0 - width, y0 - 0.003, x0 + width, y0 + 0.003, light(rgb("d8f2fa"), t), 0.7)
    if place == "city":
        road = horizon + 0.30
        box(image, -1, road, 2, road + 0.15, light(rgb("585e6e"), t))
        w = window(0, road + 0.05, 1, road + 0.09)
        over(image, coverage(0.006 - np.abs(YY[w] - road - 0.07)) * ((XX[w] * SIZE // 14) % 2), light(rgb("f4efe0"), t), w)
    return Background(image, segmentation, horizon, (horizon + 0.12, horizon + 0.22, 0.94))


def _ground(scene: Scene, r: random.Random, horizon: float):
    far, mid, near = (_jitter(r, scene, c) for c in GROUND[scene.place])
    field = lambda dy, amplitude, kind="hills": height_field(r, horizon + dy, amplitude, kind)
    match scene.place:
        case "city":
            return [(field(0.06, 0.36, "skyline"), far * F32(0.97), "windows"), (field(0.10, 0.24, "skyline"), mid * F32(0.92), "windows"),
                    (field(0.14, 0, "flat"), near, "")]
        case "mountains":
            return [(field(0.06, 0.36, "peaks"), far, "snowcap"), (field(0.06, 0.03), mid, ""), (field(0.20, 0.03), near, "")]
        case "snow":
            return [(field(0.05, 0.26, "peaks"), far, "snowcap"), (field(0.06, 0.04), mid, ""), (field(0.20, 0.03), near, "")]
        case "beach":
            shore = field(0.10, 0, "flat") + F32(0.008) * np.sin(X1 * 28 + r.random() * 6)
            return [(field(-0.02, 0, "flat"), far, "waves"), (shore, mid, "waves"), (field(0.20, 0.012), near, "")]
        case "forest" | "snowforest":
            return [(field(0.04, 0.20, "treeline"), far, ""), (field(0.05, 0.03), mid, ""), (field(0.20, 0.03), near, "")]
    return [(field(0, 0.05), far, ""), (field(0.09, 0.04), mid, ""), (field(0.22, 0.03), near, "")]


def _lights(scene: Scene, r: random.Random, image, horizon: float) -> None:
    t = scene.time
    if t == "night" or (t == "sunset" and r.random() < 0.3):
        for _ in range(r.randint(14, 30)):
            disc(image, r.random(), r.random() * 0.45, r.uniform(0.0025, 0.006), rgb("fff7d6"))
    x, y = r.uniform(0.12, 0.88), r.uniform(0.10, 0.20)
    if scene.weather == "rain":
        return
    if t == "night":
        disc(image, x, y, 0.062, rgb("fdf3c8"))
        disc(image, x + 0.02, y - 0.015, 0.012, rgb("f0e2a8"))
        disc(image, x - 0.02, y + 0.02, 0.009, rgb("f0e2a8"))
    elif t == "sunset":
        disc(image, x, horizon - 0.06, 0.105, rgb("ffd27a"))
        disc(image, x, horizon - 0.06, 0.085, rgb("fff0bf"))
    else:
        disc(image, x, y, 0.062, rgb("ffd84d"))


def _clouds(scene: Scene, r: random.Random, image) -> None:
    number = {"clear": r.randint(0, 1), "cloudy": 5, "rain": 6, "snow": 3}[scene.weather]
    grey = rgb("aeb8c6" if scene.weather == "rain" else "ffffff")
    colour = light(grey, scene.time, 0.6)
    for _ in range(number):
        x, y, s = r.random(), r.uniform(0.06, 0.28), r.uniform(0.7, 1.3)
        w = window(x - 0.12 * s, y - 0.08 * s, x + 0.13 * s, y + 0.06 * s)
        alpha = np.zeros_like(XX[w])
        for dx, dy, radius in ((-0.07, 0.012, 0.035), (-0.02, -0.012, 0.05), (0.045, 0, 0.042), (0.09, 0.016, 0.028)):
            alpha = np.maximum(alpha, coverage(radius * s - np.hypot(XX[w] - x - dx * s, YY[w] - y - dy * s)))
        over(image, alpha * coverage(y + 0.03 * s - YY[w]) * 0.95, colour, w)


def _windows(image, w, edge, horizon: float, time: str, band: int) -> None:
    px, py = XX[w] * SIZE, YY[w] * SIZE
    noise = np.sin(np.floor(px / 11) * 12.9 + np.floor(py / 13) * 78.2 + band) * 43758.5
    lit = (noise - np.floor(noise)) < (0.5 if time == "day" else 0.62)
    gx, gy = px % 11, py % 13
    pane = (gx > 3) & (gx < 8) & (gy > 4) & (gy < 10) & lit & (YY[w] > edge[None] + 0.03) & (YY[w] < horizon + 0.1)
    over(image, pane * F32(0.9), rgb("dcecf8" if time == "day" else "ffe08a"), w)


def weather(scene: Scene, image: np.ndarray) -> None:
    """Rain or snow in front of everything."""
    if scene.place == "room":
        return
    r = scene.rng("weather")
    if scene.weather == "rain":
        for _ in range(70):
            x, y, length = r.random(), r.random(), r.uniform(0.02, 0.05)
            w = window(x - 0.02, y - length, x + 0.02, y + length)
            line = coverage(0.0022 - np.abs((XX[w] - x) + (YY[w] - y) * 0.25)) * coverage(length - np.abs(YY[w] - y))
            over(image, line * 0.55, rgb("d8e8f6"), w)
    elif scene.weather == "snow":
        for _ in range(60):
            disc(image, r.random(), r.random(), r.uniform(0.004, 0.010), rgb("ffffff"), 0.95)


_paper_cache: list[np.ndarray] = []


def _paper() -> np.ndarray:
    """Fine grain, the same sheet of paper for every storybook picture."""
    if not _paper_cache:
        g = np.random.RandomState(0)
        noise = sum(np.kron(g.randn(SIZE // k, SIZE // k), np.ones((k, k))) for k in (1, 2, 4))
        _paper_cache.append((noise / noise.std() * 0.006).astype(F32)[..., None])
    return _paper_cache[0]

"""Condition maps for control adapters, exact because they come from the layers and not from a detector."""
from __future__ import annotations

import numpy as np

from .layers import CHARACTER, HELD_PART, PROP, STRIDE
from .render import Rendered

# Colours of the segmentation map: sky or wall, three ground bands, prop, characters 1-3, held thing.
PALETTE = {
    "sky": (135, 206, 235), "ground1": (110, 150, 90), "ground2": (150, 180, 110), "ground3": (190, 210, 140),
    "prop": (160, 110, 70), "character1": (230, 80, 80), "character2": (80, 110, 230), "character3": (230, 190, 60), "held": (180, 70, 200),
}


def classes(segmentation: np.ndarray) -> np.ndarray:
    """Nine classes out of the renderer's segment ids: parts of a character count as the character."""
    out = np.zeros_like(segmentation)
    for band in (2, 3, 4):
        out[segmentation == band] = band - 1
    out[segmentation == PROP] = 4
    on = segmentation >= CHARACTER
    slot, role = np.divmod(segmentation.astype(np.int16) - CHARACTER, STRIDE)
    out[on] = np.where(role[on] == HELD_PART, 8, 5 + np.clip(slot[on], 0, 2))
    return out


def segmentation_map(r: Rendered) -> np.ndarray:
    return np.array(list(PALETTE.values()), np.uint8)[classes(r.segmentation)]


def depth_map(r: Rendered) -> np.ndarray:
    """Depth *order*: brighter is nearer; the ground takes its own foot height."""
    rows = (np.arange(r.depth.shape[0], dtype=np.float32)[:, None] + 0.5) / r.depth.shape[0]
    ground = np.where(r.segmentation >= 2, rows, 0)
    d = np.where(r.depth > 0, r.depth, ground)
    return (np.clip(d, 0, 1) * 255).astype(np.uint8)


def _gradient(grey: np.ndarray) -> np.ndarray:
    gy, gx = np.gradient(grey)
    return np.hypot(gy, gx)


def edge_map(r: Rendered, threshold: float = 0.06) -> np.ndarray:
    return ((_gradient(r.image.mean(2)) > threshold) * 255).astype(np.uint8)


def scribble_map(r: Rendered, seed: int = 0, thickness: int = 2, wobble: float = 2.0) -> np.ndarray:
    """Outlines of the segments only, shaken and thick, like a quick drawing by hand."""
    c = classes(r.segmentation)
    line = np.zeros(c.shape, bool)
    line[:, 1:] |= c[:, 1:] != c[:, :-1]
    line[1:] |= c[1:] != c[:-1]
    rng = np.random.RandomState(seed)
    size = c.shape[0]
    coarse = rng.randn(2, 9, 9) * wobble
    grid = np.linspace(0, 8, size)
    smooth = [np.array([np.interp(grid, range(9), row) for row in np.array([np.interp(grid, range(9), f[:, k]) for k in range(9)]).T]) for f in coarse]
    yy, xx = np.mgrid[0:size, 0:size]
    sy = np.clip(yy + smooth[0], 0, size - 1).astype(int)
    sx = np.clip(xx + smooth[1], 0, size - 1).astype(int)
    line = line[sy, sx]
    thick = line.copy()
    for dy in range(-thickness, thickness + 1):
        for dx in range(-thickness, thickness + 1):
            if dy * dy + dx * dx <= thickness * thickness:
                thick |= np.roll(line, (dy, dx), (0, 1))
    return (thick * 255).astype(np.uint8)


def palette_map(r: Rendered, cells: int = 8) -> np.ndarray:
    n = r.image.shape[0] // cells
    mean = r.image.reshape(cells, n, cells, n, 3).mean((1, 3))
    return (np.kron(mean, np.ones((n, n, 1))) * 255).astype(np.uint8)


def boxes(r: Rendered) -> list[tuple[str, float, float, float, float]]:
    """(class, x0, y0, x1, y1) of every character and held thing, as shares of the picture."""
    c, names, out = classes(r.segmentation), list(PALETTE), []
    for k in range(5, 9):
        ys, xs = np.nonzero(c == k)
        if len(ys):
            n = c.shape[0]
            out.append((names[k], xs.min() / n, ys.min() / n, (xs.max() + 1) / n, (ys.max() + 1) / n))
    return out

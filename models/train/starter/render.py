"""Draws a scene: picture, segmentation, depth order, and how much of every stated part is in sight."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .background import SIZE, XX, YY, background, coverage, over, weather, window
from .layers import CANVAS, CHARACTER, HELD_PART, OUTFIT_PART, STRIDE, WHITE, WORN_PART, Atlas, Layer, layout
from .scene import Scene

F32 = np.float32
ROLES = {OUTFIT_PART: "outfit", WORN_PART: "worn", HELD_PART: "held"}


@dataclass
class Rendered:
    image: np.ndarray  # float32 [256, 256, 3], 0..1
    segmentation: np.ndarray  # uint8
    depth: np.ndarray  # float32, foot height of what is seen (0 = background)
    visible: dict[str, float]  # "0.outfit" -> share of its area in sight

    def bytes(self) -> np.ndarray:
        return (self.image * 255 + 0.5).astype(np.uint8)


def render(atlas: Atlas, scene: Scene) -> Rendered:
    bg = background(scene)
    image, segmentation = bg.image, bg.segmentation
    depth = np.zeros((SIZE, SIZE), F32)
    drawing = layout(atlas, scene, bg)
    area: dict[int, float] = {}
    for x, y, height in drawing.shadows:
        w = window(x - height * 0.33, y - 0.012 - height * 0.06, x + height * 0.33, y - 0.012 + height * 0.06)
        a = np.clip(1.2 - np.hypot((XX[w] - x) / (height * 0.30), (YY[w] - y + 0.012) / (height * 0.055)) ** 2, 0, 1)
        image[w] *= 1 - 0.22 * np.minimum(1, a * 2)[..., None]
    for layer in drawing.layers:
        if layer.line:
            _line(image, layer)
        else:
            _paste(image, segmentation, depth, layer, area)
    weather(scene, image)
    visible = {}
    for segment, full in area.items():
        slot, role = divmod(segment - CHARACTER, STRIDE)
        if segment >= CHARACTER and role in ROLES:
            visible[f"{slot}.{ROLES[role]}"] = float((segmentation == segment).sum() / max(full, 1.0))
    return Rendered(np.clip(image, 0, 1), segmentation, depth, visible)


def _line(image: np.ndarray, layer: Layer) -> None:
    x0, y0, x1, y1 = layer.line
    w = window(min(x0, x1) - 0.01, min(y0, y1) - 0.01, max(x0, x1) + 0.01, max(y0, y1) + 0.01)
    q = np.clip(((XX[w] - x0) * (x1 - x0) + (YY[w] - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2 + 1e-9), 0, 1)
    over(image, coverage(0.003 - np.hypot(XX[w] - x0 - q * (x1 - x0), YY[w] - y0 - q * (y1 - y0))), np.array(layer.line_colour, F32), w)


def compose_parts(layer: Layer) -> tuple[torch.Tensor, np.ndarray, dict[int, int]]:
    """The character on its canvas, the role of every canvas pixel, and the area of every role before occlusion."""
    canvas, roles, areas = torch.zeros(4, CANVAS, CANVAS), np.zeros((CANVAS, CANVAS), np.uint8), {}
    for part in layer.parts:
        sprite, (dx, dy), size = part.sprite, part.at, part.sprite.shape[1]
        if part.tint != WHITE:
            sprite = torch.cat([sprite[:3] * torch.tensor(part.tint)[:, None, None], sprite[3:]])
        view = canvas[:, dy : dy + size, dx : dx + size]
        view.mul_(1 - sprite[3:]).add_(sprite)
        solid = (sprite[3] > 0.5).numpy()
        roles[dy : dy + size, dx : dx + size][solid] = part.role
        # Details lie on top of their garment, so the garment's own area is the larger of the two.
        areas[part.role] = max(areas.get(part.role, 0), int(solid.sum()))
    return canvas, roles, areas


def _paste(image, segmentation, depth, layer: Layer, area: dict[int, float]) -> None:
    roles = None
    if layer.sprite is None:
        sprite, roles, areas = compose_parts(layer)
    else:
        sprite = layer.sprite
    if layer.rim:
        k = int(round(layer.rim)) * 2 + 1
        a = F.max_pool2d(F.avg_pool2d(sprite[None, 3:], 3, 1, 1), k, 1, k // 2)[0]
        sprite = sprite + (1 - sprite[3:]) * a.clamp(0, 1)
    native = sprite.shape[1]
    pixels = layer.height * SIZE
    cx, cy = layer.x * SIZE, (layer.foot - layer.height * (layer.anchor - 0.5)) * SIZE
    margin = pixels * 0.5 + 1
    x0, x1 = int(max(0, cx - margin)), int(min(SIZE, cx + margin))
    y0, y1 = int(max(0, cy - margin)), int(min(SIZE, cy + margin))
    scale = (pixels / native) ** 2
    if roles is not None:
        for role, n in areas.items():
            area[layer.segment + role] = area.get(layer.segment + role, 0) + n * scale
    else:
        area[layer.segment] = area.get(layer.segment, 0) + float((sprite[3] > 0.5).sum()) * scale
    if x1 <= x0 or y1 <= y0:
        return
    gy = (torch.arange(y0, y1) + 0.5 - cy) / (pixels / 2)
    gx = (torch.arange(x0, x1) + 0.5 - cx) / (pixels / 2) * (-1 if layer.flip else 1)
    grid = torch.stack(torch.meshgrid(gy, gx, indexing="ij")[::-1], -1)[None]
    source = F.avg_pool2d(sprite[None], 2) if pixels * 2.2 < native else sprite[None]
    out = F.grid_sample(source, grid, align_corners=False)[0].numpy()
    alpha = out[3]
    gain, lift = layer.light
    region = image[y0:y1, x0:x1]
    region *= 1 - alpha[..., None]
    region += out[:3].transpose(1, 2, 0) * F32(gain) + alpha[..., None] * np.array(lift, F32)
    solid = alpha > 0.5
    if roles is None:
        ids = np.full(solid.shape, layer.segment, np.uint8)
    else:
        at = lambda g: np.clip(((g.numpy() + 1) * native / 2).astype(int), 0, native - 1)
        ids = (layer.segment + roles[np.ix_(at(gy), at(gx))]).astype(np.uint8)
    segmentation[y0:y1, x0:x1][solid] = ids[solid]
    depth[y0:y1, x0:x1][solid] = layer.depth

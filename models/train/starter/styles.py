"""Adapter styles: the composer's pictures drawn over again. No base picture looks like them.

Each takes a rendered scene (picture and segmentation) and gives bytes; scene, layout and caption stay the same, so base and
style pictures form exact pairs.
"""
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from .background import SIZE, rgb
from .conditions import classes
from .render import Rendered
from .scene import Scene

F32 = np.float32
LUMA = np.array([0.299, 0.587, 0.114], F32)
PAPER, INK, BOARD = rgb("f6efe0"), rgb("1b1c2c"), rgb("25463c")


def _smooth(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray((image * 255 + 0.5).astype(np.uint8)).filter(ImageFilter.MedianFilter(size)), F32) / 255


def _lines(r: Rendered, image: np.ndarray, low: float, high: float, thickness: int) -> np.ndarray:
    """Coverage of outlines: steps in colour, and borders between things even where their colours are alike."""
    x = torch.from_numpy(image.transpose(2, 0, 1))[None]
    dx = F.pad((x[..., :, 1:] - x[..., :, :-1]).abs().amax(1), (0, 1))
    dy = F.pad((x[..., 1:, :] - x[..., :-1, :]).abs().amax(1), (0, 0, 0, 1))
    line = ((dx.maximum(dy) - low) / (high - low)).clamp(0, 1)
    c = torch.from_numpy(classes(r.segmentation).astype(np.int16))
    border = torch.zeros(SIZE, SIZE)
    border[:, 1:] += (c[:, 1:] != c[:, :-1]).float()
    border[1:] += (c[1:] != c[:-1]).float()
    line = line.maximum(border.clamp(max=1)[None])
    wide = F.max_pool2d(line[None], thickness, 1, thickness // 2)
    return F.avg_pool2d(F.pad(wide, (1, 1, 1, 1), mode="replicate"), 3, 1)[0, 0].numpy()


def ink(r: Rendered, scene: Scene) -> np.ndarray:
    """A pale wash on cream paper under dark outlines."""
    smooth = _smooth(r.image, 7)
    grey = (smooth @ LUMA)[..., None]
    wash = grey + (smooth - grey) * 0.55
    wash = 0.35 + 0.65 * wash  # diluted: even a night is only a darker wash
    wash = wash * PAPER
    line = _lines(r, smooth, 0.035, 0.14, 3)[..., None]
    return wash + (INK - wash) * line * F32(0.92)


def chalk(r: Rendered, scene: Scene) -> np.ndarray:
    """Coloured chalk on a green board: light outlines, faintly rubbed-in surfaces."""
    smooth = _smooth(r.image, 7)
    board = BOARD * F32(0.8) + smooth * F32(0.26)
    line = _lines(r, smooth, 0.04, 0.14, 3)[..., None]
    near = np.asarray(Image.fromarray((smooth * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(5)), F32) / 255
    stick = np.clip(near * 0.75 + 0.32, 0, 1)
    return board + (stick - board) * line * F32(0.9)


def paper(r: Rendered, scene: Scene) -> np.ndarray:
    """Cut paper: few flat tones, every thing with a light rim and a shadow below and right."""
    smooth = _smooth(r.image, 9)
    flat = np.round(smooth * 6) / 6
    c = classes(r.segmentation)
    out = flat * F32(0.85) + F32(0.12)
    for k in range(1, 9):
        inside = torch.from_numpy((c >= k).astype(F32))[None, None]
        shadow = F.avg_pool2d(F.pad(inside, (6, 2, 6, 2))[..., :SIZE + 2, :SIZE + 2], 3, 1)[..., :SIZE, :SIZE]
        edge = (shadow[0, 0].numpy() * (1 - inside[0, 0].numpy()))[..., None]
        out = out * (1 - 0.45 * edge)
    on = torch.from_numpy((c >= 4).astype(F32))[None, None]
    rim = (F.max_pool2d(on, 5, 1, 2) - on).clamp(0, 1)[0, 0].numpy()[..., None]
    return out + (1 - out) * rim * F32(0.85)


STYLES = {"ink": ink, "chalk": chalk, "paper": paper}


def restyle(name: str, drawn: Rendered, scene: Scene) -> np.ndarray:
    return (np.clip(STYLES[name](drawn, scene), 0, 1) * 255 + 0.5).astype(np.uint8)

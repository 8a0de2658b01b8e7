"""Small sets of composed scenes as latents: what adapters are trained on, and what the judge learns to tell apart."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable

import numpy as np
import torch

from .caption import Caption, caption
from .layers import Atlas
from .nets import Vae
from .render import Rendered, render
from .scene import Scene, facts
from .styles import restyle
from .vae import to_input


@dataclass
class Example:
    latent: np.ndarray  # float32 [8, 16, 16], scaled as the U-Net sees it
    scene: Scene
    captions: list[Caption]
    mask: np.ndarray  # float32 [16, 16], 1 where a character is


@torch.no_grad()
def encode(vae: Vae, scale: float, images: np.ndarray) -> np.ndarray:
    with torch.autocast("cpu", torch.bfloat16):
        mean, _ = vae.encode(to_input(images).contiguous(memory_format=torch.channels_last))
    return (mean.float() * scale).numpy()


def examples(atlas: Atlas, vae: Vae, scale: float, scenes: Iterable[Scene], style: str = "", variants: int = 3, flip: bool = True) -> list[Example]:
    """Draws, restyles and encodes scenes. With `flip` each comes a second time mirrored (no caption says left or right)."""
    out, vae = [], vae.to(memory_format=torch.channels_last)
    for scene in scenes:
        drawn = render(atlas, scene)
        image = restyle(style, drawn, scene) if style else drawn.bytes()
        texts = [caption(scene, drawn.visible, v) for v in range(variants)]
        for mirrored in (False, True) if flip else (False,):
            picture = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
            on = character_mask(drawn)
            out.append(Example(encode(vae, scale, picture[None])[0], scene, texts, on[:, ::-1].copy() if mirrored else on))
    return out


def character_mask(drawn: Rendered) -> np.ndarray:
    size = drawn.segmentation.shape[0] // 16
    return ((drawn.segmentation >= 20).reshape(16, size, 16, size).mean((1, 3)) > 0.25).astype(np.float32)


def cached(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays from a file, or made and written beside it and renamed."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, **make())
        part.rename(path)
    return dict(np.load(path))


def truth_rows(rows: list[Example], truth: Callable[[dict[str, str]], list[int]]) -> np.ndarray:
    return np.array([truth(facts(e.scene)) for e in rows], np.int64)

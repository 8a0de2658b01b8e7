"""Sheets of composed scenes to look at.    python -m starter.sheet ATLAS OUT.png --level 0 --count 64"""
from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image

from .caption import caption
from .layers import Atlas
from .render import render
from .scene import LEVELS, sample


def grid(images: list[np.ndarray], columns: int) -> Image.Image:
    rows = [np.concatenate(images[i : i + columns], 1) for i in range(0, len(images) - columns + 1, columns)]
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("atlas")
    p.add_argument("out")
    p.add_argument("--level", type=int, default=0)
    p.add_argument("--count", type=int, default=64)
    p.add_argument("--seed", type=int, default=990_000_000)
    p.add_argument("--split", default="train")
    a = p.parse_args()
    torch.set_num_threads(1)
    atlas, images, lines = Atlas(a.atlas), [], []
    for i in range(a.count):
        scene = sample(a.seed + i, LEVELS[a.level], a.split)
        drawn = render(atlas, scene)
        images.append(drawn.bytes())
        lines.append(caption(scene, drawn.visible).text)
    grid(images, int(a.count**0.5)).save(a.out)
    print("\n".join(f"{i:3d} {line}" for i, line in enumerate(lines)))


if __name__ == "__main__":
    main()

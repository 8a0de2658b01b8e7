"""Renders the training pool: pictures as one memory-mapped file, captions and facts as lines of JSON. Resumable.

    python -m starter.pool ATLAS OUT --count 24000 --level 0
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from .background import SIZE
from .caption import caption
from .layers import Atlas
from .render import render
from .scene import LEVELS, facts, sample

VARIANTS = 2
SEED_STRIDE = 10_000_000  # every level has its own seeds, so widening never repeats a scene


def record(atlas: Atlas, seed: int, level: int, split: str = "train", variants: int = VARIANTS) -> tuple[np.ndarray, dict]:
    scene = sample(seed, LEVELS[level], split)
    drawn = render(atlas, scene)
    captions = [caption(scene, drawn.visible, v) for v in range(variants)]
    on = (drawn.segmentation >= 20).reshape(16, SIZE // 16, 16, SIZE // 16).mean((1, 3))
    return drawn.bytes(), {
        "seed": seed, "level": level, "facts": facts(scene),
        "captions": [c.text for c in captions], "stated": [c.stated for c in captions],
        # Where the characters are, on the 16 x 16 latent grid: used to weigh the loss.
        "mask": "".join("1" if v > 0.25 else "0" for v in on.flatten()),
    }


class Pool:
    """Read side. `len` grows while another process is rendering."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.capacity = json.loads((self.folder / "pool.json").read_text())["capacity"]
        self.images = np.memmap(self.folder / "images.u8", np.uint8, "r", shape=(self.capacity, SIZE, SIZE, 3))

    def records(self, start: int = 0, end: int | None = None) -> list[dict]:
        lines = (self.folder / "scenes.jsonl").read_text().split("\n")[:-1]  # after the last newline: nothing, or half a line
        return [json.loads(line) for line in lines[start:end]]

    def __len__(self) -> int:
        with open(self.folder / "scenes.jsonl", "rb") as f:
            return sum(block.count(b"\n") for block in iter(lambda: f.read(1 << 22), b""))


def build(atlas_dir: str, out: str, count: int, level: int, first: int) -> None:
    torch.set_num_threads(1)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    meta = folder / "pool.json"
    capacity = max(count, json.loads(meta.read_text())["capacity"] if meta.exists() else 0)
    meta.write_text(json.dumps({"capacity": capacity, "size": SIZE}))
    path, index = folder / "images.u8", folder / "scenes.jsonl"
    path.touch()
    with open(path, "r+b") as f:
        f.truncate(capacity * SIZE * SIZE * 3)
    index.touch()
    done = len(Pool(folder))
    images = np.memmap(path, np.uint8, "r+", shape=(capacity, SIZE, SIZE, 3))
    atlas = Atlas(atlas_dir)
    started = time.time()
    with open(index, "a") as lines, torch.no_grad():
        for i in range(done, count):
            images[i], line = record(atlas, SEED_STRIDE * level + first + i, level)
            lines.write(json.dumps(line) + "\n")
            if i % 100 == 99:
                lines.flush()
            if i % 1000 == 999:
                print(f"{i + 1} scenes, {(i + 1 - done) / (time.time() - started):.1f} per second", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("atlas")
    p.add_argument("out")
    p.add_argument("--count", type=int, default=24000)
    p.add_argument("--level", type=int, default=0)
    p.add_argument("--first", type=int, default=0, help="first seed within the level")
    a = p.parse_args()
    build(a.atlas, a.out, a.count, a.level, a.first)


if __name__ == "__main__":
    main()

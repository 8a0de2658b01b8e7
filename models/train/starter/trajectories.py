"""Guided trajectories of the base: what the guidance adapter and the few-step adapters are taught by.

    python -m starter.trajectories CLIP RUN WORK fixed  --shards 8     # guidance 4, 50 steps: for Slow, Fast and LCM
    python -m starter.trajectories CLIP RUN WORK spread --shards 8     # guidance U(1, 8), 25 steps: for AGD

One shard is 32 prompts. It keeps, for every step, the state before it and both predictions (with and without the prompt),
so the guided prediction of *any* scale is known there; the last state is the clean prediction. Goes on where it stopped.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from .caption import caption
from .diffusion import STEPS, alphas_cumprod, timesteps
from .examples import cached
from .frozen import frozen, predict
from .sample import Starter
from .scene import LEVELS, sample

PROMPTS, GUIDANCE, SPREAD = 32, 4.0, (1.0, 8.0)
KINDS = {"fixed": 50, "spread": 25}
FIRST = {"fixed": 940_000_000, "spread": 945_000_000}


def prompts(kind: str, shard: int) -> list[str]:
    return [caption(sample(FIRST[kind] + shard * PROMPTS + i, LEVELS[0], "train"), {}).text for i in range(PROMPTS)]


@torch.no_grad()
def walk(starter: Starter, kind: str, shard: int) -> dict[str, np.ndarray]:
    texts, steps, bar = prompts(kind, shard), KINDS[kind], alphas_cumprod()
    g = torch.Generator().manual_seed(1_000_003 * (kind == "spread") + shard)
    scale = torch.full((PROMPTS,), GUIDANCE) if kind == "fixed" else SPREAD[0] + (SPREAD[1] - SPREAD[0]) * torch.rand(PROMPTS, generator=g)
    x = torch.randn(PROMPTS, 8, 16, 16, generator=g)
    ids = torch.tensor([starter.rows.of(starter.tokenizer.padded(p)) for p in texts])
    context = torch.cat([starter.embed([""]).expand(PROMPTS, -1, -1), starter.text(ids)])
    states, with_prompt, without = [], [], []
    for t in timesteps(steps):
        u, c = predict(starter.unet, torch.cat([x, x]), torch.full((2 * PROMPTS,), t), context).chunk(2)
        states.append(x), with_prompt.append(c), without.append(u)
        v = u + scale[:, None, None, None] * (c - u)
        a, s = bar[t].sqrt(), (1 - bar[t]).sqrt()
        x0, eps = a * x - s * v, a * v + s * x
        previous = t - STEPS // steps
        x = x0 if previous < 0 else bar[previous].sqrt() * x0 + (1 - bar[previous]).sqrt() * eps
    half = lambda rows: torch.stack(rows).to(torch.float16).numpy()
    return {"x": half([*states, x]), "c": half(with_prompt), "u": half(without), "scale": scale.numpy(), "ids": ids.numpy().astype(np.int16)}


class Trajectories:
    """All shards of a kind: x [steps + 1, n, 8, 16, 16], c and u [steps, n, 8, 16, 16], scale [n], ids [n, 77]."""

    def __init__(self, work: str, kind: str, held: int = 0, only_held: bool = False):
        files = sorted((Path(work) / "trajectories").glob(f"{kind}-*.npz"))
        files = [f for f in files if not f.name.endswith(".part.npz")]
        files = files[:held] if only_held else files[held:]
        shards = [dict(np.load(f)) for f in files]
        join = lambda k, axis: torch.from_numpy(np.concatenate([s[k] for s in shards], axis))
        self.x, self.c, self.u = join("x", 1), join("c", 1), join("u", 1)
        self.scale, self.ids = join("scale", 0), join("ids", 0).long()
        self.steps = timesteps(KINDS[kind])
        self.n = len(self.scale)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("work")
    p.add_argument("kind", choices=list(KINDS))
    p.add_argument("--shards", type=int, default=8)
    a = p.parse_args()
    torch.set_num_threads(1)
    starter = frozen(a.clip, a.run)
    for shard in range(a.shards):
        started = time.time()
        cached(Path(a.work) / "trajectories" / f"{a.kind}-{shard:03d}.npz", lambda: walk(starter, a.kind, shard))
        print(f"{a.kind} {shard}: {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

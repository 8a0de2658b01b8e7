"""Few-step adapters taught by the base's own guided 50-step trajectories: Slow and Fast (after Glance), and four steps.

    python -m starter.phases slow CLIP RUN WORK OUT      # steps 1,3,5,7,9 of 50
    python -m starter.phases fast CLIP RUN WORK OUT      # steps 11,21,31,41,50
    python -m starter.phases four CLIP RUN WORK OUT      # steps 1,14,27,40

From the state at one step of its grid the adapter predicts the v whose single deterministic (DDIM) step lands on the stored
state of the next. Guidance is part of what it learns: one evaluation with the prompt, guidance scale 1.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .diffusion import alphas_cumprod
from .fit import fit
from .frozen import frozen, predict
from .lora import Adapter, describe, write
from .trajectories import GUIDANCE, Trajectories

# Steps of the 50, counted from 1, as Glance takes them: dense where layout is decided, then every tenth.
SLOW, FAST, FOUR = [1, 3, 5, 7, 9], [11, 21, 31, 41, 50], [1, 14, 27, 40]
GRID = [*SLOW, *FAST]
PHASES = {"slow": (GRID, 0, 5), "fast": (GRID, 5, 10), "four": (FOUR, 0, 4)}


def grid_timesteps(grid: list[int]) -> list[int]:
    return [999 - 20 * (k - 1) for k in grid]


def levels(t: int, after: int | None) -> tuple[float, float, float, float]:
    """Signal and noise at a timestep and at the next of the grid; the end is the clean picture."""
    bar = alphas_cumprod()
    pair = lambda b: (float(b.sqrt()), float((1 - b).sqrt()))
    return (*pair(bar[t]), *(pair(bar[after]) if after is not None else (1.0, 0.0)))


def landing(v: torch.Tensor, x: torch.Tensor, t: int, after: int | None) -> torch.Tensor:
    a, s, a2, s2 = levels(t, after)
    return a2 * (a * x - s * v) + s2 * (a * v + s * x)


def wanted(x: torch.Tensor, x_after: torch.Tensor, t: int, after: int | None) -> torch.Tensor:
    """The v for which `landing` is `x_after`."""
    a, s, a2, s2 = levels(t, after)
    return (x_after - (a2 * a + s2 * s) * x) / (s2 * a - a2 * s)


class Jumps:
    """(state, timestep, prompt, v that jumps to the next state of the grid) for the active part of a grid."""

    def __init__(self, trajectories: Trajectories, starter, grid: list[int], first: int, end: int):
        self.t = trajectories
        self.contexts = torch.cat([starter.text(trajectories.ids[i : i + 64]) for i in range(0, trajectories.n, 64)])
        self.places = []
        steps = grid_timesteps(grid)
        for k in range(first, end):
            at, to = grid[k] - 1, grid[k + 1] - 1 if k + 1 < len(grid) else len(self.t.x) - 1
            t, after = steps[k], steps[k + 1] if k + 1 < len(grid) else None
            v = wanted(self.t.x[at].float(), self.t.x[to].float(), t, after)
            # Error of the base without adapter or guidance: the loss counts in this unit, so that no step of the grid rules.
            unit = (v - self.t.c[at].float()).square().mean()
            self.places.append((at, t, after, v, unit))

    def batch(self, n: int):
        k = torch.randint(0, len(self.places), (n,)).tolist()
        j = torch.randint(0, self.t.n, (n,)).tolist()
        x = torch.stack([self.t.x[self.places[a][0], b] for a, b in zip(k, j)]).float()
        v = torch.stack([self.places[a][3][b] for a, b in zip(k, j)])
        return x, torch.tensor([self.places[a][1] for a in k]), self.contexts[j], v, torch.stack([self.places[a][4] for a in k])


def train(name: str, clip: str, run: str, work: str, out: str, rank: int, targets: str, steps: int, batch: int, lr: float) -> None:
    grid, first, end = PHASES[name]
    starter = frozen(clip, run)
    jumps = Jumps(Trajectories(work, "fixed", held=1), starter, grid, first, end)
    adapter = Adapter.new(starter.unet, rank, targets)

    def loss() -> tuple[torch.Tensor, float]:
        x, t, context, v, unit = jumps.batch(batch)
        error = (predict(starter.unet, x, t, context) - v).square().mean((1, 2, 3)) / unit
        return error.mean(), float(error.detach().mean())

    fit(Path(work) / f"{name}.pt", adapter.parameters(), loss, steps, lr, batch)
    titles = {"slow": "Ten steps: the first five (Slow)", "fast": "Ten steps: the last five (Fast)", "four": "Four steps"}
    roles = {"slow": "speed-slow", "fast": "speed-fast", "four": "speed"}
    write(Path(out) / f"{name}.safetensors", adapter.state(), "peft", describe(
        role=roles[name], title=titles[name], weight="1.0", steps=str(len(grid)), timesteps=grid_timesteps(grid),
        active_steps=[first, end] if name != "four" else None, sampler="ddim", guidance_scale="1.0",
        about=f"{jumps.t.n} trajectories of the base, 50 steps, guidance {GUIDANCE}; {steps} steps of {batch}, rank {rank}"))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("phase", choices=list(PHASES))
    for name in ("clip", "run", "work", "out"):
        p.add_argument(name)
    p.add_argument("--rank", type=int, default=4)
    p.add_argument("--targets", choices=["attention", "linear"], default="linear")
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=2e-3)
    a = p.parse_args()
    torch.set_num_threads(1)
    train(a.phase, a.clip, a.run, a.work, a.out, a.rank, a.targets, a.steps, a.batch, a.lr)


if __name__ == "__main__":
    main()

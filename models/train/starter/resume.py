"""Checkpoints that survive being cut off at any moment, and the clock a training run is planned by."""
from __future__ import annotations

import math
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch


def save(path: str | Path, state: dict) -> None:
    """Writes beside the target and renames, so the file is always whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    with open(part, "wb") as f:
        torch.save(state, f)
        f.flush()
        os.fsync(f.fileno())
    os.replace(part, path)


def load(path: str | Path) -> dict | None:
    path = Path(path)
    return torch.load(path, map_location="cpu", weights_only=False) if path.exists() else None


def rng_state() -> dict:
    return {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])


class Clock:
    """Progress of a run that is planned in minutes, because the wall clock is what is scarce."""

    def __init__(self, minutes: float, save_every: float = 180.0):
        self.started = time.time()
        self.minutes = minutes
        self.save_every = save_every
        self.last_save = self.started
        self.stopped = False
        # Asked to end (SIGTERM), a run ends as if its time were up: with a checkpoint.
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))

    def progress(self) -> float:
        return min(1.0, (time.time() - self.started) / (60 * self.minutes))

    def over(self) -> bool:
        return self.stopped or self.progress() >= 1.0

    def save_due(self) -> bool:
        if time.time() - self.last_save < self.save_every:
            return False
        self.last_save = time.time()
        return True

    def elapsed(self) -> float:
        return time.time() - self.started


def cosine(progress: float, high: float, low: float) -> float:
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def warm_constant_decay(step: int, progress: float, high: float, low: float, warm: int, decay_from: float) -> float:
    """Short warm-up, long plateau, linear fall at the end of the run: a later run can go on from the plateau."""
    if step < warm:
        return high * (step + 1) / warm
    if progress < decay_from:
        return high
    return high + (low - high) * (progress - decay_from) / max(1e-9, 1 - decay_from)


class Ema:
    """Running mean of the weights; young runs forget faster (warm-up), so early sheets are worth looking at."""

    def __init__(self, module: torch.nn.Module, limit: float):
        self.limit = limit
        self.steps = 0
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        self.steps += 1
        decay = min(self.limit, (1 + self.steps) / (10 + self.steps))
        values = module.state_dict()
        keys = [k for k in self.shadow if self.shadow[k].is_floating_point()]
        torch._foreach_lerp_([self.shadow[k] for k in keys], [values[k] for k in keys], 1 - decay)

    def state_dict(self) -> dict:
        return {"limit": self.limit, "steps": self.steps, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.shadow = state["steps"], state["shadow"]

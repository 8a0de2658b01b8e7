"""One training loop for all adapters: counted in steps, cut off and continued at any point."""
from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Callable

import torch

from . import resume

SAVE_EVERY = 60.0


def fit(path: Path, parameters: list[torch.nn.Parameter], loss: Callable[[], tuple[torch.Tensor, float]], steps: int, lr: float, batch: int,
        warm: int = 20, seed: int = 9) -> None:
    """Adam with a short warm-up and a cosine fall. `loss` gives the loss of a fresh batch and the number to print."""
    torch.manual_seed(seed)
    opt = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0)
    first, stopped = 0, False
    state = resume.load(path)
    if state:
        for p, value in zip(parameters, state["values"]):
            p.data = value
        opt.load_state_dict(state["opt"])
        resume.set_rng_state(state["rng"])
        first = state["step"]

    def stop(*_) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGTERM, stop)

    def save(step: int) -> None:
        resume.save(path, {"values": [p.detach() for p in parameters], "opt": opt.state_dict(), "rng": resume.rng_state(), "step": step})

    started, saved, total, since = time.time(), time.time(), 0.0, 0
    for step in range(first, steps):
        for g in opt.param_groups:
            g["lr"] = min(1.0, (step + 1) / warm) * resume.cosine(step / steps, lr, lr * 0.02)
        value, shown = loss()
        opt.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        opt.step()
        total, since = total + shown, since + 1
        if since == 25 or step == steps - 1:
            rate = (step + 1 - first) * batch / (time.time() - started)
            print(f"step {step + 1} of {steps}: {total / since:.4f}  {rate:.1f} samples/s  {(time.time() - started) / 60:.1f} min", flush=True)
            total, since = 0.0, 0
        if stopped or time.time() - saved > SAVE_EVERY:
            save(step + 1)
            saved = time.time()
        if stopped:
            raise SystemExit(0)
    save(steps)
    signal.signal(signal.SIGTERM, before)

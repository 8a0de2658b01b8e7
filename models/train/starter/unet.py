"""Trains the U-Net (and, at a lower rate, the text encoder) on the latents of one or more pools. Resumes by itself.

    python -m starter.unet CLIP RUN POOL... --minutes 90
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from . import resume
from .diffusion import STEPS, Schedule
from .nets import UNet, UNetConfig, count
from .pool import Pool
from .text import compact_encoder
from .tokenizer import LENGTH, Rows, Tokenizer, grammar_rows

EMPTY_SHARE = 0.1
FOREIGN_SHARE = 0.05
OFFSET_NOISE = 0.07
CHARACTER_WEIGHT = 1.5  # extra loss weight where a character is: a fifth of the picture and most of the prompt


class Latents:
    """Latents, captions as rows, and character masks of some pools. Looks every minute whether a pool has grown."""

    def __init__(self, pools: list[str], tokenizer: Tokenizer, rows: Rows):
        self.tokenizer, self.rows = tokenizer, rows
        self.pools = [Pool(p) for p in pools]
        self.latents, self.text, self.mask, self.seen = [], [], [], set()
        self.checked = 0.0
        self.refresh()

    def refresh(self) -> None:
        if self.latents and time.time() - self.checked < 60:
            return
        self.checked = time.time()
        counts = [int((p.folder / "latents.count").read_text()) for p in self.pools]
        if self.latents and counts == self.counts:
            return
        old = self.counts if self.latents else [0] * len(counts)
        self.counts, self.latents = counts, []
        for k, (pool, n) in enumerate(zip(self.pools, counts)):
            lat = np.memmap(pool.folder / "latents.f16", np.float16, "r", shape=(pool.capacity, UNetConfig().in_channels, 16, 16))
            self.latents.append(lat[:n])
            fresh = pool.records(old[k], n)
            text = np.array([[self._ids(c) for c in r["captions"]] for r in fresh], np.int16)
            mask = np.array([[c == "1" for c in r["mask"]] for r in fresh], bool).reshape(-1, 16, 16)
            if old[k]:
                self.text[k], self.mask[k] = np.concatenate([self.text[k], text]), np.concatenate([self.mask[k], mask])
            else:
                self.text.append(text)
                self.mask.append(mask)
        self.share = np.array(counts, float) / sum(counts)
        print(f"{sum(counts)} scenes, {len(self.seen)} different tokens", flush=True)

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer.padded(text)
        self.seen.update(ids)
        return self.rows.of(ids)

    def batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        empty = np.array(self.rows.of(self.tokenizer.padded("")), np.int64)
        x = np.empty((n, *self.latents[0].shape[1:]), np.float32)
        ids, mask = np.empty((n, LENGTH), np.int64), np.empty((n, 16, 16), np.float32)
        for i in range(n):
            k = np.random.choice(len(self.share), p=self.share) if len(self.share) > 1 else 0
            j = np.random.randint(len(self.latents[k]))
            x[i], mask[i] = self.latents[k][j], self.mask[k][j]
            choice = np.random.rand()
            ids[i] = empty if choice < EMPTY_SHARE else self.text[k][j][np.random.randint(self.text[k].shape[1])]
            if choice > 1 - FOREIGN_SHARE:
                # One unknown word somewhere in the sentence: it must do little harm, and trains row 0.
                length = int((ids[i] != empty[-1]).sum())
                at = np.random.randint(1, length + 1)
                ids[i, at + 1 :] = ids[i, at:-1].copy()
                ids[i, at] = 0
                ids[i, -1] = empty[-1]
        return torch.from_numpy(x), torch.from_numpy(ids), torch.from_numpy(mask)


def initialise(unet: UNet) -> None:
    """Every residual branch starts at zero: the first thousand steps are then worth far more."""
    from .nets import ResnetBlock, SpatialTransformer

    for m in unet.modules():
        if isinstance(m, ResnetBlock):
            torch.nn.init.zeros_(m.conv2.weight)
            torch.nn.init.zeros_(m.conv2.bias)
        elif isinstance(m, SpatialTransformer):
            torch.nn.init.zeros_(m.proj_out.weight)
            torch.nn.init.zeros_(m.proj_out.bias)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)


class Trainer:
    def __init__(self, run: str, rows: Rows, lr: float, text_lr: float, ema: float):
        self.path = Path(run) / "unet.pt"
        torch.manual_seed(3)
        np.random.seed(3)
        self.unet, self.text = UNet(UNetConfig()).to(memory_format=torch.channels_last), compact_encoder(len(rows))
        initialise(self.unet)
        self.schedule, self.rows, self.lr, self.text_lr = Schedule(), rows, lr, text_lr
        groups = [{"params": list(self.unet.parameters()), "scale": 1.0}, {"params": list(self.text.parameters()), "scale": text_lr}]
        self.opt = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.ema, self.text_ema = resume.Ema(self.unet, ema), resume.Ema(self.text, ema)
        self.step = self.images = 0
        self.seen: set[int] = set()
        state = resume.load(self.path)
        if state:
            self.unet.load_state_dict(state["unet"])
            self.text.load_state_dict(state["text"])
            self.opt.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            self.text_ema.load_state_dict(state["text_ema"])
            self.step, self.images, self.seen = state["step"], state["images"], set(state["seen"])
            resume.set_rng_state(state["rng"])
        else:
            pretrained = resume.load(Path(run) / "text.pt")
            if pretrained:
                self.text.load_state_dict(pretrained["model"])
                self.text_ema = resume.Ema(self.text, ema)

    def save(self) -> None:
        resume.save(self.path, {
            "unet": self.unet.state_dict(), "text": self.text.state_dict(), "optimizer": self.opt.state_dict(),
            "ema": self.ema.state_dict(), "text_ema": self.text_ema.state_dict(), "rng": resume.rng_state(),
            "step": self.step, "images": self.images, "rows": self.rows.ids, "seen": sorted(self.seen),
        })

    def loss(self, x: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, float]:
        n = len(x)
        # Stratified over the schedule: with batches this small, plain uniform steps make the loss jump about.
        t = ((torch.arange(n) + torch.rand(n)) / n * STEPS).long().clamp(max=STEPS - 1)
        noise = torch.randn_like(x) + OFFSET_NOISE * torch.randn(n, x.shape[1], 1, 1)
        noisy, v = self.schedule.noised(x, noise, t)
        with torch.autocast("cpu", torch.bfloat16):
            context = self.text(ids)
            out = self.unet(noisy.contiguous(memory_format=torch.channels_last), t, context)
        error = (out.float() - v).square().mean(1)
        weight = 1 + CHARACTER_WEIGHT * mask
        weight = weight / weight.mean((1, 2), keepdim=True)
        loss = ((error * weight).mean((1, 2)) * self.schedule.weight[t]).mean()
        return loss, float(error.detach().mean())

    def update(self, batch, lr: float) -> float:
        for g in self.opt.param_groups:
            g["lr"] = lr * g["scale"]
        loss, plain = self.loss(*batch)
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*self.unet.parameters(), *self.text.parameters()], 1.0)
        self.opt.step()
        self.ema.update(self.unet)
        self.text_ema.update(self.text)
        self.step += 1
        self.images += len(batch[0])
        return plain


def train(a: argparse.Namespace) -> None:
    tokenizer = Tokenizer(a.clip)
    rows = grammar_rows(tokenizer)
    data = Latents(a.pools, tokenizer, rows)
    trainer = Trainer(a.run, rows, a.lr, a.text_lr, a.ema)
    print(f"U-Net {count(trainer.unet) / 1e6:.2f} M, text {count(trainer.text) / 1e6:.2f} M, from step {trainer.step}", flush=True)
    clock = resume.Clock(a.minutes)
    first, total, since, warm_from = trainer.images, 0.0, 0, trainer.step
    while not clock.over():
        data.refresh()
        lr = resume.warm_constant_decay(trainer.step - warm_from, clock.progress(), a.lr, a.end_lr, 200, a.decay_from)
        total, since = total + trainer.update(data.batch(a.batch), lr), since + 1
        trainer.seen |= data.seen
        if trainer.step % 100 == 0:
            rate = (trainer.images - first) / clock.elapsed()
            line = {"step": trainer.step, "images": trainer.images, "loss": round(total / since, 4), "lr": lr, "per_second": round(rate, 1), "minutes": round(clock.elapsed() / 60, 1)}
            print(json.dumps(line), flush=True)
            total, since = 0.0, 0
        if clock.save_due():
            trainer.save()
    trainer.save()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("pools", nargs="+")
    p.add_argument("--minutes", type=float, required=True)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--end-lr", type=float, default=5e-5)
    p.add_argument("--text-lr", type=float, default=0.25, help="learning rate of the text encoder, relative")
    p.add_argument("--ema", type=float, default=0.999)
    p.add_argument("--decay-from", type=float, default=0.75, help="share of the run after which the learning rate falls")
    a = p.parse_args()
    torch.set_num_threads(1)
    train(a)


if __name__ == "__main__":
    main()

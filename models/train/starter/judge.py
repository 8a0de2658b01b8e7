"""Reads the facts of a scene back from its latent, and so measures how well generated latents follow their prompts.

    python -m starter.judge train    CLIP RUN POOL --minutes 3
    python -m starter.judge measure  CLIP RUN POOL --prompts 128 [--split held-out]
    python -m starter.judge prompts  FILE.json --prompts 64
    python -m starter.judge read     RUN FOLDER

`prompts` writes prompts with their facts for `npm run bench -- quality`; `read` answers that command: FOLDER holds
prompts.json and one folder per way of making the pictures with latents.f32 [prompts, 8, 16, 16]; it prints the share of
stated facts that each got right.

The composer knows the truth, so no outside network is needed. This judge only measures: it appears in no loss.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

from . import resume
from .caption import caption
from .pool import Pool
from .scene import FACT_VALUES, LEVELS, sample
from .text import FactHeads

VALIDATION = 0.05


class Judge(nn.Module):
    def __init__(self, channels: int = 8, width: int = 96):
        super().__init__()
        block = lambda i, o, stride: nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.GroupNorm(8, o), nn.SiLU())
        self.body = nn.Sequential(block(channels, width, 1), block(width, width, 1), block(width, width, 2), block(width, width, 1),
                                  block(width, width, 2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(width * 16, 256), nn.SiLU())
        self.heads = FactHeads(256)

    def features(self, latents):
        return self.body(latents)

    def read(self, latents) -> list[torch.Tensor]:
        return [one.argmax(-1) for one in self.heads.linear(self.features(latents)).split(self.heads.sizes, -1)]


def truth(facts: dict[str, str]) -> list[int]:
    return [values.index(facts[name]) if name in facts else -100 for name, values in FACT_VALUES.items()]


class Data:
    def __init__(self, name: str):
        pool = Pool(name)
        n = int((pool.folder / "latents.count").read_text())
        self.latents = np.memmap(pool.folder / "latents.f16", np.float16, "r", shape=(pool.capacity, 8, 16, 16))
        self.labels = torch.tensor([truth(r["facts"]) for r in pool.records(0, n)])
        self.split = int(n * (1 - VALIDATION))

    def batch(self, picks: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.latents[picks].astype(np.float32)), self.labels[picks]


def train(run: str, name: str, minutes: float, batch: int = 64) -> None:
    torch.manual_seed(7)
    rng = np.random.RandomState(7)
    data, judge = Data(name), Judge()
    opt = torch.optim.AdamW(judge.parameters(), lr=1e-3, weight_decay=0.05)
    clock, step = resume.Clock(minutes), 0
    while not clock.over():
        for g in opt.param_groups:
            g["lr"] = resume.cosine(clock.progress(), 1.5e-3, 1e-5)
        x, y = data.batch(np.sort(rng.randint(0, data.split, batch)))
        # Generated latents are never quite clean; a judge that only knows clean ones would measure noise.
        x = x + torch.randn_like(x) * (0.3 * torch.rand(batch, 1, 1, 1))
        loss, right = judge.heads.loss(judge.features(x), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.3f} facts right {right:.3f} {step * batch / clock.elapsed():.0f} latents/s", flush=True)
    torch.save(judge.state_dict(), Path(run) / "judge.pt")
    print(json.dumps(ceiling(judge, data), indent=1))


@torch.no_grad()
def ceiling(judge: Judge, data: Data) -> dict[str, float]:
    """The judge's own accuracy on real scenes it was not trained on."""
    judge.eval()
    x, y = data.batch(np.arange(data.split, len(data.labels)))
    read, out = judge.read(x), {}
    for k, name in enumerate(FACT_VALUES):
        known = y[:, k] >= 0
        if known.sum() >= 20:
            out[name] = float((read[k][known] == y[known, k]).float().mean())
    return out


@torch.no_grad()
def measure(clip: str, run: str, pool: str, prompts: int, split: str, guidance: float, steps: int, level: int) -> dict:
    from .sample import Starter

    starter, judge, data = Starter(clip, run), Judge(), Data(pool)
    judge.load_state_dict(torch.load(Path(run) / "judge.pt"))
    judge.eval()
    texts, stated = [], []
    for i in range(prompts):
        c = caption(sample(970_000_000 + i, LEVELS[level], split), {})
        texts.append(c.text)
        stated.append(c.stated)
    noise = torch.randn(prompts, 8, 16, 16, generator=torch.Generator().manual_seed(5))
    read = judge.read(torch.cat([starter.latents(texts[i : i + 8], noise[i : i + 8], steps, guidance, "dpm") for i in range(0, prompts, 8)]))
    best = ceiling(judge, data)
    names, rows, all_right, all_known = list(FACT_VALUES), {}, 0, 0
    for k, name in enumerate(names):
        known = [i for i in range(prompts) if name in stated[i] and stated[i][name] != ""]
        if len(known) < 10 or name not in best:
            continue
        right = sum(int(read[k][i]) == FACT_VALUES[name].index(stated[i][name]) for i in known)
        majority = max(torch.bincount(data.labels[data.labels[:, k] >= 0, k]).tolist()) / int((data.labels[:, k] >= 0).sum())
        rows[name] = {"prompts": len(known), "generated": round(right / len(known), 3), "real": round(best[name], 3), "majority": round(majority, 3)}
        if name != "style":
            all_right, all_known = all_right + right, all_known + len(known)
    share = all_right / all_known
    return {"images_seen": starter.images, "split": split, "guidance": guidance, "stated facts right": round(share, 3),
            "95 % interval": round(1.96 * (share * (1 - share) / all_known) ** 0.5, 3), "facts": rows}


def write_prompts(file: str, prompts: int, level: int) -> None:
    """Every place, species and garment in turn by chance; the seeds are those of `measure`, so none was trained on."""
    captions = [caption(sample(970_000_000 + i, LEVELS[level], "train"), {}) for i in range(prompts)]
    Path(file).write_text(json.dumps([{"prompt": c.text, "facts": {k: v for k, v in c.stated.items() if v != ""}} for c in captions], indent=1) + "\n")


@torch.no_grad()
def read_folder(run: str, name: str) -> dict[str, dict[str, float]]:
    judge = Judge()
    judge.load_state_dict(torch.load(Path(run) / "judge.pt"))
    judge.eval()
    prompts, shares = json.loads((Path(name) / "prompts.json").read_text()), {}
    for file in sorted(Path(name).glob("*/latents.f32")):
        read = judge.read(torch.from_numpy(np.fromfile(file, np.float32).reshape(len(prompts), 8, 16, 16)))
        hits = [int(read[k][i]) == FACT_VALUES[fact].index(p["facts"][fact]) for i, p in enumerate(prompts)
                for k, fact in enumerate(FACT_VALUES) if fact in p["facts"] and fact != "style"]
        shares[file.parent.name] = {"right": sum(hits) / len(hits), "facts": len(hits)}
    return shares


def main() -> None:
    if sys.argv[1:2] == ["prompts"] or sys.argv[1:2] == ["read"]:
        p = argparse.ArgumentParser()
        p.add_argument("action")
        p.add_argument("names", nargs="+")
        p.add_argument("--prompts", type=int, default=64)
        p.add_argument("--level", type=int, default=0)
        a = p.parse_args()
        torch.set_num_threads(1)
        if a.action == "prompts":
            write_prompts(a.names[0], a.prompts, a.level)
        else:
            print(json.dumps(read_folder(*a.names)))
        return
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=["train", "measure"])
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("pool")
    p.add_argument("--minutes", type=float, default=3)
    p.add_argument("--prompts", type=int, default=128)
    p.add_argument("--split", default="train")
    p.add_argument("--guidance", type=float, default=4.0)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--level", type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.action == "train":
        train(a.run, a.pool, a.minutes)
    else:
        print(json.dumps(measure(a.clip, a.run, a.pool, a.prompts, a.split, a.guidance, a.steps, a.level), indent=1))


if __name__ == "__main__":
    main()

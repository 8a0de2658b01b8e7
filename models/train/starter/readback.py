"""Reads style, named characters and the facts of a scene back from latents: the judge of the adapters.

    python -m starter.readback train CLIP RUN ATLAS WORK POOL --steps 4000

Trained on composer scenes alone, never on generated pictures, and part of no loss. `WORK` takes its sets of latents and
readback.pt. It knows distractors: the animals of the named characters without their parts, others in their clothes.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from . import resume
from .examples import cached, examples, truth_rows
from .judge import Judge, truth
from .layers import Atlas
from .named import distractor, portrait
from .scene import FACT_VALUES, LEVELS, Scene, sample
from .vae import load_final

STYLES = ["storybook", "flat", "sticker", "soft", "ink", "chalk"]
PRESENT = ["pip", "luna"]
FIRST = 20_000  # seeds of this judge's scenes; adapters train on lower ones, prompts of measurements are higher
VALIDATION = 0.1


class Readback(nn.Module):
    def __init__(self):
        super().__init__()
        self.judge = Judge()
        self.style = nn.Linear(256, len(STYLES))
        self.present = nn.Linear(256, len(PRESENT))

    def forward(self, latents):
        h = self.judge.features(latents)
        return self.judge.heads.linear(h), self.style(h), self.present(h)

    @torch.no_grad()
    def read(self, latents) -> dict[str, torch.Tensor]:
        facts, style, present = self(latents)
        split = facts.split(self.judge.heads.sizes, -1)
        return {"drawn": style.argmax(-1), "present": present > 0, **{name: one.argmax(-1) for name, one in zip(FACT_VALUES, split)}}


def pair(seed: int) -> Scene:
    """Both named characters in one picture, in either order."""
    scene = portrait("pip", seed)
    other = portrait("luna", seed + 1).characters[0]
    scene.characters = [scene.characters[0], other] if seed % 2 else [other, scene.characters[0]]
    return scene


def sets(count: int) -> dict[str, tuple[list[Scene], str, str]]:
    """Name of a set -> its scenes, the style they are drawn in, the named characters in them."""
    plain = lambda at, n: [sample(650_000_000 + at + i, LEVELS[0], "train") for i in range(n)]
    named = lambda make, who, at, n: [make(who, FIRST + at + i) for i in range(n)]
    third = count // 3
    return {
        "ink": (plain(0, count), "ink", ""), "chalk": (plain(count, count), "chalk", ""),
        "pip": (named(portrait, "pip", 0, count), "", "pip"), "luna": (named(portrait, "luna", 0, count), "", "luna"),
        "not-pip": (named(distractor, "pip", count, count), "", ""), "not-luna": (named(distractor, "luna", count, count), "", ""),
        "pip-ink": (named(portrait, "pip", 2 * count, third), "ink", "pip"), "luna-ink": (named(portrait, "luna", 2 * count, third), "ink", "luna"),
        "not-pip-ink": (named(distractor, "pip", 3 * count, third), "ink", ""), "not-luna-ink": (named(distractor, "luna", 3 * count, third), "ink", ""),
        "both": ([pair(FIRST + 4 * count + i) for i in range(2 * third)], "", "pip luna"),
    }


def arrays(atlas: Atlas, run: str, scenes: list[Scene], style: str, who: str) -> dict[str, np.ndarray]:
    vae, info = load_final(run)
    rows = examples(atlas, vae, info["scaling_factor"], scenes, style, variants=0, flip=False)
    labels = truth_rows(rows, truth)
    present = np.array([[name in who for name in PRESENT]] * len(rows), np.float32)
    return {"latents": np.stack([e.latent for e in rows]).astype(np.float16), "labels": labels, "present": present,
            "style": np.full(len(rows), STYLES.index(style or "storybook"))}


def pool_arrays(name: str) -> dict[str, np.ndarray]:
    from .judge import Data
    from .pool import Pool

    data = Data(name)
    styles = [r["facts"]["style"] for r in Pool(name).records(0, len(data.labels))]
    return {"latents": np.array(data.latents[: len(data.labels)]), "labels": data.labels.numpy(), "style": np.array([STYLES.index(s) for s in styles]),
            "present": np.zeros((len(styles), len(PRESENT)), np.float32)}


class Rows:
    def __init__(self, parts: list[dict[str, np.ndarray]]):
        join = lambda key, pick: torch.from_numpy(np.concatenate([p[key][pick(len(p[key]))] for p in parts]))
        cut = lambda n: int(n * (1 - VALIDATION))
        for side, pick in (("train", lambda n: slice(0, cut(n))), ("check", lambda n: slice(cut(n), n))):
            setattr(self, side, {k: join(k, pick) for k in ("latents", "labels", "style", "present")})


def train(clip: str, run: str, atlas_dir: str, work: str, pools: list[str], steps: int, count: int, batch: int = 64) -> None:
    atlas, folder, parts = Atlas(atlas_dir), Path(work), [pool_arrays(p) for p in pools]
    for name, (scenes, style, who) in sets(count).items():
        parts.append(cached(folder / "read" / f"{name}.npz", lambda: arrays(atlas, run, scenes, style, who)))
        print(f"{name}: {len(parts[-1]['style'])}", flush=True)
    rows = Rows(parts)
    n = len(rows.train["style"])
    # Half of every batch from the pool (many scenes, all facts), half from the sets that the new heads need.
    pooled = sum(int(len(p["style"]) * (1 - VALIDATION)) for p in parts[: len(pools)])
    torch.manual_seed(8)
    net = Readback()
    opt = torch.optim.AdamW(net.parameters(), lr=1.5e-3, weight_decay=0.05)
    path, first = folder / "readback.part.pt", 0
    state = resume.load(path)
    if state:
        net.load_state_dict(state["net"])
        opt.load_state_dict(state["opt"])
        first = state["step"]
    for step in range(first, steps):
        for g in opt.param_groups:
            g["lr"] = resume.cosine(step / steps, 1.5e-3, 1e-5)
        at = torch.cat([torch.randint(0, pooled, (batch // 2,)), torch.randint(pooled, n, (batch // 2,))])
        x = rows.train["latents"][at].float()
        x = x + torch.randn_like(x) * (0.3 * torch.rand(batch, 1, 1, 1))
        flip = torch.rand(batch) < 0.5
        single = rows.train["labels"][at][:, list(FACT_VALUES).index("count")] == 0
        x = torch.where((flip & single)[:, None, None, None], x.flip(-1), x)
        h = net.judge.features(x)
        loss, right = net.judge.heads.loss(h, rows.train["labels"][at])
        loss = loss + 0.5 * F.cross_entropy(net.style(h), rows.train["style"][at]) + F.binary_cross_entropy_with_logits(net.present(h), rows.train["present"][at])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 200 == 199:
            print(f"step {step + 1} loss {loss.item():.3f} facts right {right:.3f}", flush=True)
            resume.save(path, {"net": net.state_dict(), "opt": opt.state_dict(), "step": step + 1})
    net.eval()
    torch.save(net.state_dict(), folder / "readback.pt")
    report = ceiling(net, rows)
    (folder / "readback.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))


@torch.no_grad()
def ceiling(net: Readback, rows: Rows) -> dict:
    """What it reads right on real scenes it was not trained on."""
    c = rows.check
    read = net.read(c["latents"].float())
    out: dict = {"style": {name: float((read["drawn"][c["style"] == k] == k).float().mean()) for k, name in enumerate(STYLES) if (c["style"] == k).any()}}
    for k, name in enumerate(PRESENT):
        there = c["present"][:, k] > 0
        out[name] = {"found": float(read["present"][there, k].float().mean()), "seen where it is not": float(read["present"][~there, k].float().mean())}
    for k, name in enumerate(FACT_VALUES):
        known = c["labels"][:, k] >= 0
        if known.sum() >= 50:
            out[name if name != "style" else "style fact"] = float((read[name][known] == c["labels"][known, k]).float().mean()) if name != "style" else None
    return {k: v for k, v in out.items() if v is not None}


def load(work: str) -> Readback:
    net = Readback()
    net.load_state_dict(torch.load(Path(work) / "readback.pt"))
    return net.eval()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=["train"])
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("atlas")
    p.add_argument("work")
    p.add_argument("pools", nargs="+")
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--count", type=int, default=1000, help="scenes of each set")
    a = p.parse_args()
    torch.set_num_threads(1)
    train(a.clip, a.run, a.atlas, a.work, a.pools, a.steps, a.count)


if __name__ == "__main__":
    main()

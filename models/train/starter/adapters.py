"""Trains the adapters of Starter on its frozen, shipped weights. Every call goes on where it was cut off.

    python -m starter.adapters style     CLIP RUN ATLAS WORK OUT ink
    python -m starter.adapters character CLIP RUN ATLAS WORK OUT pip --pool POOL

RUN is a folder made by `starter.unpack`, WORK takes checkpoints, OUT the finished file. Guidance and few-step adapters have
programs of their own: `starter.guidance`, `starter.phases`.
"""
from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

import numpy as np
import torch

from .caption import STYLE
from .diffusion import STEPS, Schedule
from .examples import Example, examples
from .fit import fit
from .frozen import frozen, predict
from .layers import Atlas
from .lora import Adapter, describe, write
from .named import IDENTITY, NAMES, distractor, portrait
from .sample import Starter
from .scene import LEVELS, sample
from .unet import CHARACTER_WEIGHT, OFFSET_NOISE

EMPTY_SHARE = 0.1
NAMED_SHARE = 0.6  # of a batch shows the character, the rest what it must leave alone
BARE_SHARE = 0.2  # of a style's captions name no style, so that the adapter draws so in any case
STYLE_SEED = 600_000_000
STYLE_PICTURES, PORTRAITS = 60, 30  # what a person might have
STYLE_WORDS = re.compile("|".join(rf",? ?(?:in )?(?:an? )?{re.escape(w)}(?: of)?(?:,)? ?" for w in sorted({w for ws in STYLE.values() for w in ws}, key=len, reverse=True)))
TITLES = {"ink": "Ink and wash", "chalk": "Chalk on a board", "paper": "Cut paper", "pip": "Pip, the blue fox", "luna": "Luna, the purple rabbit"}


def without_style(text: str) -> str:
    return STYLE_WORDS.sub(" ", text).strip(" ,")


class Noised:
    """The base's own objective: v at stratified steps, softened min-SNR, more weight where a character is."""

    def __init__(self):
        self.schedule = Schedule()

    def draw(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n = len(x)
        t = ((torch.randperm(n) + torch.rand(n)) / n * STEPS).long().clamp(max=STEPS - 1)
        noise = torch.randn_like(x) + OFFSET_NOISE * torch.randn(n, x.shape[1], 1, 1)
        noisy, v = self.schedule.noised(x, noise, t)
        return t, noisy, v

    def loss(self, error: torch.Tensor, t: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        per_place = error.square().mean(1)
        if mask is not None:
            weight = 1 + CHARACTER_WEIGHT * mask
            per_place = per_place * weight / weight.mean((1, 2), keepdim=True)
        return (per_place.mean((1, 2)) * self.schedule.weight[t]).mean()


class Shown:
    """Examples with their captions embedded once: the text encoder is frozen."""

    def __init__(self, starter: Starter, rows: list[Example], captions: list[list[str]]):
        self.latents = torch.from_numpy(np.stack([e.latent for e in rows]))
        self.masks = torch.from_numpy(np.stack([e.mask for e in rows]))
        texts = sorted({c for cs in captions for c in cs})
        self.known = {text: i for i, text in enumerate(texts)}
        self.contexts = torch.cat([starter.embed(texts[i : i + 64]) for i in range(0, len(texts), 64)])
        self.empty = starter.embed([""])[0]
        self.captions = captions

    def batch(self, n: int, empty_share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        at = torch.randint(0, len(self.latents), (n,)).tolist()
        pick = lambda i: self.empty if torch.rand(()) < empty_share else self.contexts[self.known[self.captions[i][int(torch.randint(0, len(self.captions[i]), ()))]]]
        return self.latents[at], torch.stack([pick(i) for i in at]), self.masks[at]


def style_examples(starter: Starter, atlas_dir: str, name: str, pictures: int) -> Shown:
    rows = examples(Atlas(atlas_dir), starter.vae, starter.vae_info["scaling_factor"], [sample(STYLE_SEED + i, LEVELS[0]) for i in range(pictures)], name)
    r = random.Random(5)
    # With the trigger four times in five; the list is long so that a draw from it has these shares.
    says = [[plain if r.random() < BARE_SHARE else f"{plain}, {name} style" for plain in (without_style(c.text) for c in e.captions) for _ in range(4)] for e in rows]
    return Shown(starter, rows, says)


def style(clip: str, run: str, atlas_dir: str, work: str, out: str, name: str, pictures: int, rank: int, targets: str, steps: int, batch: int, lr: float) -> None:
    starter, noised = frozen(clip, run), Noised()
    shown = style_examples(starter, atlas_dir, name, pictures)
    adapter = Adapter.new(starter.unet, rank, targets)

    def loss() -> tuple[torch.Tensor, float]:
        x, context, mask = shown.batch(batch, EMPTY_SHARE)
        t, noisy, v = noised.draw(x)
        error = predict(starter.unet, noisy, t, context) - v
        return noised.loss(error, t, mask), float(error.detach().square().mean())

    fit(Path(work) / f"{name}.pt", adapter.parameters(), loss, steps, lr, batch)
    write(Path(out) / f"{name}.safetensors", adapter.state(), "peft", describe(
        role="style", title=TITLES[name], trigger=f"{name} style", weight="1.0",
        about=f"{pictures} composed pictures and their mirror images, {steps} steps of {batch}, rank {rank}"))


def class_examples(starter: Starter, pool_name: str, name: str, count: int) -> tuple[list[Example], list[list[str]]]:
    """Pictures of the base's own training: half with the character's animal, half of anything; captions also with a strange word in front."""
    from .pool import Pool

    pool, who = Pool(pool_name), IDENTITY[name]
    records = pool.records(0, 12_000)
    latents = np.memmap(pool.folder / "latents.f16", np.float16, "r", shape=(pool.capacity, 8, 16, 16))
    same = [i for i, r in enumerate(records) if r["facts"]["0.species"] == who.species][:count]
    any_ = [i for i, r in enumerate(records) if r["facts"]["0.species"] != who.species][:count]
    rows, says = [], []
    for k, i in enumerate(same + any_):
        mask = np.array([c == "1" for c in records[i]["mask"]], np.float32).reshape(16, 16)
        rows.append(Example(latents[i].astype(np.float32), None, [], mask))
        texts = records[i]["captions"]
        # Unknown words all look like the trigger to this base: only with the character's colour and animal may it act.
        strange = [f"{name}, {t}" for t in texts] if k >= len(same) else []
        coloured = [t.replace(f" {who.species}", f" {who.fur} {who.species}", 1) for t in texts] if k < len(same) else []
        says.append([*texts, *strange[:1], *coloured[:1]])
    return rows, says


def character(clip: str, run: str, atlas_dir: str, work: str, out: str, name: str, pool: str, pictures: int, rank: int, targets: str, steps: int, batch: int, lr: float, keep: float) -> None:
    starter, atlas = frozen(clip, run), Atlas(atlas_dir)
    drawn = lambda scenes: examples(atlas, starter.vae, starter.vae_info["scaling_factor"], scenes)
    portraits = drawn([portrait(name, i) for i in range(pictures)])
    shown, noised = Shown(starter, portraits, [[c.text for c in e.captions] for e in portraits]), Noised()
    # To be left alone: the class, the character's doubles without its name, and the other characters by theirs.
    rows, says = class_examples(starter, pool, name, 300)
    doubles = drawn([distractor(name, 5_000 + i) for i in range(30)])
    others = [e for other in NAMES[1:3] if other != name for e in drawn([portrait(other, 6_000 + i) for i in range(30)])]
    kept = [Shown(starter, rows, says), Shown(starter, doubles, [[c.text for c in e.captions] for e in doubles]),
            Shown(starter, others, [[c.text for c in e.captions] for e in others])]
    adapter = Adapter.new(starter.unet, rank, targets)
    half = round(batch * NAMED_SHARE)
    rest, few = batch - half, (batch - half) // 5

    def loss() -> tuple[torch.Tensor, float]:
        x, context, mask = shown.batch(half, 0.0)
        parts = [k.batch(n, EMPTY_SHARE) for k, n in zip(kept, (rest - 2 * few, few, few))]
        class_x, class_context = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
        t, noisy, v = noised.draw(x)
        class_t, class_noisy, _ = noised.draw(class_x)
        adapter.strength = 0
        with torch.no_grad():
            base = predict(starter.unet, class_noisy, class_t, class_context)
        adapter.strength = 1
        both = predict(starter.unet, torch.cat([noisy, class_noisy]), torch.cat([t, class_t]), torch.cat([context, class_context]))
        error, drift = both[:half] - v, both[half:] - base
        return noised.loss(error, t, mask) + keep * noised.loss(drift, class_t, None), float(error.detach().square().mean()) + float(drift.detach().square().mean())

    fit(Path(work) / f"{name}.pt", adapter.parameters(), loss, steps, lr, batch)
    write(Path(out) / f"{name}.safetensors", adapter.state(), "kohya", describe(
        role="subject", title=TITLES[name], trigger=IDENTITY[name].words(name), weight="1.0",
        about=f"{pictures} composed pictures and their mirror images; {1 - NAMED_SHARE:.0%} of every batch other pictures, on which the base is kept (CAT); {steps} steps of {batch}, rank {rank}. "
        "The head is recoloured from Noto Emoji (Google, Apache-2.0); body, clothes and marks are ours."))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kind", choices=["style", "character"])
    for name in ("clip", "run", "atlas", "work", "out", "name"):
        p.add_argument(name)
    p.add_argument("--pool", default="", help="rendered pool with latents: the pictures a character leaves alone")
    p.add_argument("--pictures", type=int, default=0)
    p.add_argument("--rank", type=int, default=4)
    p.add_argument("--targets", choices=["attention", "linear"], default="linear")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--keep", type=float, default=2.0, help="weight of leaving other prompts alone")
    a = p.parse_args()
    torch.set_num_threads(1)
    Path(a.work).mkdir(parents=True, exist_ok=True)
    if a.kind == "style":
        style(a.clip, a.run, a.atlas, a.work, a.out, a.name, a.pictures or STYLE_PICTURES, a.rank, a.targets, a.steps, a.batch, a.lr)
    else:
        character(a.clip, a.run, a.atlas, a.work, a.out, a.name, a.pool, a.pictures or PORTRAITS, a.rank, a.targets, a.steps, a.batch, a.lr, a.keep)


if __name__ == "__main__":
    main()

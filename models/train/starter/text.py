"""Pretrains the text encoder on stating every fact of a scene from its caption. The heads are thrown away afterwards.

    python -m starter.text CLIP RUN --minutes 3
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from . import resume
from .caption import caption
from .nets import TextConfig, TextEncoder, count
from .scene import FACT_VALUES, LEVELS, sample
from .tokenizer import EOS, Tokenizer, grammar_rows

# A part the caption leaves out counts as absent; for the others silence says nothing.
ABSENT_IF_SILENT = ("outfit", "outfit_colour", "worn", "worn_colour", "held", "held_colour", "fur")


def labels(stated: dict[str, str]) -> list[int]:
    out = []
    for fact, values in FACT_VALUES.items():
        slot, _, name = fact.partition(".")
        if fact in stated:
            out.append(values.index(stated[fact]))
        elif name in ABSENT_IF_SILENT and f"{slot}.species" in stated:
            out.append(0)
        else:
            out.append(-100)
    return out


def compact_encoder(rows: int) -> TextEncoder:
    return TextEncoder(TextConfig(vocab_size=rows))


class FactHeads(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.sizes = [len(v) for v in FACT_VALUES.values()]
        self.linear = nn.Linear(width, sum(self.sizes))

    def loss(self, features: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, float]:
        logits = self.linear(features).split(self.sizes, -1)
        total, right, known = 0.0, 0, 0
        for k, one in enumerate(logits):
            target = wanted[:, k]
            mask = target >= 0
            if mask.any():
                total = total + F.cross_entropy(one[mask], target[mask], reduction="sum")
                right += int((one[mask].argmax(-1) == target[mask]).sum())
                known += int(mask.sum())
        return total / max(1, known), right / max(1, known)


class Captions:
    """An endless stream of captions without pictures: sampling a scene costs a third of a millisecond."""

    def __init__(self, tokenizer: Tokenizer, rows, seed: int):
        self.tokenizer, self.rows, self.seed = tokenizer, rows, seed

    def batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ids, wanted, end = [], [], []
        for _ in range(n):
            self.seed += 1
            level = 0 if self.seed % 10 < 6 else len(LEVELS) - 1
            c = caption(sample(self.seed, LEVELS[level]), {})
            tokens = self.tokenizer.padded(c.text)
            end.append(tokens.index(EOS))
            ids.append(self.rows.of(tokens))
            wanted.append(labels(c.stated))
        return torch.tensor(ids), torch.tensor(wanted), torch.tensor(end)


def train(clip: str, run: str, minutes: float, batch: int, lr: float) -> None:
    tokenizer = Tokenizer(clip)
    rows = grammar_rows(tokenizer)
    path = Path(run) / "text.pt"
    torch.manual_seed(2)
    model, heads = compact_encoder(len(rows)), FactHeads(TextConfig().hidden_size)
    opt = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
    stream, step = Captions(tokenizer, rows, 5_000_000_000), 0
    state = resume.load(path)
    if state:
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        opt.load_state_dict(state["optimizer"])
        stream.seed, step = state["seed"], state["step"]
    print(f"{len(rows)} rows, {count(model) / 1e6:.2f} M parameters", flush=True)
    clock = resume.Clock(minutes)
    while not clock.over():
        for g in opt.param_groups:
            g["lr"] = min(1, (step + 1) / 50) * resume.cosine(clock.progress(), lr, lr * 0.1)
        ids, wanted, end = stream.batch(batch)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(ids)
        out = out.float()
        # The end token and the padding after it all have to carry the facts: the U-Net looks at every position.
        pad = torch.minimum(end + 1 + (torch.rand(len(end)) * (out.shape[1] - 1 - end)).long(), torch.tensor(out.shape[1] - 1))
        at = torch.arange(len(end))
        loss, right = heads.loss(torch.cat([out[at, end], out[at, pad]]), torch.cat([wanted, wanted]))
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        if step % 25 == 0:
            print(f"step {step} loss {loss.item():.4f} facts right {right:.3f} {step * batch / clock.elapsed():.0f} captions/s", flush=True)
    resume.save(path, {"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": opt.state_dict(), "seed": stream.seed, "step": step, "rows": rows.ids})


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("--minutes", type=float, default=3)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=2e-3)
    a = p.parse_args()
    torch.set_num_threads(1)
    np.random.seed(0)
    train(a.clip, a.run, a.minutes, a.batch, a.lr)


if __name__ == "__main__":
    main()

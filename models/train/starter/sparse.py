"""A style as a sparse adapter (SHiRA): a small share of the base's weights moves, the rest stays as it is.

    python -m starter.sparse CLIP RUN ATLAS WORK OUT ink --share 0.01

Which weights: the largest |weight · gradient| of every layer over some batches (SNIP), fixed before training. The file holds
flat ascending positions and fp16 differences: switching is a scatter, and nothing is added to an evaluation.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from .adapters import STYLE_PICTURES, TITLES, Noised, style_examples
from .fit import fit
from .frozen import frozen, predict
from .lora import LINEAR, describe, put, store

BATCHES = 6  # for choosing the weights


class SparseDelta(nn.Module):
    """A linear layer or 1 × 1 convolution with `values` added at the flat positions `index` of its weight."""

    def __init__(self, base: nn.Module, index: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.base, self.index, self.values = base, index, nn.Parameter(values)
        self.strength = 1.0

    def forward(self, x):
        w = self.base.weight
        moved = (w.flatten().index_add(0, self.index, self.strength * self.values)).view_as(w)
        return (F.conv2d if w.ndim == 4 else F.linear)(x, moved, self.base.bias)


def layers_of(unet: nn.Module) -> list[str]:
    return [n for n, m in unet.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and n.endswith(LINEAR) and ".attentions." in n]


def wear(unet: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, SparseDelta]:
    out = {}
    for path in layers_of(unet):
        if f"unet.{path}.sparse_index" in tensors:
            out[path] = SparseDelta(unet.get_submodule(path), tensors[f"unet.{path}.sparse_index"].long(), tensors[f"unet.{path}.sparse_delta"].float())
            put(unet, path, out[path])
    return out


def choose(unet: nn.Module, batch, share: float) -> dict[str, torch.Tensor]:
    """Positions with the largest |weight · gradient|, `share` of every layer."""
    paths = layers_of(unet)
    weights = {p: unet.get_submodule(p).weight for p in paths}
    total = {p: torch.zeros_like(w).flatten() for p, w in weights.items()}
    for w in weights.values():
        w.requires_grad_(True)
    for _ in range(BATCHES):
        grads = torch.autograd.grad(batch()[0], list(weights.values()))
        for (p, w), g in zip(weights.items(), grads):
            total[p] += (w.detach() * g).abs().flatten()
    for w in weights.values():
        w.requires_grad_(False)
    return {p: t.topk(max(1, round(share * t.numel()))).indices.sort().values for p, t in total.items()}


def train(clip: str, run: str, atlas: str, work: str, out: str, name: str, share: float, steps: int, batch: int, lr: float) -> None:
    starter, noised = frozen(clip, run), Noised()
    shown = style_examples(starter, atlas, name, STYLE_PICTURES)

    def loss() -> tuple[torch.Tensor, float]:
        x, context, mask = shown.batch(batch, 0.1)
        t, noisy, v = noised.draw(x)
        error = predict(starter.unet, noisy, t, context) - v
        return noised.loss(error, t, mask), float(error.detach().square().mean())

    torch.manual_seed(13)
    index = choose(starter.unet, loss, share)
    deltas = wear(starter.unet, {f"unet.{p}.{k}": v for p, i in index.items() for k, v in (("sparse_index", i), ("sparse_delta", torch.zeros(len(i))))})
    fit(Path(work) / f"{name}-sparse.pt", [d.values for d in deltas.values()], loss, steps, lr, batch)
    tensors = {}
    for path, delta in deltas.items():
        tensors[f"unet.{path}.sparse_index"] = delta.index.to(torch.int32)
        tensors[f"unet.{path}.sparse_delta"] = delta.values.detach()
    count = sum(len(i) for i in index.values())
    store(Path(out) / f"{name}-sparse.safetensors", tensors, describe(
        kind="sparse", role="style", title=f"{TITLES[name]}, sparse", trigger=f"{name} style", weight="1.0",
        about=f"{count} of {sum(unet_size(starter.unet, p) for p in index)} weights; {STYLE_PICTURES} composed pictures and their mirror images, {steps} steps of {batch}"))


def unet_size(unet: nn.Module, path: str) -> int:
    return unet.get_submodule(path).base.weight.numel()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("clip", "run", "atlas", "work", "out", "name"):
        p.add_argument(name)
    p.add_argument("--share", type=float, default=0.01)
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=3e-3)
    a = p.parse_args()
    torch.set_num_threads(1)
    train(a.clip, a.run, a.atlas, a.work, a.out, a.name, a.share, a.steps, a.batch, a.lr)


if __name__ == "__main__":
    main()

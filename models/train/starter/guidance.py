"""Adapter guidance distillation: one evaluation that imitates guidance of any scale (Jensen and Sadat 2025).

    python -m starter.guidance CLIP RUN WORK OUT --steps 1500

Every cross-attention gets a small attention beside it, over tokens made of the guidance scale, the time embedding and the
prompt. The base stays frozen; output projections start at zero, so training starts from the unguided base. Taught by
`starter.trajectories`: states of guided sampling, both predictions stored, so the target of any scale is known at each.
"""
from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from .fit import fit
from .frozen import frozen, predict
from .lora import describe, store
from .trajectories import SPREAD, Trajectories

# Frequencies of the scale's embedding: slow enough that neighbouring scales look alike between 1 and 8.
FREQUENCY = 0.12


class Site(nn.Module):
    """Beside one cross-attention of width c: softmax((x Wq') k^T / sqrt(h)) v Wo + b."""

    def __init__(self, c: int, h: int):
        super().__init__()
        linear = lambda i, o: nn.init.xavier_uniform_(torch.empty(o, i))
        self.to_q, self.to_k, self.to_v = (nn.Parameter(linear(i, h)) for i in (c, h, h))
        self.to_out, self.bias = nn.Parameter(torch.zeros(c, h)), nn.Parameter(torch.zeros(c))

    def forward(self, x, tokens):
        q = F.linear(x, self.to_q).float()
        k, v = F.linear(tokens, self.to_k).float(), F.linear(tokens, self.to_v).float()
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(len(self.to_q)), -1)
        return F.linear(weights @ v, self.to_out, self.bias)


class Guidance(nn.Module):
    def __init__(self, sites: dict[str, int], h: int, temb: int, text: int, guidance_range=SPREAD):
        super().__init__()
        self.h, self.range = h, guidance_range
        self.register_buffer("frequencies", torch.randn(h) * FREQUENCY)
        self.register_buffer("phases", torch.rand(h))
        self.linear_1, self.linear_2, self.norm = nn.Linear(h, 4 * h), nn.Linear(4 * h, h), nn.LayerNorm(h)
        # One token among eighty: it starts large, or the scale would hardly be heard at first.
        nn.init.constant_(self.norm.weight, 4.0)
        self.time = nn.Parameter(nn.init.xavier_uniform_(torch.empty(h, temb)))
        self.text = nn.Parameter(nn.init.xavier_uniform_(torch.empty(h, text)))
        self.paths = list(sites)
        self.sites = nn.ModuleList(Site(c, h) for c in sites.values())
        self.scale = self.context = self.tokens = None

    def token_of(self, scale: torch.Tensor) -> torch.Tensor:
        waves = torch.cos(2 * math.pi * (scale.float()[:, None] * self.frequencies + self.phases))
        return self.norm(self.linear_2(F.relu(self.linear_1(waves))).float())

    def set(self, scale: torch.Tensor, context: torch.Tensor) -> None:
        """Says what the next evaluation is for; `tokens` follow when the U-Net has its time embedding."""
        self.scale, self.context = scale, context

    def see_time(self, temb: torch.Tensor) -> None:
        parts = [self.token_of(self.scale)[:, None], F.linear(temb, self.time)[:, None], F.linear(self.context, self.text)]
        tokens = torch.cat([p.float() for p in parts], 1)
        self.tokens = tokens + positions(tokens.shape[1], self.h)

    def install(self, unet: nn.Module) -> list:
        """Hooks: the time embedding before its SiLU, and every `attn2`, whose output gains the site's. Removable."""
        hooks = [unet.time_embedding.register_forward_hook(lambda m, args, out: self.see_time(out))]
        for path, site in zip(self.paths, self.sites):
            hooks.append(unet.get_submodule(path).register_forward_hook(
                lambda m, args, out, site=site: out + site(args[0], self.tokens).to(out.dtype)))
        return hooks

    def tensors(self) -> dict[str, torch.Tensor]:
        out = {"guidance.frequencies": self.frequencies, "guidance.phases": self.phases, "time.weight": self.time, "text.weight": self.text}
        for name in ("linear_1", "linear_2", "norm"):
            out |= {f"guidance.{name}.{k}": v for k, v in getattr(self, name).state_dict().items()}
        for path, site in zip(self.paths, self.sites):
            out |= {f"sites.{path}.{k}.weight": getattr(site, k) for k in ("to_q", "to_k", "to_v", "to_out")}
            out[f"sites.{path}.to_out.bias"] = site.bias
        return {k: v.detach().clone() for k, v in out.items()}

    @staticmethod
    def of_tensors(t: dict[str, torch.Tensor]) -> "Guidance":
        paths = [k.removeprefix("sites.").removesuffix(".to_q.weight") for k in sorted(t) if k.endswith(".to_q.weight")]
        h, temb = t["time.weight"].shape
        net = Guidance({p: t[f"sites.{p}.to_q.weight"].shape[1] for p in paths}, h, temb, t["text.weight"].shape[1])
        net.frequencies.data, net.phases.data = t["guidance.frequencies"].float(), t["guidance.phases"].float()
        net.time.data, net.text.data = t["time.weight"].float(), t["text.weight"].float()
        for name in ("linear_1", "linear_2", "norm"):
            getattr(net, name).load_state_dict({k: t[f"guidance.{name}.{k}"].float() for k in ("weight", "bias")})
        for path, site in zip(paths, net.sites):
            for k in ("to_q", "to_k", "to_v", "to_out"):
                getattr(site, k).data = t[f"sites.{path}.{k}.weight"].float()
            site.bias.data = t[f"sites.{path}.to_out.bias"].float()
        return net.requires_grad_(False)


def positions(count: int, h: int) -> torch.Tensor:
    """Sinusoidal, sine half then cosine half, base 10000."""
    frequency = torch.exp(-math.log(10000) * torch.arange(h // 2, dtype=torch.float32) / (h // 2))
    angle = torch.arange(count, dtype=torch.float32)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


def sites_of(unet: nn.Module) -> dict[str, int]:
    return {n: m.to_q.in_features for n, m in unet.named_modules() if n.endswith(".attn2")}


class States:
    """(state, timestep, prompt, both predictions) of all trajectories, drawn evenly."""

    def __init__(self, work: str, starter, kinds=("spread", "fixed"), held: int = 0, only_held: bool = False):
        self.sets, self.contexts = [], []
        for kind in kinds:
            t = Trajectories(work, kind, held, only_held)
            self.sets.append(t)
            self.contexts.append(torch.cat([starter.text(t.ids[i : i + 64]) for i in range(0, t.n, 64)]))
        # How far guidance moves the prediction at scale 2, by timestep: the loss counts errors in this unit.
        size = {}
        for t in self.sets:
            for i, step in enumerate(t.steps):
                size[step] = (t.c[i].float() - t.u[i].float()).square().mean()
        self.unit = size

    def batch(self, n: int):
        x, c, u, context, scale, steps = [], [], [], [], [], []
        for _ in range(n):
            k = int(torch.rand(()) < 0.35) if len(self.sets) > 1 else 0
            t = self.sets[k]
            i, j = int(torch.randint(0, len(t.steps), ())), int(torch.randint(0, t.n, ()))
            x.append(t.x[i, j]), c.append(t.c[i, j]), u.append(t.u[i, j]), context.append(self.contexts[k][j]), steps.append(t.steps[i])
            # States belong to a scale, but the target is known for all: most draws stay near, so that states fit.
            own = float(t.scale[j])
            scale.append(min(SPREAD[1], max(SPREAD[0], own + 0.7 * float(torch.randn(())))) if torch.rand(()) < 0.6 else SPREAD[0] + (SPREAD[1] - SPREAD[0]) * float(torch.rand(())))
        unit = torch.stack([self.unit[s] for s in steps])
        return (torch.stack(x).float(), torch.tensor(steps), torch.stack(context), torch.tensor(scale), torch.stack(c).float(), torch.stack(u).float(), unit)


def train(clip: str, run: str, work: str, out: str, h: int, steps: int, batch: int, lr: float) -> None:
    starter = frozen(clip, run)
    torch.manual_seed(11)
    net = Guidance(sites_of(starter.unet), h, starter.unet.time_embedding.linear_2.out_features, starter.unet.cfg.cross_attention_dim)
    states = States(work, starter, held=1)
    net.install(starter.unet)

    def loss() -> tuple[torch.Tensor, float]:
        x, t, context, scale, c, u, unit = states.batch(batch)
        net.set(scale, context)
        guided = u + scale[:, None, None, None] * (c - u)
        error = (predict(starter.unet, x, t, context) - guided).square().mean((1, 2, 3))
        # A mixture of plain and relative errors: plain ones leave small scales alone, relative ones the large.
        wanted = unit * ((scale - 1).square() + 0.3)
        return (error / wanted.sqrt() / unit.sqrt()).mean(), float((error.detach().sum() / (guided - c).square().mean((1, 2, 3)).sum()).sqrt())

    fit(Path(work) / "guidance.pt", list(net.parameters()), loss, steps, lr, batch)
    store(Path(out) / "guidance.safetensors", net.tensors(), describe(
        kind="guidance", role="guidance", title="Guidance in one evaluation", weight="1.0",
        about=f"{sum(s.n for s in states.sets)} guided trajectories, {steps} steps of {batch}") | {
        "width": str(h), "guidance_min": str(SPREAD[0]), "guidance_max": str(SPREAD[1])})


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("clip", "run", "work", "out"):
        p.add_argument(name)
    p.add_argument("--width", type=int, default=40)
    p.add_argument("--steps", type=int, default=1500)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--lr", type=float, default=4e-3)
    a = p.parse_args()
    torch.set_num_threads(1)
    train(a.clip, a.run, a.work, a.out, a.width, a.steps, a.batch, a.lr)


if __name__ == "__main__":
    main()

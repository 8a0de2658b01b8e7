"""Noise schedule, objective and samplers, all in v-prediction."""
from __future__ import annotations

import torch

STEPS, BETA_START, BETA_END = 1000, 0.00085, 0.012


def alphas_cumprod() -> torch.Tensor:
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, 0)


class Schedule:
    def __init__(self):
        self.bar = alphas_cumprod()
        snr = self.bar / (1 - self.bar)
        # Min-SNR with gamma 5 for v, softened: plain min-SNR all but ignores the noisiest steps, and with so few
        # images that is where place, time and species have to be learnt.
        self.weight = torch.clamp(snr + 0.4, max=5.0) / (snr + 1)

    def pair(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bar = self.bar[t][:, None, None, None]
        return bar.sqrt(), (1 - bar).sqrt()

    def noised(self, x, noise, t):
        """The noisy latent and the v to predict."""
        a, s = self.pair(t)
        return a * x + s * noise, a * noise - s * x


def timesteps(n: int) -> list[int]:
    """Trailing spacing: starts at 999, so that the first step really is pure noise."""
    return [int(round(STEPS - i * STEPS / n)) - 1 for i in range(n)]


class Guided:
    """The network with classifier-free guidance as a function of (x, t) -> v."""

    def __init__(self, unet, conditional, empty, scale: float):
        self.unet, self.scale = unet, scale
        self.context = torch.cat([empty.expand_as(conditional), conditional]) if scale != 1 else conditional

    def __call__(self, x, t: int):
        n = len(x)
        if self.scale == 1:
            return self.unet(x, torch.full((n,), t), self.context).float()
        u, c = self.unet(torch.cat([x, x]), torch.full((2 * n,), t), self.context).float().chunk(2)
        return u + self.scale * (c - u)


@torch.no_grad()
def ddim(model, noise: torch.Tensor, n: int) -> torch.Tensor:
    """DDIM without added noise, as diffusers' DDIMScheduler with trailing spacing and set_alpha_to_one = False."""
    bar, x = alphas_cumprod(), noise
    for t in timesteps(n):
        v = model(x, t)
        a, s = bar[t].sqrt(), (1 - bar[t]).sqrt()
        x0, eps = a * x - s * v, a * v + s * x
        previous = t - STEPS // n
        after = bar[previous] if previous >= 0 else bar[0]
        x = after.sqrt() * x0 + (1 - after).sqrt() * eps
    return x


@torch.no_grad()
def dpm_2m(model, noise: torch.Tensor, n: int) -> torch.Tensor:
    """DPM-Solver++ (2M), trailing spacing; ends on the clean prediction."""
    bar, x, steps = alphas_cumprod(), noise, timesteps(n)
    alpha, sigma = bar.sqrt(), (1 - bar).sqrt()
    lam = torch.log(alpha / sigma)
    before = None
    for i, t in enumerate(steps):
        x0 = alpha[t] * x - sigma[t] * model(x, t)
        if i == len(steps) - 1:
            return x0
        s = steps[i + 1]
        h = lam[s] - lam[t]
        d = x0
        if before is not None:
            r = (lam[t] - lam[steps[i - 1]]) / h
            d = (1 + 1 / (2 * r)) * x0 - (1 / (2 * r)) * before
        x = (sigma[s] / sigma[t]) * x - alpha[s] * torch.expm1(-h) * d
        before = x0
    return x

"""Trains the autoencoder, measures it, and encodes pools to latents.

    python -m starter.vae train  RUN POOL... --minutes 25
    python -m starter.vae finish RUN POOL...            # freezes: scaling factor, PSNR
    python -m starter.vae encode RUN POOL               # POOL/latents.f16
    python -m starter.vae decoder RUN POOL... --minutes 15
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import resume
from .nets import Vae, VaeConfig, config_dict, count
from .pool import Pool


def to_input(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


class Crops:
    """Random square crops; half of them near the middle, where the characters and all small details are."""

    def __init__(self, pools: list[str]):
        self.pools = [Pool(p) for p in pools]

    def batch(self, n: int, size: int) -> torch.Tensor:
        out = np.empty((n, size, size, 3), np.uint8)
        room = 256 - size
        for i in range(n):
            pool = self.pools[np.random.randint(len(self.pools))]
            k = np.random.randint(max(1, len_cached(pool)))
            spread = (np.random.rand(2) if np.random.rand() < 0.5 else 0.35 + 0.4 * np.random.rand(2)) * room
            y, x = spread.astype(int)
            crop = pool.images[k, y : y + size, x : x + size]
            out[i] = crop[:, ::-1] if np.random.rand() < 0.5 else crop
        return to_input(out)


_lengths: dict[int, tuple[float, int]] = {}


def len_cached(pool: Pool) -> int:
    """A pool may still be growing; counting its lines for every crop would be slow."""
    seen, n = _lengths.get(id(pool), (0.0, 0))
    if n < pool.capacity and time.time() - seen > 20:
        n = len(pool)
        _lengths[id(pool)] = (time.time(), n)
    return n


def initialise(vae: Vae) -> None:
    """Residual branches start at zero and the remaining chain of convolutions keeps lengths (orthogonal).

    With the default start, colours had not come through the sixteenfold bottleneck after 1,500 steps.
    """
    from .nets import Downsample, ResnetBlock, Upsample, VaeAttention

    for m in vae.modules():
        if isinstance(m, ResnetBlock):
            torch.nn.init.zeros_(m.conv2.weight)
            torch.nn.init.zeros_(m.conv2.bias)
            if m.conv_shortcut is not None:
                torch.nn.init.orthogonal_(m.conv_shortcut.weight)
        elif isinstance(m, VaeAttention):
            torch.nn.init.zeros_(m.to_out[0].weight)
            torch.nn.init.zeros_(m.to_out[0].bias)
        elif isinstance(m, Downsample):
            torch.nn.init.orthogonal_(m.conv.weight)
        elif isinstance(m, Upsample):
            torch.nn.init.dirac_(m.conv.weight)
            m.conv.weight.data += 0.02 * torch.randn_like(m.conv.weight)
    for conv in (vae.encoder.conv_in, vae.decoder.conv_in, vae.quant_conv, vae.post_quant_conv):
        torch.nn.init.orthogonal_(conv.weight)


class StageHeads(torch.nn.Module):
    """Training aid: a 1 x 1 convolution to RGB behind the middle and behind every up block but the last.

    Each is compared with the picture at its own size, so the bottleneck learns colours from the first minute. At the
    start only the three coarsest are used: that skips the expensive half of the decoder.
    """

    def __init__(self, cfg: VaeConfig):
        super().__init__()
        ch = tuple(reversed(cfg.block_out_channels))
        # An up block ends at twice its size, so the middle and block k stand at 16, 32, 64, ... pixels.
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(c, 3, 1) for c in (ch[0], *ch[:-1]))

    def loss(self, stages: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        total = 0.0
        for head, h in zip(self.heads, stages):
            if h.shape[-1] == x.shape[-1]:
                break
            small = F.interpolate(x, size=h.shape[-2:], mode="area")
            total = total + reconstruction_loss(head(h).float(), small)
        return total


def reconstruction_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 and square, plus L1 of the differences between neighbours: keeps outlines sharp without an adversary."""
    l1 = (y - x).abs().mean()
    dx = ((y[..., 1:] - y[..., :-1]) - (x[..., 1:] - x[..., :-1])).abs().mean()
    dy = ((y[..., 1:, :] - y[..., :-1, :]) - (x[..., 1:, :] - x[..., :-1, :])).abs().mean()
    # The squared term pulls rare colours in, which L1 alone (a median) is slow to notice.
    return l1 + (y - x).square().mean() + 0.5 * (dx + dy)


def train(run: str, pools: list[str], minutes: float, batch: int, high: float, low: float, coarse_share: float) -> None:
    folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    np.random.seed(1)
    vae = Vae(VaeConfig())
    initialise(vae)
    path = folder / "vae.pt"
    state = resume.load(path)
    heads = StageHeads(vae.cfg)
    trained = [*vae.parameters(), *heads.parameters()]
    opt = torch.optim.AdamW(trained, lr=high, betas=(0.9, 0.99), weight_decay=1e-4)
    ema = resume.Ema(vae, 0.998)
    step = 0
    if state:
        vae.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        opt.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        resume.set_rng_state(state["rng"])
        step = state["step"]
    print(f"encoder {count(vae.encoder) / 1e6:.2f} M, decoder {count(vae.decoder) / 1e6:.2f} M, from step {step}", flush=True)
    crops, clock = Crops(pools), resume.Clock(minutes)
    mean_loss, since, first = 0.0, 0, step

    def checkpoint():
        resume.save(path, {"model": vae.state_dict(), "heads": heads.state_dict(), "ema": ema.state_dict(), "optimizer": opt.state_dict(), "rng": resume.rng_state(), "step": step})

    while not clock.over():
        coarse = clock.progress() < coarse_share and not state
        size = 256 if step % 40 == 39 else 128
        x = crops.batch(max(1, batch * 128 * 128 // (size * size)), size)
        lr = min(1.0, (step + 1) / 100) * resume.cosine(clock.progress(), high, low)
        for g in opt.param_groups:
            g["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16):
            mean, logvar = vae.encode(x)
        mean, logvar = mean.float(), logvar.float()
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        with torch.autocast("cpu", torch.bfloat16):
            stages = vae.decoder.stages(vae.post_quant_conv(z), 2 if coarse else None)
            aid = heads.loss(stages, x)
            y = None if coarse else vae.decoder.finish(stages[-1])
        rec = aid if coarse else reconstruction_loss(y.float(), x)
        loss = rec + 1e-4 * kl if coarse else rec + 0.3 * aid + 1e-4 * kl
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        opt.step()
        ema.update(vae)
        step += 1
        mean_loss, since = mean_loss + rec.item(), since + 1
        if step % 50 == 0:
            print(f"step {step} loss {mean_loss / since:.4f} lr {lr:.1e} {batch * (step - first) / clock.elapsed():.1f} crops/s {clock.elapsed() / 60:.1f} min", flush=True)
            mean_loss, since = 0.0, 0
        if clock.save_due():
            checkpoint()
    checkpoint()


class Pairs:
    """Whole pictures with the latents the frozen encoder gave them: exactly what the decoder meets in use."""

    def __init__(self, pools: list[str]):
        self.pools = [Pool(p) for p in pools]
        self.refresh()

    def refresh(self) -> None:
        self.counts = [int((p.folder / "latents.count").read_text()) for p in self.pools]
        self.latents = [np.memmap(p.folder / "latents.f16", np.float16, "r", shape=(p.capacity, VaeConfig().latent_channels, 16, 16)) for p in self.pools]

    def batch(self, n: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        z, x = [], []
        for _ in range(n):
            k = np.random.randint(len(self.pools))
            i = np.random.randint(self.counts[k])
            z.append(self.latents[k][i].astype(np.float32) / scale)
            x.append(self.pools[k].images[i])
        return torch.from_numpy(np.stack(z)), to_input(np.stack(x))


def tune_decoder(run: str, pools: list[str], minutes: float, batch: int, high: float, low: float) -> None:
    """Trains the decoder alone. Latents, and with them the U-Net, stay valid."""
    folder = Path(run)
    vae, info = load_final(run)
    vae = vae.train().to(memory_format=torch.channels_last)
    path = folder / "decoder.pt"
    torch.manual_seed(4)
    np.random.seed(4)
    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    opt = torch.optim.AdamW(trained, lr=high, betas=(0.9, 0.99), weight_decay=1e-4)
    ema, step = resume.Ema(vae, 0.998), 0
    state = resume.load(path)
    if state:
        vae.load_state_dict(state["model"])
        opt.load_state_dict(state["optimizer"])
        ema.load_state_dict(state["ema"])
        resume.set_rng_state(state["rng"])
        step = state["step"]
    pairs, clock = Pairs(pools), resume.Clock(minutes)
    first, total, since = step, 0.0, 0

    def checkpoint():
        resume.save(path, {"model": vae.state_dict(), "ema": ema.state_dict(), "optimizer": opt.state_dict(), "rng": resume.rng_state(), "step": step})

    while not clock.over():
        z, x = pairs.batch(batch, info["scaling_factor"])
        lr = min(1.0, (step - first + 1) / 100) * resume.cosine(clock.progress(), high, low)
        for g in opt.param_groups:
            g["lr"] = lr
        # The diffusion model's latents are never exact; the decoder learns to draw clean lines from them.
        spread = 0.2 * torch.rand(len(z), 1, 1, 1) / info["scaling_factor"]
        z = z + torch.randn_like(z) * spread
        with torch.autocast("cpu", torch.bfloat16):
            y = vae.decode(z.contiguous(memory_format=torch.channels_last))
        loss = reconstruction_loss(y.float(), x)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        opt.step()
        ema.update(vae)
        step, total, since = step + 1, total + loss.item(), since + 1
        if step % 100 == 0:
            print(f"step {step} loss {total / since:.4f} lr {lr:.1e} {batch * (step - first) / clock.elapsed():.1f} pictures/s {clock.elapsed() / 60:.1f} min", flush=True)
            total, since = 0.0, 0
        if clock.save_due():
            checkpoint()
    checkpoint()


def psnr(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return -10 * torch.log10(((y.clamp(-1, 1) - x) / 2).square().mean((1, 2, 3)))


def load_final(run: str) -> tuple[Vae, dict]:
    folder = Path(run)
    vae = Vae(VaeConfig())
    vae.load_state_dict(torch.load(folder / "vae.final.pt"))
    return vae.eval(), json.loads((folder / "vae.json").read_text())


def standardise(vae: Vae, mean: torch.Tensor, std: torch.Tensor, target: float) -> None:
    """Gives every latent channel mean 0 and the same spread, by changing only the two 1 x 1 convolutions.

    A plain `scaling_factor` treats all channels alike; channels of uneven spread would each see another noise level.
    """
    q, p, n = vae.quant_conv, vae.post_quant_conv, len(mean)
    gain = target / std
    p.bias.data += (p.weight.data[:, :, 0, 0] * mean).sum(1)
    p.weight.data /= gain[None, :, None, None]
    q.weight.data[:n] *= gain[:, None, None, None]
    q.bias.data[:n] = (q.bias.data[:n] - mean) * gain
    q.bias.data[n:] += 2 * gain.log()


@torch.no_grad()
def finish(run: str, pools: list[str], decoder: bool) -> None:
    """Fixes the weights (EMA) and measures the scaling factor. With `decoder`, only the decoder is exchanged."""
    folder = Path(run)
    vae = Vae(VaeConfig()).eval()
    if decoder:
        vae.load_state_dict(torch.load(folder / "vae.final.pt"))
        ema = resume.load(folder / "decoder.pt")["ema"]["shadow"]
        vae.load_state_dict({**vae.state_dict(), **{k: v for k, v in ema.items() if k.startswith(("decoder.", "post_quant_conv."))}})
    else:
        vae.load_state_dict(resume.load(folder / "vae.pt")["ema"]["shadow"])
    if not decoder:
        z = torch.cat([vae.encode(to_input(Pool(name).images[i : i + 16]))[0] for name in pools for i in range(0, 256, 16)])
        standardise(vae, z.mean((0, 2, 3)), z.std((0, 2, 3)), 2.5)
    values, scores, sheet = [], {}, []
    for name in pools:
        pool = Pool(name)
        n = len(pool)
        picks = np.linspace(0, n - 1, 64).astype(int)
        score = []
        for i in range(0, len(picks), 8):
            x = to_input(pool.images[picks[i : i + 8]])
            mean, _ = vae.encode(x)
            values.append(mean)
            y = vae.decode(mean)
            score.append(psnr(y, x))
            if i < 16:
                sheet += [torch.cat([a, b], 1) for a, b in zip(x[:4], y[:4])]
        scores[name] = float(torch.cat(score).mean())
    z = torch.cat(values)
    info = json.loads((folder / "vae.json").read_text()) if decoder else {
        "scaling_factor": float(1 / z.std()), "channel_std": z.std((0, 2, 3)).tolist(), "channel_mean": z.mean((0, 2, 3)).tolist(),
        "config": config_dict(VaeConfig()),
    }
    info["psnr"] = scores
    torch.save(vae.state_dict(), folder / "vae.final.pt")
    (folder / "vae.json").write_text(json.dumps(info, indent=1))
    from PIL import Image

    pixels = torch.cat([torch.cat(sheet[i : i + 8], 2) for i in range(0, len(sheet) - 7, 8)], 1)
    Image.fromarray(((pixels.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(folder / "reconstruction.png")
    print(json.dumps(info, indent=1))


@torch.no_grad()
def encode(run: str, name: str) -> None:
    """Means of the latents times the scaling factor, as float16. Goes on where it stopped."""
    vae, info = load_final(run)
    pool, total = Pool(name), len(Pool(name))
    path, mark = Path(name) / "latents.f16", Path(name) / "latents.count"
    done = int(mark.read_text()) if mark.exists() and path.exists() else 0
    shape = (pool.capacity, VaeConfig().latent_channels, 16, 16)
    path.touch()
    with open(path, "r+b") as f:
        f.truncate(int(np.prod(shape)) * 2)
    latents = np.memmap(path, np.float16, "r+", shape=shape)
    started = time.time()
    vae = vae.to(memory_format=torch.channels_last)
    for i in range(done, total, 2):  # pairs stay in the cache: 44 a second, against 18 in batches of 16
        x = to_input(pool.images[i : min(total, i + 2)]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            mean, _ = vae.encode(x)
        latents[i : i + len(x)] = (mean.float() * info["scaling_factor"]).numpy().astype(np.float16)
        if i and i % 800 == 0:
            latents.flush()
            mark.write_text(str(i))
    latents.flush()
    mark.write_text(str(total))
    print(f"{total - done} latents, {(total - done) / (time.time() - started):.1f} per second")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("action", choices=["train", "decoder", "finish", "finish-decoder", "encode"])
    p.add_argument("run")
    p.add_argument("pools", nargs="+")
    p.add_argument("--minutes", type=float, default=25)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--end-lr", type=float, default=1e-4)
    p.add_argument("--coarse", type=float, default=0.25, help="share of the run that trains only up to a quarter of the size")
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.action == "train":
        train(a.run, a.pools, a.minutes, a.batch, a.lr, a.end_lr, a.coarse)
    elif a.action == "decoder":
        tune_decoder(a.run, a.pools, a.minutes, a.batch, a.lr, a.end_lr)
    elif a.action in ("finish", "finish-decoder"):
        finish(a.run, a.pools, a.action == "finish-decoder")
    else:
        for pool in a.pools:
            encode(a.run, pool)


if __name__ == "__main__":
    main()

"""Draws pictures from a training checkpoint: sheets to judge progress by, and the golden for the app.

    python -m starter.sample CLIP RUN OUT.png --prompts 16
    python -m starter.sample CLIP RUN GOLDEN_DIR --golden
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import resume
from .caption import caption, example_prompts
from .diffusion import Guided, ddim, dpm_2m
from .nets import UNet, UNetConfig, Vae
from .scene import LEVELS, sample
from .sheet import grid
from .text import compact_encoder
from .tokenizer import Rows, Tokenizer
from .vae import load_final


class Starter:
    """The trained networks, EMA weights, ready to draw."""

    def __init__(self, clip: str, run: str, ema: bool = True):
        state = resume.load(Path(run) / "unet.pt")
        self.tokenizer, self.rows = Tokenizer(clip), Rows(state["rows"])
        self.unet, self.text = UNet(UNetConfig()).eval(), compact_encoder(len(self.rows)).eval()
        self.unet.load_state_dict(state["ema"]["shadow"] if ema else state["unet"])
        self.text.load_state_dict(state["text_ema"]["shadow"] if ema else state["text"])
        vae, self.vae_info = load_final(run)
        self.vae: Vae = vae
        self.step, self.images, self.seen = state["step"], state["images"], state["seen"]

    def as_shipped(self) -> "Starter":
        """Weights rounded to float16, as they are in the exported files."""
        for net in (self.unet, self.text, self.vae):
            net.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
        return self

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> torch.Tensor:
        return self.text(torch.tensor([self.rows.of(self.tokenizer.padded(p)) for p in prompts]))

    @torch.no_grad()
    def latents(self, prompts: list[str], noise: torch.Tensor, steps: int, guidance: float, sampler: str) -> torch.Tensor:
        model = Guided(self.unet, self.embed(prompts), self.embed([""]), guidance)
        return (ddim if sampler == "ddim" else dpm_2m)(model, noise, steps)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.vae.decode(latents / self.vae_info["scaling_factor"])

    def draw(self, prompts: list[str], seed: int = 0, steps: int = 25, guidance: float = 4.0, sampler: str = "dpm", batch: int = 8) -> list[np.ndarray]:
        noise = torch.randn(len(prompts), UNetConfig().in_channels, 16, 16, generator=torch.Generator().manual_seed(seed))
        out = []
        for i in range(0, len(prompts), batch):
            pixels = self.decode(self.latents(prompts[i : i + batch], noise[i : i + batch], steps, guidance, sampler))
            out += list(((pixels.clamp(-1, 1) + 1) * 127.5 + 0.5).byte().permute(0, 2, 3, 1).numpy())
        return out


def test_prompts(n: int, level: int = 0, split: str = "train") -> list[str]:
    """The example prompts first, then captions of scenes training has never drawn."""
    examples = example_prompts()[:n]
    more = [caption(sample(980_000_000 + i, LEVELS[level], split), {}).text for i in range(n - len(examples))]
    return examples + more


def golden(starter: Starter, folder: Path, steps: int = 20, guidance: float = 4.0) -> None:
    """Noise, embeddings, latent and picture of one prompt: the app has to arrive at the same picture."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    prompt = example_prompts()[0]
    noise = torch.randn(1, UNetConfig().in_channels, 16, 16, generator=torch.Generator().manual_seed(1234))
    latent = starter.latents([prompt], noise, steps, guidance, "ddim")
    picture = starter.decode(latent)
    ids = torch.tensor([starter.tokenizer.padded(prompt), starter.tokenizer.padded("")], dtype=torch.int32)
    tensors = {"noise": noise, "prompt_embeds": starter.embed([prompt]), "negative_prompt_embeds": starter.embed([""]), "input_ids": ids,
               "latent": latent, "image": picture}
    meta = {"prompt": prompt, "negative_prompt": "", "sampler": "ddim", "steps": str(steps), "guidance": str(guidance), "timestep_spacing": "trailing"}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "golden.safetensors", metadata=meta)
    Image.fromarray(((picture[0].clamp(-1, 1) + 1) * 127.5 + 0.5).byte().permute(1, 2, 0).numpy()).save(folder / "golden.png")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("out")
    p.add_argument("--prompts", type=int, default=16)
    p.add_argument("--prompt", help="draw only this, in different seeds")
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--guidance", type=float, default=4.0)
    p.add_argument("--sampler", choices=["dpm", "ddim"], default="dpm")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--level", type=int, default=0)
    p.add_argument("--split", default="train")
    p.add_argument("--raw", action="store_true", help="weights without EMA")
    p.add_argument("--golden", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(1)
    starter = Starter(a.clip, a.run, not a.raw)
    if a.golden:
        return golden(starter.as_shipped(), Path(a.out))
    prompts = [a.prompt] * a.prompts if a.prompt else test_prompts(a.prompts, a.level, a.split)
    images = starter.draw(prompts, a.seed, a.steps, a.guidance, a.sampler)
    sheet = grid(images, int(round(a.prompts**0.5)))
    if a.out.endswith(".jpg"):
        # For a repository: small enough to live there for ever.
        side = min(1280, sheet.width)
        sheet.resize((side, sheet.height * side // sheet.width), Image.LANCZOS).save(a.out, quality=80, optimize=True)
    else:
        sheet.save(a.out)
    print(f"step {starter.step}, {starter.images} images seen")
    print("\n".join(f"{i:3d} {x}" for i, x in enumerate(prompts)))


if __name__ == "__main__":
    main()

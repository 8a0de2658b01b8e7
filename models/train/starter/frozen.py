"""The shipped networks as adapters see them: weights of the files, frozen, ready for bf16 on a CPU."""
from __future__ import annotations

import torch

from .sample import Starter

# Hash of the installed model's source, as the app writes it to the manifest: an adapter says which base it was made for.
BASE_SHA256 = "b4425e4ffe4ca54d69e572fb213452f0b118db5f376a6e1fcc29a9b09de19e94"


def frozen(clip: str, run: str) -> Starter:
    """`run` comes from `python -m starter.unpack`, so its running means are the shipped numbers."""
    starter = Starter(clip, run)
    for net in (starter.unet, starter.text, starter.vae):
        net.requires_grad_(False)
    starter.unet.to(memory_format=torch.channels_last)
    return starter


def predict(unet, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """v in float32; products in bf16, as in the base's own training."""
    with torch.autocast("cpu", torch.bfloat16):
        return unet(x.contiguous(memory_format=torch.channels_last), t, context).float()

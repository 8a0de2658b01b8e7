"""Makes a run folder out of the shipped weights, so that training can go on where its own checkpoints are lost.

    python -m starter.unpack CLIP ../starter RUN

The way back of `starter.pack`: weights are the shipped running means in fp16; the optimiser starts anew, which costs the
200 steps of its warm-up. Refuses a folder that holds a run already.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from .nets import Vae, VaeConfig
from .pack import EMBEDDING, NAMES
from .resume import Ema
from .tokenizer import Tokenizer, grammar_rows
from .unet import Trainer
from .vae import config_dict

WARM = 10_000  # running means count as this old: they then forget at their usual pace


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / part / NAMES[part]).items()}


def unpack(clip: str, shipped: Path, run: Path) -> Trainer:
    if (run / "unet.pt").exists():
        raise SystemExit(f"{run} holds a run already")
    run.mkdir(parents=True, exist_ok=True)

    vae = Vae(VaeConfig())
    vae.load_state_dict(weights(shipped, "vae"))
    torch.save(vae.state_dict(), run / "vae.final.pt")
    scale = json.loads((shipped / "vae" / "config.json").read_text())["scaling_factor"]
    (run / "vae.json").write_text(json.dumps({"scaling_factor": scale, "config": config_dict(VaeConfig())}, indent=1))

    rows = grammar_rows(Tokenizer(clip))
    trainer = Trainer(str(run), rows, lr=1e-3, text_lr=0.25, ema=0.999)
    trainer.unet.load_state_dict(weights(shipped, "unet"))
    text = weights(shipped, "text_encoder")
    trained, ids, unknown = (text.pop(f"{EMBEDDING}.{part}") for part in ("rows", "row_ids", "unknown"))
    table = unknown.repeat(len(rows), 1)  # words not met yet start as the unknown word
    table[rows.of(ids.tolist())] = trained
    trainer.text.load_state_dict({**text, f"{EMBEDDING}.weight": table})
    trainer.ema, trainer.text_ema = Ema(trainer.unet, 0.999), Ema(trainer.text, 0.999)
    trainer.ema.steps = trainer.text_ema.steps = WARM
    with safe_open(shipped / "unet" / NAMES["unet"], "pt") as file:
        meta = file.metadata()
    trainer.step, trainer.images = int(meta["vignette.step"]), int(meta["vignette.images_seen"])
    trainer.seen = set(ids.tolist())
    trainer.save()
    return trainer


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("shipped", type=Path)
    p.add_argument("run", type=Path)
    a = p.parse_args()
    trainer = unpack(a.clip, a.shipped, a.run)
    print(f"{a.run}: step {trainer.step}, {trainer.images} images, {len(trainer.seen)} words")


if __name__ == "__main__":
    main()

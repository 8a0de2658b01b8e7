"""Writes a training checkpoint as a diffusers folder (fp16 safetensors), the form in which it is shipped.

    python -m starter.pack  CLIP RUN OUT
    python -m starter.pack  CLIP RUN OUT --check     # compares with real diffusers and transformers classes

Only the token embedding differs from a plain folder: it holds the trained rows, their ids and the one vector all
other words share; `expand` (and the app, when it installs the model) makes the usual 49,408 rows out of it.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .caption import example_prompts
from .diffusion import BETA_END, BETA_START, STEPS
from .nets import TextConfig, UNetConfig, VaeConfig
from .sample import Starter

EMBEDDING = "text_model.embeddings.token_embedding"
NAMES = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}


def unet_config() -> dict:
    c = UNetConfig()
    n = len(c.block_out_channels)
    return {
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30.0", "act_fn": "silu", "attention_head_dim": c.heads,
        "block_out_channels": list(c.block_out_channels), "center_input_sample": False, "cross_attention_dim": c.cross_attention_dim,
        "down_block_types": ["CrossAttnDownBlock2D"] * (n - 1) + ["DownBlock2D"], "downsample_padding": 1, "flip_sin_to_cos": True,
        "freq_shift": 0, "in_channels": c.in_channels, "layers_per_block": c.layers_per_block, "mid_block_scale_factor": 1,
        "norm_eps": 1e-05, "norm_num_groups": c.norm_num_groups, "out_channels": c.in_channels, "sample_size": 16,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (n - 1), "use_linear_projection": False,
    }


def vae_config(scaling_factor: float) -> dict:
    c = VaeConfig()
    n = len(c.block_out_channels)
    return {
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.30.0", "act_fn": "silu", "block_out_channels": list(c.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * n, "in_channels": 3, "latent_channels": c.latent_channels,
        "layers_per_block": c.layers_per_block, "norm_num_groups": c.norm_num_groups, "out_channels": 3, "sample_size": 256,
        "scaling_factor": scaling_factor, "up_block_types": ["UpDecoderBlock2D"] * n,
    }


def text_config() -> dict:
    c = TextConfig()
    return {
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 49406, "dropout": 0.0, "eos_token_id": 49407,
        "hidden_act": "quick_gelu", "hidden_size": c.hidden_size, "initializer_factor": 1.0, "initializer_range": 0.02,
        "intermediate_size": c.intermediate_size, "layer_norm_eps": 1e-05, "max_position_embeddings": c.max_position_embeddings,
        "model_type": "clip_text_model", "num_attention_heads": c.num_attention_heads, "num_hidden_layers": c.num_hidden_layers,
        "pad_token_id": 49407, "projection_dim": c.hidden_size, "torch_dtype": "float16", "vocab_size": c.vocab_size,
    }


SCHEDULER = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.30.0", "beta_end": BETA_END, "beta_schedule": "scaled_linear",
    "beta_start": BETA_START, "clip_sample": False, "num_train_timesteps": STEPS, "prediction_type": "v_prediction",
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "trailing", "trained_betas": None,
}
TOKENIZER = {
    "add_prefix_space": False, "bos_token": "<|startoftext|>", "do_lower_case": True, "eos_token": "<|endoftext|>", "errors": "replace",
    "model_max_length": 77, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>",
}
SPECIAL = {k: TOKENIZER[k] for k in ("bos_token", "eos_token", "pad_token", "unk_token")}
INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0", "_name_or_path": "vignette/starter-mini",
    "feature_extractor": [None, None], "requires_safety_checker": False, "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
}


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.detach().to(torch.float16).contiguous() for k, v in state.items()}


def packed_text(starter: Starter) -> dict[str, torch.Tensor]:
    state = half(starter.text.state_dict())
    table = state.pop(f"{EMBEDDING}.weight")
    trained = [t for t in starter.rows.ids if t in set(starter.seen)]
    state[f"{EMBEDDING}.rows"] = table[starter.rows.of(trained)].contiguous()
    state[f"{EMBEDDING}.row_ids"] = torch.tensor(trained, dtype=torch.int32)
    state[f"{EMBEDDING}.unknown"] = table[0].contiguous()
    return state


def expand(state: dict[str, torch.Tensor], vocabulary: int = 49408) -> dict[str, torch.Tensor]:
    out = {k: v for k, v in state.items() if not k.startswith(EMBEDDING)}
    table = state[f"{EMBEDDING}.unknown"].repeat(vocabulary, 1)
    table[state[f"{EMBEDDING}.row_ids"].long()] = state[f"{EMBEDDING}.rows"]
    return {f"{EMBEDDING}.weight": table, **out}


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def vocabulary(level: int) -> dict:
    """Words the app may offer as hints, by kind; only what the shipped level has drawn."""
    from . import caption as c
    from .scene import CLOTH, FUR, LEVELS, OUTFITS, PLACES, TIMES, WEATHERS, WORN

    lv = LEVELS[level]
    unique = lambda lists: list(dict.fromkeys(w for words in lists for w in words))
    return {
        "level": level, "examples": example_prompts(),
        "subjects": unique(c.SPECIES.get(s, [s]) for s in (*lv.heads, *lv.creatures)),
        "colours": unique(c.COLOUR.get(x, [x]) for x in CLOTH),
        "fur": unique(c.COLOUR.get(x, [x]) for x in FUR) if lv.fur else [],
        "clothes": unique([*(c.OUTFIT[o] for o in OUTFITS), *(c.WORN[w] for w in WORN)]),
        "things": unique([c.HELD[t][1]] for t in lv.things),
        "actions": unique([*c.POSE.values(), *(c.HELD[t][0] for t in lv.things)]),
        "places": unique(c.PLACE[p] for p in PLACES), "times": unique(c.TIME[t] for t in TIMES),
        "weather": unique(c.WEATHER[w] for w in WEATHERS), "styles": unique(c.STYLE[s] for s in lv.styles),
        "sampling": {"sampler": "ddim", "steps": 20, "guidance": 4.0, "width": 256, "height": 256},
    }


def pack(starter: Starter, out: Path, level: int) -> None:
    meta = {"format": "pt", "vignette.model": "starter-mini", "vignette.step": str(starter.step), "vignette.images_seen": str(starter.images)}
    states = {"unet": half(starter.unet.state_dict()), "vae": half(starter.vae.state_dict()), "text_encoder": packed_text(starter)}
    configs = {"unet": unet_config(), "vae": vae_config(starter.vae_info["scaling_factor"]), "text_encoder": text_config()}
    for part, state in states.items():
        write_json(out / part / "config.json", configs[part])
        for name, t in state.items():
            if t.is_floating_point() and not torch.isfinite(t).all():
                raise ValueError(f"{part}: {name} is not finite in float16")
        save_file(state, out / part / NAMES[part], metadata=meta)
        (out / part / NAMES[part]).chmod(0o644)  # safetensors writes for the owner only
    write_json(out / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(out / "tokenizer" / "tokenizer_config.json", TOKENIZER)
    write_json(out / "tokenizer" / "special_tokens_map.json", SPECIAL)
    write_json(out / "model_index.json", INDEX)
    write_json(out / "vocabulary.json", vocabulary(level))


@torch.no_grad()
def check(clip: str, run: str, out: Path) -> None:
    """Loads the folder with the community classes and compares every network with ours (float32, same fp16 weights)."""
    import tempfile

    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    from .diffusion import ddim

    ours = Starter(clip, run)
    for net, part in ((ours.unet, "unet"), (ours.vae, "vae")):
        net.load_state_dict({k: v.float() for k, v in load_file(out / part / NAMES[part]).items()})
    packed = load_file(out / "text_encoder" / NAMES["text_encoder"])
    full = expand(packed)
    with tempfile.TemporaryDirectory() as tmp:
        save_file(full, Path(tmp) / "model.safetensors", metadata={"format": "pt"})
        (Path(tmp) / "config.json").write_text((out / "text_encoder" / "config.json").read_text())
        text = CLIPTextModel.from_pretrained(tmp, torch_dtype=torch.float32).eval()
    unet = UNet2DConditionModel.from_pretrained(out / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32).eval()

    compact = {k: v.float() for k, v in packed.items() if not k.startswith(EMBEDDING)}
    table = ours.text.state_dict()[f"{EMBEDDING}.weight"].half().float()
    for t in ours.rows.ids:
        if t not in set(ours.seen):
            table[ours.rows.row[t]] = table[0]
    ours.text.load_state_dict({**compact, f"{EMBEDDING}.weight": table})
    prompts = [*example_prompts()[:3], "", "a dinosaur programming a computer"]
    ids = torch.tensor([ours.tokenizer.padded(p) for p in prompts])
    report = {}
    mine, theirs = ours.embed(prompts), text(ids).last_hidden_state
    report["text"] = (mine - theirs).abs().max().item()
    g = torch.Generator().manual_seed(0)
    x, t = torch.randn(5, UNetConfig().in_channels, 16, 16, generator=g), torch.tensor([0, 100, 500, 900, 999])
    report["unet"] = (ours.unet(x, t, mine) - unet(x, t, theirs).sample).abs().max().item()
    picture = torch.rand(1, 3, 256, 256, generator=g) * 2 - 1
    report["encoder"] = (ours.vae.encode(picture)[0] - vae.encode(picture).latent_dist.mean).abs().max().item()
    report["decoder"] = (ours.vae.decode(x[:1]) - vae.decode(x[:1]).sample).abs().max().item()
    scheduler = DDIMScheduler.from_pretrained(out / "scheduler")
    scheduler.set_timesteps(20)
    fixed = lambda x, t: ours.unet(x, torch.full((len(x),), int(t)), mine[: len(x)])
    y = x.clone()
    for step in scheduler.timesteps:
        y = scheduler.step(fixed(y, step), step, y).prev_sample
    report["ddim"] = (ddim(fixed, x, 20) - y).abs().max().item()
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6
    print(json.dumps({"largest difference": report, "tensors": len(unet.state_dict()), "rows": len(packed[f"{EMBEDDING}.row_ids"]), "megabytes": round(size, 2)}, indent=1))
    if max(report.values()) > 1e-3 or report["unet"] > 1e-4 or report["text"] > 1e-4:
        raise SystemExit("the exported folder does not reproduce the trained networks")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("clip")
    p.add_argument("run")
    p.add_argument("out")
    p.add_argument("--level", type=int, default=0)
    p.add_argument("--check", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(1)
    out = Path(a.out)
    if a.check:
        check(a.clip, a.run, out)
    else:
        pack(Starter(a.clip, a.run), out, a.level)


if __name__ == "__main__":
    main()

"""What diffusers' own single-file importer makes of our checkpoints: names, shapes, configurations, hashes of values.

Run in the repository's root:  python test/golden/checkpoint.py
Full-size models: every tensor is replaced by a few numbers that say which one it is, so only names are worked on; the
result must be the state dict of the diffusers or transformers class built from the published configuration.
Tiny models: a real file with seeded weights is converted, and the SHA-256 of every resulting tensor as float32 is kept.
"""
import gzip
import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as sf
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TSX = ["npx", "tsx", "scripts/random-checkpoint.ts"]
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


def unet_config(types, channels, **more):
    return dict(
        sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=channels,
        down_block_types=types, up_block_types=[t.replace("Down", "Up") for t in reversed(types)], **more)


def vae_config(channels, layers, scale):
    n = len(channels)
    return dict(in_channels=3, out_channels=3, latent_channels=4, layers_per_block=layers, block_out_channels=channels,
                down_block_types=["DownEncoderBlock2D"] * n, up_block_types=["UpDecoderBlock2D"] * n,
                norm_num_groups=32, scaling_factor=scale)


def clip(width, layers, heads, mlp, act, **more):
    return dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=mlp,
                hidden_act=act, vocab_size=49408, max_position_embeddings=77, **more)


BIG, L, TINY_VAE = [128, 256, 512, 512], clip(768, 12, 12, 3072, "quick_gelu"), [32, 32, 64, 64]
CONFIGS = {
    "sd15": dict(
        unet=unet_config([CROSS] * 3 + [PLAIN], [320, 640, 1280, 1280], cross_attention_dim=768, attention_head_dim=8),
        vae=vae_config(BIG, 2, 0.18215), text_encoder=L),
    "sd2": dict(
        unet=unet_config([CROSS] * 3 + [PLAIN], [320, 640, 1280, 1280], cross_attention_dim=1024,
                         attention_head_dim=[5, 10, 20, 20], use_linear_projection=True),
        vae=vae_config(BIG, 2, 0.18215), text_encoder=clip(1024, 23, 16, 4096, "gelu")),
    "sdxl": dict(
        unet=unet_config([PLAIN, CROSS, CROSS], [320, 640, 1280], cross_attention_dim=2048, attention_head_dim=[5, 10, 20],
                         use_linear_projection=True, transformer_layers_per_block=[1, 2, 10],
                         addition_embed_type="text_time", addition_time_embed_dim=256,
                         projection_class_embeddings_input_dim=2816),
        vae=vae_config(BIG, 2, 0.13025), text_encoder=L,
        text_encoder_2=clip(1280, 32, 20, 5120, "gelu", projection_dim=1280)),
    "tiny-sd15": dict(
        unet=dict(unet_config([CROSS, CROSS, PLAIN], [32, 64, 64], cross_attention_dim=64, attention_head_dim=8), layers_per_block=1),
        vae=vae_config(TINY_VAE, 1, 0.18215), text_encoder=clip(64, 2, 1, 128, "quick_gelu")),
    "tiny-sd2": dict(
        unet=unet_config([CROSS, PLAIN], [64, 128], cross_attention_dim=64, attention_head_dim=[1, 2], use_linear_projection=True),
        vae=vae_config(TINY_VAE, 1, 0.18215), text_encoder=clip(64, 2, 1, 128, "gelu")),
    "tiny-sdxl": dict(
        unet=dict(unet_config([PLAIN, CROSS, CROSS], [64, 128, 128], cross_attention_dim=128, attention_head_dim=[1, 2, 2],
                              use_linear_projection=True, transformer_layers_per_block=[1, 1, 2],
                              addition_embed_type="text_time", addition_time_embed_dim=256,
                              projection_class_embeddings_input_dim=64 + 6 * 256), layers_per_block=1),
        vae=vae_config(TINY_VAE, 1, 0.13025), text_encoder=clip(64, 2, 1, 128, "quick_gelu"),
        text_encoder_2=clip(64, 2, 1, 128, "gelu", projection_dim=64)),
}


def convert(family, checkpoint, configs):
    """The four components, by diffusers' own functions."""
    out = {
        "unet": sf.convert_ldm_unet_checkpoint(dict(checkpoint), configs["unet"]),
        "vae": sf.convert_ldm_vae_checkpoint(dict(checkpoint), configs["vae"]),
    }
    open_clip = lambda prefix, config: sf.convert_open_clip_checkpoint(SimpleNamespace(config=SimpleNamespace(**config)), dict(checkpoint), prefix=prefix)
    if family == "sd2":
        out["text_encoder"] = open_clip("cond_stage_model.model.", configs["text_encoder"])
    else:
        out["text_encoder"] = sf.convert_ldm_clip_checkpoint(dict(checkpoint))
    if family == "sdxl":
        out["text_encoder_2"] = open_clip("conditioner.embedders.1.model.", configs["text_encoder_2"])
    return out


def expected_shapes(name, config):
    with torch.device("meta"):
        if name == "unet":
            model = UNet2DConditionModel(**config)
        elif name == "vae":
            model = AutoencoderKL(**config)
        else:
            kind = CLIPTextModelWithProjection if "projection_dim" in config else CLIPTextModel
            model = kind(CLIPTextConfig(**config))
    # transformers since 5.6 leaves the prefix out of the plain class.
    prefix = "text_model." if name == "text_encoder" and not next(iter(model.state_dict())).startswith("text_model.") else ""
    return {prefix + key: list(value.shape) for key, value in model.state_dict().items() if not key.endswith("position_ids")}


def full_size(family):
    listed = json.loads(subprocess.check_output([*TSX, "--family", family, "--names"]))
    checkpoint, names = {}, [t["name"] for t in listed]
    for number, tensor in enumerate(listed):
        shape = [1] * len(tensor["shape"])
        if ".in_proj_" in tensor["name"]:
            shape[0] = 3  # so that its thirds can be told apart
        value = torch.full(shape, float(number), dtype=torch.float64)
        if ".in_proj_" in tensor["name"]:
            value += torch.tensor([0, 0.25, 0.5], dtype=torch.float64).reshape([3] + [1] * (len(shape) - 1))
        checkpoint[tensor["name"]] = value
    result = {}
    for name, tensors in convert(family, checkpoint, CONFIGS[family]).items():
        shapes = expected_shapes(name, CONFIGS[family][name])
        # A CLIP tower without projection, and the 24th block of OpenCLIP-H, are dropped when the class loads them.
        missing = set(shapes) - set(tensors)
        assert not missing, (family, name, sorted(missing)[:3])
        entries = []
        for key, shape in sorted(shapes.items()):
            value = float(tensors[key].flatten()[0])
            entries.append([key, names[int(value)], int(4 * (value % 1)), shape])
        result[name] = entries
    return result


def tiny(family):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tiny.safetensors"
        subprocess.check_call([*TSX, str(file), "--family", family, "--tiny", "--dtype", "F16", "--seed", "5"])
        checkpoint = load_file(file)
    result = {}
    for name, tensors in convert(family, checkpoint, CONFIGS[f"tiny-{family}"]).items():
        shapes = expected_shapes(name, CONFIGS[f"tiny-{family}"][name])
        result[name] = {
            key: hashlib.sha256(tensors[key].reshape(shape).float().contiguous().numpy().tobytes()).hexdigest()[:16]
            for key, shape in sorted(shapes.items())
        }
    return result


families = ["sd15", "sd2", "sdxl"]
golden = {
    "configs": CONFIGS,
    "names": {family: full_size(family) for family in families},
    "hashes": {family: tiny(family) for family in families},
}
with open("test/golden/checkpoint.json.gz", "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as out:
    out.write(json.dumps(golden, separators=(",", ":")).encode())
print({family: {name: len(entries) for name, entries in parts.items()} for family, parts in golden["names"].items()})

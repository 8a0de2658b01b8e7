"""Tiny random UNets with a guidance-distillation adapter (Jensen and Sadat 2025; methods.md, section 2), by diffusers and PyTorch.

The UNets are diffusers' own; the adapter is hooked beside every `attn2`. No weight is stored: UNet, adapter and inputs
are hashes of their names (`hashed.py`), as in networks.py. Written to guidance.json.gz: per case the UNet's config.json,
the adapter's tensors by the names of its file with shapes, and per run

- inputs (hash · scale + shift) and `scales`, one guidance scale w for each row of the batch;
- `token`: g(w) [n, h]; `positions` [S, h]; `out_sample`: the prediction with the adapter; `plain`: without it.

    python guidance.py
"""
import base64
import gzip
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from hashed import fill, hashed, weight_of

torch.set_grad_enabled(False)
torch.set_num_threads(1)


def tensor(name, shape, scale=1.0, shift=0.0):
    return torch.from_numpy((hashed(name, shape) * scale + shift).astype(np.float32))


def pack(outputs):
    return {name: {"shape": list(t.shape), "f32": base64.b64encode(t.contiguous().numpy().astype("<f4").tobytes()).decode()} for name, t in outputs.items()}


def plain(config):
    return {k: v for k, v in json.loads(json.dumps(dict(config), default=str)).items() if not k.startswith("_")}


def adapter_tensors(unet, h):
    """Names and shapes of an adapter of width h for this UNet, as its file has them."""
    temb = unet.time_embedding.linear_2.out_features
    shapes = {"guidance.frequencies": [h], "guidance.phases": [h], "guidance.linear_1.weight": [4 * h, h], "guidance.linear_1.bias": [4 * h],
              "guidance.linear_2.weight": [h, 4 * h], "guidance.linear_2.bias": [h], "guidance.norm.weight": [h], "guidance.norm.bias": [h],
              "time.weight": [h, temb], "text.weight": [h, unet.config.cross_attention_dim]}
    for path, module in unet.named_modules():
        if path.endswith(".attn2"):
            c = module.to_q.in_features
            shapes |= {f"sites.{path}.to_q.weight": [h, c], f"sites.{path}.to_k.weight": [h, h], f"sites.{path}.to_v.weight": [h, h],
                       f"sites.{path}.to_out.weight": [c, h], f"sites.{path}.to_out.bias": [c]}
    return shapes


def token_of(w, scale):
    """g(w) = LayerNorm(linear_2(relu(linear_1(cos(2 pi (f w + phi))))))."""
    waves = torch.cos(2 * math.pi * (scale[:, None] * w["guidance.frequencies"] + w["guidance.phases"]))
    hidden = F.relu(F.linear(waves, w["guidance.linear_1.weight"], w["guidance.linear_1.bias"]))
    out = F.linear(hidden, w["guidance.linear_2.weight"], w["guidance.linear_2.bias"])
    return F.layer_norm(out, (out.shape[-1],), w["guidance.norm.weight"], w["guidance.norm.bias"], 1e-5)


def positions(count, h):
    """Sinusoids of base 10000: sine half, cosine half."""
    angle = torch.arange(count)[:, None].float() * torch.exp(-math.log(10000.0) * torch.arange(h // 2).float() / (h // 2))
    return torch.cat([angle.sin(), angle.cos()], -1)


class Hooked:
    """The UNet with the adapter: its time embedding before the SiLU is collected, and every `attn2` gains an attention."""

    def __init__(self, unet, weights, h):
        self.unet, self.w, self.h = unet, weights, h
        self.embeddings = []
        for module in (unet.time_embedding, getattr(unet, "add_embedding", None)):
            if module is not None:
                module.register_forward_hook(lambda m, args, out: self.embeddings.append(out))
        for path, module in unet.named_modules():
            if path.endswith(".attn2"):
                module.register_forward_hook(lambda m, args, out, path=path: out + self.beside(path, args[0]))

    def beside(self, path, x):
        w = {k.removeprefix(f"sites.{path}."): v for k, v in self.w.items() if k.startswith(f"sites.{path}.")}
        temb = sum(self.embeddings)
        tokens = torch.cat([token_of(self.w, self.scale)[:, None], F.linear(temb, self.w["time.weight"])[:, None], F.linear(self.text, self.w["text.weight"])], 1)
        tokens = tokens + positions(tokens.shape[1], self.h)
        q, k, v = F.linear(x, w["to_q.weight"]), F.linear(tokens, w["to_k.weight"]), F.linear(tokens, w["to_v.weight"])
        return F.linear(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(self.h), -1) @ v, w["to_out.weight"], w["to_out.bias"])

    def __call__(self, sample, timestep, text, added, scale):
        self.embeddings.clear()
        self.text, self.scale = text, scale
        return self.unet(sample, timestep, text, added_cond_kwargs=added).sample


def case(name, h, sizes, **config):
    unet = UNet2DConditionModel(**config)
    fill(unet)
    bare = UNet2DConditionModel(**config)
    fill(bare)
    shapes = adapter_tensors(unet, h)
    weights = {key: torch.from_numpy(weight_of(key, tuple(shape))) for key, shape in shapes.items()}
    hooked, runs = Hooked(unet, weights, h), []
    for n, height, width, tokens in sizes:
        inputs = {"sample": {"shape": [n, unet.config.in_channels, height, width], "scale": 1.7, "shift": 0},
                  "timestep": {"shape": [n], "scale": 499, "shift": 499},
                  "encoder_hidden_states": {"shape": [n, tokens, unet.config.cross_attention_dim], "scale": 1.7, "shift": 0}}
        if unet.config.addition_embed_type == "text_time":
            pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
            inputs["text_embeds"] = {"shape": [n, pooled], "scale": 1.7, "shift": 0}
            inputs["time_ids"] = {"shape": [n, 6], "scale": 512, "shift": 512}
        feeds = {key: tensor(key, i["shape"], i["scale"], i["shift"]) for key, i in inputs.items()}
        added = {key: feeds[key] for key in ("text_embeds", "time_ids") if key in feeds} or None
        scales = [1.0, 6.5, 3.25][:n]
        args = (feeds["sample"], feeds["timestep"], feeds["encoder_hidden_states"])
        out = hooked(*args, added, torch.tensor(scales))
        without = bare(*args, added_cond_kwargs=added).sample
        print(name, (n, height, width, tokens), "std", float(without.std()), "moved by", float((out - without).std()))
        runs.append({"inputs": inputs, "scales": scales, "outputs": pack({
            "token": token_of(weights, torch.tensor(scales)), "positions": positions(tokens + 2, h), "out_sample": out, "plain": without})})
    return {"name": name, "width": h, "config": plain(unet.config), "adapter": sorted([k, s] for k, s in shapes.items()), "runs": runs}


if __name__ == "__main__":
    levels, up_levels = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    cases = [
        case("sd1", 16, [(2, 8, 8, 77), (1, 5, 7, 154)], block_out_channels=(32, 64, 64, 64), down_block_types=levels, up_block_types=up_levels,
             layers_per_block=2, cross_attention_dim=24, attention_head_dim=4),
        case("sdxl", 12, [(2, 4, 8, 77)], block_out_channels=(32, 64), down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
             up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"], layers_per_block=1, cross_attention_dim=40, attention_head_dim=[2, 4],
             use_linear_projection=True, transformer_layers_per_block=[1, 2], addition_embed_type="text_time", addition_time_embed_dim=8,
             projection_class_embeddings_input_dim=68),
    ]
    file = pathlib.Path(__file__).with_name("guidance.json.gz")
    file.write_bytes(gzip.compress(json.dumps(cases).encode(), mtime=0))
    print(file.stat().st_size, "bytes")

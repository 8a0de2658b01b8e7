"""Outputs of tiny networks with the structure of the real ones, by diffusers and transformers, in float32.

No weight is stored: every element of every tensor, and every input, is a hash of its name and index that
`networks-cases.ts` computes too. Written to networks.json.gz with each network's config.json.

    python networks.py
"""
import base64
import gzip
import json
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from hashed import fill, hashed

torch.set_grad_enabled(False)
torch.set_num_threads(1)


def tensor(name, shape, scale=1.0, shift=0.0):
    return torch.from_numpy((hashed(name, shape) * scale + shift).astype(np.float32))


def pack(outputs):
    return {
        name: {"shape": list(t.shape), "f32": base64.b64encode(t.contiguous().numpy().astype("<f4").tobytes()).decode()}
        for name, t in outputs.items()
    }


def plain(config):
    return {k: v for k, v in json.loads(json.dumps(dict(config), default=str)).items() if not k.startswith("_")}


cases = []


def unet(name, sizes, **config):
    model = UNet2DConditionModel(**config)
    tensors = fill(model)
    runs = []
    for n, h, w, tokens in sizes:
        inputs = {
            "sample": {"shape": [n, model.config.in_channels, h, w], "scale": 1.7, "shift": 0},
            "timestep": {"shape": [n], "scale": 499, "shift": 499},
            "encoder_hidden_states": {"shape": [n, tokens, model.config.cross_attention_dim], "scale": 1.7, "shift": 0},
        }
        if model.config.addition_embed_type == "text_time":
            pooled = model.config.projection_class_embeddings_input_dim - 6 * model.config.addition_time_embed_dim
            inputs["text_embeds"] = {"shape": [n, pooled], "scale": 1.7, "shift": 0}
            inputs["time_ids"] = {"shape": [n, 6], "scale": 512, "shift": 512}
        feeds = {key: tensor(key, i["shape"], i["scale"], i["shift"]) for key, i in inputs.items()}
        added = {key: feeds[key] for key in ("text_embeds", "time_ids") if key in feeds} or None
        out = model(feeds["sample"], feeds["timestep"], feeds["encoder_hidden_states"], added_cond_kwargs=added).sample
        runs.append({"network": "unet", "inputs": inputs, "outputs": pack({"out_sample": out})})
        print(name, (n, h, w, tokens), "std", float(out.std()), "max", float(out.abs().max()))
    cases.append({"name": name, "part": "unet", "config": plain(model.config), "tensors": tensors, "runs": runs})


levels = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
up_levels = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
unet("sd1", [(2, 8, 16, 77), (1, 9, 13, 154)], block_out_channels=(32, 64, 64, 64), down_block_types=levels,
     up_block_types=up_levels, layers_per_block=2, cross_attention_dim=24, attention_head_dim=4)
unet("sd2", [(2, 8, 12, 77), (1, 11, 7, 154)], block_out_channels=(32, 64, 64, 64), down_block_types=levels,
     up_block_types=up_levels, layers_per_block=2, cross_attention_dim=40, attention_head_dim=[2, 4, 8, 8],
     use_linear_projection=True)
unet("sdxl", [(2, 8, 12, 77), (1, 13, 9, 154)], block_out_channels=(32, 64, 64),
     down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
     up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"], layers_per_block=2,
     cross_attention_dim=40, attention_head_dim=[2, 4, 8], use_linear_projection=True,
     transformer_layers_per_block=[1, 2, 3], addition_embed_type="text_time", addition_time_embed_dim=8,
     projection_class_embeddings_input_dim=68)
unet("eight-channels", [(2, 8, 8, 77), (1, 5, 6, 77)], in_channels=8, out_channels=8, block_out_channels=(64, 96, 48, 48),
     down_block_types=levels, up_block_types=up_levels, layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
     norm_num_groups=16)
unet("no-middle", [(1, 8, 8, 77)], block_out_channels=(32, 64), down_block_types=["CrossAttnDownBlock2D"] * 2,
     up_block_types=["CrossAttnUpBlock2D"] * 2, mid_block_type=None, layers_per_block=1, cross_attention_dim=32,
     attention_head_dim=4)


def clip(name, cls, **config):
    model = cls(CLIPTextConfig(vocab_size=300, max_position_embeddings=77, bos_token_id=298, eos_token_id=299, **config))
    tensors = fill(model, "text_model.")
    eos_index = [5, 76]
    ids = ((hashed("input_ids", (2, 77)) + 1) / 2 * 298).astype(np.int64)
    for row, index in enumerate(eos_index):
        ids[row, 0] = 298
        ids[row, index:] = 299
    out = model(torch.from_numpy(ids), output_hidden_states=True)
    stack = torch.stack(list(out.hidden_states)[: config["num_hidden_layers"] + 1])
    norm = (model.text_model if hasattr(model, "text_model") else model).final_layer_norm
    pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
    outputs = {"hidden_states": stack, "normed_states": norm(stack), "pooled": pooled}
    assert torch.allclose(out.last_hidden_state, outputs["normed_states"][-1])
    print(name, "std", float(stack[-1].std()), tuple(pooled.shape))
    config_json = model.config.to_dict() | {"architectures": [cls.__name__]}
    runs = [{"network": "text_encoder", "ids": ids.tolist(), "eosIndex": eos_index, "inputs": {}, "outputs": pack(outputs)}]
    cases.append({"name": name, "part": "text_encoder", "config": plain(config_json), "tensors": tensors, "runs": runs})


clip("clip-l", CLIPTextModel, hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
     hidden_act="quick_gelu")
clip("open-clip", CLIPTextModelWithProjection, hidden_size=40, intermediate_size=160, num_hidden_layers=2,
     num_attention_heads=5, hidden_act="gelu", projection_dim=24)


def vae(name, sizes, **config):
    depth = len(config["block_out_channels"])
    model = AutoencoderKL(down_block_types=["DownEncoderBlock2D"] * depth, up_block_types=["UpDecoderBlock2D"] * depth, **config)
    tensors = fill(model)
    runs = []
    for n, h, w in sizes:
        f = 2 ** (depth - 1)
        spec = {"shape": [n, model.config.latent_channels, h, w], "scale": 1.7, "shift": 0}
        image = model.decode(tensor("latent_sample", spec["shape"], 1.7)).sample
        runs.append({"network": "vae_decoder", "inputs": {"latent_sample": spec}, "outputs": pack({"sample": image})})
        spec = {"shape": [n, 3, f * h, f * w], "scale": 1, "shift": 0}
        latents = model.encode(tensor("sample", spec["shape"])).latent_dist
        outputs = {"latent_mean": latents.mean, "latent_logvar": latents.logvar}
        runs.append({"network": "vae_encoder", "inputs": {"sample": spec}, "outputs": pack(outputs)})
        print(name, (n, h, w), "std", float(image.std()), float(latents.mean.std()), float(latents.logvar.std()))
    cases.append({"name": name, "part": "vae", "config": plain(model.config), "tensors": tensors, "runs": runs})


vae("vae", [(2, 4, 2), (1, 3, 5)], block_out_channels=(32, 64, 64, 64), layers_per_block=2, latent_channels=4)
vae("five-levels", [(1, 2, 3)], block_out_channels=(16, 24, 48, 96, 96), layers_per_block=1, latent_channels=8,
    norm_num_groups=8)
vae("no-quant-convs", [(1, 5, 4)], block_out_channels=(32, 64), layers_per_block=1, latent_channels=16, use_quant_conv=False,
    use_post_quant_conv=False, mid_block_add_attention=False)


def tiny(name, n, h, w):
    channels = (16,) * 4
    model = AutoencoderTiny(encoder_block_out_channels=channels, decoder_block_out_channels=channels)
    tensors = fill(model)
    spec = {"shape": [n, 4, h, w], "scale": 1.7, "shift": 0}
    image = model.decode(tensor("latent_sample", spec["shape"], 1.7)).sample
    runs = [{"network": "tiny_vae_decoder", "inputs": {"latent_sample": spec}, "outputs": pack({"sample": image})}]
    spec = {"shape": [n, 3, 8 * h, 8 * w], "scale": 1, "shift": 0}
    latents = model.encode(tensor("sample", spec["shape"])).latents
    runs.append({"network": "tiny_vae_encoder", "inputs": {"sample": spec}, "outputs": pack({"latent_sample": latents})})
    print(name, "std", float(image.std()), float(latents.std()))
    cases.append({"name": name, "part": "tiny_vae", "config": plain(model.config), "tensors": tensors, "runs": runs})


tiny("taesd", 2, 3, 4)

path = pathlib.Path(__file__).with_name("networks.json.gz")
path.write_bytes(gzip.compress(json.dumps(cases).encode(), 9, mtime=0))
print(len(cases), "networks,", path.stat().st_size, "bytes")

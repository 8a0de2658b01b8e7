"""Whole pictures with adapters by diffusers' pipelines over the tiny networks of pipeline.py: windows and ramps over the steps
(weights merged in float64 before each step), both text encoders, an embedding of several vectors, LCM, TCD, noise levels by
hand. Factors are hashed (hashed.py). Run: python test/golden/adapted.py
"""
import base64, gzip, json
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler, TCDScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from clip_tokenizer import clip_tokenizer
from hashed import fill, hashed

torch.set_grad_enabled(False)
torch.set_num_threads(1)
diffusers.logging.disable_progress_bar()
diffusers.logging.set_verbosity_error()
here = Path(__file__).parent
WIDTH, HEIGHT, FACTOR, SCALE, DIM = 64, 48, 4, 0.7, 24
RANKS = {"ink": 2, "wash": 3, "fox": 1}


def plain(config):
    return {k: v for k, v in json.loads(json.dumps(dict(config), default=str)).items() if not k.startswith("_")}


encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407, hidden_size=DIM,
                                       intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, hidden_act="quick_gelu"))
fill(encoder, "text_model.")
unet = UNet2DConditionModel(
    sample_size=64, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=4, norm_num_groups=16, cross_attention_dim=DIM,
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])
fill(unet)
vae = AutoencoderKL(block_out_channels=(16, 24, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8, scaling_factor=SCALE,
                    down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3)
fill(vae)
data = {"size": [WIDTH, HEIGHT], "factor": FACTOR, "scale": SCALE, "ranks": RANKS, "cases": [],
        "model": {"unet": plain(unet.config), "vae": plain(vae.config), "text_encoder": plain(encoder.config.to_dict() | {"architectures": ["CLIPTextModel"]})}}


def named(model):
    """Checkpoint name -> Linear or Conv2d of one network."""
    prefix = "text_model." if model is encoder and not any(k.startswith("text_model.") for k, _ in model.named_modules()) else ""
    return {prefix + name: module for name, module in model.named_modules()
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))}


layers = {"unet": named(unet), "text_encoder": named(encoder)}
data["layers"] = {target: list(own) for target, own in layers.items()}
base = {target: {path: module.weight.detach().clone().double() for path, module in own.items()} for target, own in layers.items()}


def delta(adapter, target, path):
    """up [n, r] . down [r, k], k ordered as the weight is, (channel, y, x)."""
    shape, rank = base[target][path].shape, RANKS[adapter]
    k = int(np.prod(shape[1:]))
    down = torch.from_numpy(hashed(f"{adapter}.{target}.{path}.down", (rank, k)).astype(np.float32)).double()
    up = torch.from_numpy((hashed(f"{adapter}.{target}.{path}.up", (shape[0], rank)) / np.sqrt(k)).astype(np.float32)).double()
    return (up @ down).reshape(shape)


def merge(target, weights):
    for path, module in layers[target].items():
        total = base[target][path].clone()
        for adapter, weight in weights.items():
            if weight != 0:
                total += weight * delta(adapter, target, path)
        module.weight.copy_(total.float())


betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
makers = {
    "dpmpp_2m": lambda: DPMSolverMultistepScheduler(**betas, final_sigmas_type="zero", timestep_spacing="trailing", steps_offset=1),
    "euler": lambda: EulerDiscreteScheduler(**betas, timestep_spacing="trailing", steps_offset=1),
    "lcm": lambda: LCMScheduler(**betas, steps_offset=1),
    "tcd": lambda: TCDScheduler(**betas, steps_offset=1),
}


def make(sampler, seed, unet_steps, text, embedding=None, timesteps=None, eta=None, **call):
    """unet_steps: what every adapter weighs at each step; text: on the text encoder."""
    pipe = diffusers.StableDiffusionPipeline(vae=vae, text_encoder=encoder, tokenizer=clip_tokenizer(model_max_length=77), unet=unet, scheduler=makers[sampler](),
                                             safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    table = encoder.get_input_embeddings().weight.detach().clone()
    if embedding:
        word, count = embedding
        pipe.load_textual_inversion(torch.from_numpy(hashed(f"embedding.{word}", (count, DIM)).astype(np.float32)), token=word)
    merge("text_encoder", text)
    steps = len(next(iter(unet_steps.values())))
    at = lambda i: {adapter: weights[i] for adapter, weights in unet_steps.items()}
    merge("unet", at(0))

    def after(_pipe, i, _t, kwargs):
        if i + 1 < steps:
            merge("unet", at(i + 1))
        return kwargs

    more = {"timesteps": timesteps} if timesteps and sampler == "euler" else {"num_inference_steps": steps}
    if eta is not None:
        more["eta"] = eta
    image = pipe(**call, **more, width=WIDTH, height=HEIGHT, generator=torch.Generator().manual_seed(seed), output_type="np", callback_on_step_end=after).images[0]
    image = np.round(image * 255).astype(np.uint8)
    if embedding:
        encoder.resize_token_embeddings(table.shape[0])
        encoder.get_input_embeddings().weight.copy_(table)
    used = [int(t) for t in pipe.scheduler.timesteps]
    data["cases"].append({
        "sampler": sampler, "seed": seed, "steps": steps, "unet": unet_steps, "text": text, "embedding": embedding, "eta": eta,
        "timesteps": used if timesteps or sampler in ("lcm", "tcd") else None, "prompt": call["prompt"], "negativePrompt": call.get("negative_prompt") or "",
        "guidanceScale": call["guidance_scale"], "image": base64.b64encode(image.tobytes()).decode()})
    print(sampler, seed, used, f"mean {image.mean():.0f} std {image.std():.0f} at the ends {np.mean((image == 0) | (image == 255)):.3f}")


words = {"prompt": "a fox wearing a yellow raincoat, storybook style", "negative_prompt": "blurry, grey"}
make("dpmpp_2m", 31, {"ink": [0.8] * 6, "wash": [0, 0, 0, -0.5, -0.5, -0.5]}, {"ink": 0.4, "wash": -0.5}, **words, guidance_scale=5.0)
make("dpmpp_2m", 32, {"fox": [0, 0.3, 0.6, 0.9, 0, 0]}, {"fox": 0}, **words, guidance_scale=5.0)
make("dpmpp_2m", 33, {"wash": [0.5] * 6}, {"wash": 0.5, "fox": 0.7}, prompt="a quiet harbour at dawn", negative_prompt="", guidance_scale=3.0)
make("dpmpp_2m", 34, {"ink": [0.6] * 6}, {"ink": 0.6}, embedding=["fable", 3], prompt="a fable fox in a fable", negative_prompt="fable", guidance_scale=4.0)
make("lcm", 35, {"ink": [1.0] * 4}, {"ink": 1.0}, prompt=words["prompt"], guidance_scale=1.0)
make("tcd", 36, {"wash": [0.7] * 4}, {"wash": 0.7}, eta=0.3, prompt=words["prompt"], guidance_scale=1.0)
make("euler", 37, {"ink": [1.0, 1.0, 1.0, 0, 0], "wash": [0, 0, 0, 1.0, 1.0]}, {}, timesteps=[999, 940, 860, 560, 180], **words, guidance_scale=3.0)

payload = json.dumps(data, separators=(",", ":")).encode()
(here / "adapted.json.gz").write_bytes(gzip.compress(payload, 9, mtime=0))
print(len(data["cases"]), "pictures,", (here / "adapted.json.gz").stat().st_size, "bytes")

"""Whole pictures by diffusers' pipelines over tiny networks with hashed weights (hashed.py), to compare pixel by pixel.

Text, guidance, schedulers, noise from torch generators, image-to-image, inpainting with a plain 4-channel network, SDXL.
Run: python test/golden/pipeline.py
"""
import base64, gzip, json
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clip_tokenizer import clip_tokenizer
from hashed import fill, hashed

torch.set_grad_enabled(False)
torch.set_num_threads(1)
diffusers.logging.disable_progress_bar()
diffusers.logging.set_verbosity_error()
DiagonalGaussianDistribution.sample = lambda self, generator=None: self.mean  # Vignette takes the mean too
here = Path(__file__).parent
WIDTH, HEIGHT, FACTOR, SCALE = 64, 48, 4, 0.7
data = {"size": [WIDTH, HEIGHT], "factor": FACTOR, "scale": SCALE, "models": {}, "cases": []}


def packed(image):
    return base64.b64encode(np.ascontiguousarray(image, dtype=np.uint8).tobytes()).decode()


def plain(config):
    return {k: v for k, v in json.loads(json.dumps(dict(config), default=str)).items() if not k.startswith("_")}


def text_encoder(cls, **config):
    model = cls(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407, **config))
    fill(model, "text_model.")
    if not hasattr(model, "text_model"):
        object.__setattr__(model, "text_model", model)  # where diffusers' clip skip looks for the final norm
    return model, plain(model.config.to_dict() | {"architectures": [cls.__name__]})


def unet(**config):
    model = UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=4, norm_num_groups=16,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"], **config)
    fill(model)
    return model


vae = AutoencoderKL(block_out_channels=(16, 24, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8, scaling_factor=SCALE,
                    down_block_types=["DownEncoderBlock2D"] * 3, up_block_types=["UpDecoderBlock2D"] * 3)
fill(vae)
betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
leading = {"timestep_spacing": "leading", "steps_offset": 1}
trailing = {"timestep_spacing": "trailing"}
makers = {
    "ddim": lambda **c: DDIMScheduler(**betas, set_alpha_to_one=True, clip_sample=False, **c),
    "euler": lambda **c: EulerDiscreteScheduler(**betas, **c),
    "euler_a": lambda **c: EulerAncestralDiscreteScheduler(**betas, **c),
    "dpmpp_2m": lambda **c: DPMSolverMultistepScheduler(**betas, final_sigmas_type="zero", **c),
}
init = np.round((hashed("init", (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1) * 0.4 + 0.5) * 255).astype(np.uint8)
mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
mask[8:36, 20:52] = 255
data["init"], data["mask"] = packed(init), packed(mask)


def to_input(image):
    return torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def make(model, parts, sampler, schedule, prediction, seed, pipeline=None, zero_snr=False, steps=8, **call):
    spacing = {"ddim_uniform": leading, "trailing": trailing}[schedule]
    extra = {"rescale_betas_zero_snr": True} if zero_snr else {}
    scheduler = makers[sampler](**spacing, **extra, prediction_type=prediction)
    is_xl = model == "xl"
    cls = getattr(diffusers, f"StableDiffusion{'XL' if is_xl else ''}{pipeline or ''}Pipeline")
    pipe = cls(scheduler=scheduler, **parts, **({} if is_xl else {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}))
    pipe.set_progress_bar_config(disable=True)
    arguments = dict(call)
    if pipeline == "Img2Img":
        arguments["image"] = to_input(init)
    elif pipeline == "Inpaint":
        arguments |= {"image": to_input(init), "mask_image": torch.from_numpy(mask.astype(np.float32) / 255)[None, None], "height": HEIGHT, "width": WIDTH}
    else:
        arguments |= {"height": HEIGHT, "width": WIDTH}
    image = pipe(**arguments, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed), output_type="np").images[0]
    image = np.round(image * 255).astype(np.uint8)
    edge = np.mean((image == 0) | (image == 255))
    if pipeline == "Inpaint":
        image = np.where(mask[..., None] == 255, image, init)
    data["cases"].append({
        "model": model, "sampler": sampler, "schedule": schedule, "prediction": prediction, "seed": seed, "zeroSnr": zero_snr, "steps": steps,
        "kind": pipeline or "Text", "prompt": call["prompt"], "negativePrompt": call.get("negative_prompt") or "",
        "guidanceScale": call["guidance_scale"], "guidanceRescale": call.get("guidance_rescale", 0), "clipSkip": call.get("clip_skip", 0) + 1,
        "strength": call.get("strength"), "image": packed(image)})
    print(model, sampler, schedule, prediction, pipeline, f"mean {image.mean():.0f} std {image.std():.0f} at the ends {edge:.3f}")


tokenizer = clip_tokenizer(model_max_length=77)
encoder, encoder_config = text_encoder(CLIPTextModel, hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, hidden_act="quick_gelu")
sd_unet = unet(cross_attention_dim=24)
sd = {"vae": vae, "text_encoder": encoder, "tokenizer": tokenizer, "unet": sd_unet}
data["models"]["sd"] = {"family": "sd15", "unet": plain(sd_unet.config), "vae": plain(vae.config), "text_encoder": encoder_config}

words = {"prompt": "a fox wearing a yellow raincoat, storybook style", "negative_prompt": "blurry, grey"}
for prediction in ("epsilon", "v_prediction"):
    for sampler, schedule in (("ddim", "ddim_uniform"), ("euler", "ddim_uniform"), ("euler_a", "trailing"), ("dpmpp_2m", "trailing")):
        make("sd", sd, sampler, schedule, prediction, 11, **words, guidance_scale=5.0)
    make("sd", sd, "ddim", "ddim_uniform", prediction, 12, "Img2Img", **words, guidance_scale=3.0, strength=0.65)
    make("sd", sd, "ddim", "ddim_uniform", prediction, 13, "Inpaint", **words, guidance_scale=3.0, strength=0.75)
    make("sd", sd, "dpmpp_2m", "trailing", prediction, 14, "Inpaint", **words, guidance_scale=3.0, strength=1.0)
make("sd", sd, "euler", "ddim_uniform", "epsilon", 15, "Img2Img", **words, guidance_scale=1.0, strength=1.0)
make("sd", sd, "ddim", "ddim_uniform", "epsilon", 16, prompt="A café at night", guidance_scale=1.0, clip_skip=1)
make("sd", sd, "ddim", "trailing", "v_prediction", 4294967295, zero_snr=True, **words, guidance_scale=7.5, guidance_rescale=0.7)
make("sd", sd, "euler", "trailing", "v_prediction", 17, zero_snr=True, **words, guidance_scale=7.5)
make("sd", sd, "ddim", "trailing", "v_prediction", 0, steps=1, **words, guidance_scale=2.0)

second, second_config = text_encoder(CLIPTextModelWithProjection, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                     num_attention_heads=4, hidden_act="gelu", projection_dim=20)
xl_unet = unet(cross_attention_dim=56, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
               projection_class_embeddings_input_dim=20 + 6 * 8)
xl = {"vae": vae, "text_encoder": encoder, "text_encoder_2": second, "tokenizer": tokenizer, "tokenizer_2": clip_tokenizer(model_max_length=77, pad_token="!"),
      "unet": xl_unet, "force_zeros_for_empty_prompt": True, "add_watermarker": False}
data["models"]["xl"] = {"family": "sdxl", "unet": plain(xl_unet.config), "vae": plain(vae.config), "text_encoder": encoder_config, "text_encoder_2": second_config}
make("xl", xl, "euler", "ddim_uniform", "epsilon", 21, **words, guidance_scale=5.0)
make("xl", xl, "euler", "ddim_uniform", "epsilon", 22, prompt=words["prompt"], guidance_scale=5.0)

payload = json.dumps(data, separators=(",", ":")).encode()
(here / "pipeline.json.gz").write_bytes(gzip.compress(payload, 9, mtime=0))
print(len(data["cases"]), "pictures,", (here / "pipeline.json.gz").stat().st_size, "bytes")

"""The starter's own picture by diffusers: the shipped folder, expanded, through StableDiffusionPipeline in float32.

    python test/golden/starter.py      # writes starter.png beside this file; again whenever the weights change
"""
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from clip_tokenizer import clip_tokenizer

HERE = Path(__file__).resolve().parent
STARTER = HERE.parents[1] / "models" / "starter"
EMBEDDING = "text_model.embeddings.token_embedding"
PROMPT, SEED, STEPS, GUIDANCE = "a fox wearing a red scarf in a snowy forest at night, storybook style", 1234, 20, 4.0


def text_encoder() -> CLIPTextModel:
    """The packed rows written out as the 49,408 rows that every other program expects."""
    state = load_file(STARTER / "text_encoder" / "model.safetensors")
    rows, ids, unknown = (state.pop(f"{EMBEDDING}.{part}") for part in ("rows", "row_ids", "unknown"))
    table = unknown.repeat(49408, 1)
    table[ids.long()] = rows
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text((STARTER / "text_encoder" / "config.json").read_text())
        save_file({**state, f"{EMBEDDING}.weight": table}, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        return CLIPTextModel.from_pretrained(folder, dtype=torch.float32)


def main() -> None:
    torch.set_num_threads(1)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(STARTER / "vae", torch_dtype=torch.float32),
        unet=UNet2DConditionModel.from_pretrained(STARTER / "unet", torch_dtype=torch.float32),
        text_encoder=text_encoder(),
        tokenizer=clip_tokenizer(pad_token="<|endoftext|>", model_max_length=77),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            timestep_spacing="trailing", algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero",
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    noise = torch.randn(1, pipe.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(SEED))
    picture = pipe(
        PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=noise, height=256, width=256, output_type="pt"
    ).images[0]
    data = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(data).save(HERE / "starter.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main())

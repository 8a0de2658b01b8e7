"""What diffusers and PEFT make of the adapter files that Vignette writes.

The files come from adapter-write-files.ts; the networks are those of networks.json.gz. Each file is loaded by
`load_lora_weights` of a diffusers pipeline. Written to adapter-write.json.gz: per file its SHA-256 and, for each module
that got factors, three numbers of the change of its weight: u^T (delta W) v with u [3, n] and v [3, k] hashed from its name.

    npx tsx test/golden/adapter-write-files.ts FOLDER && python test/golden/adapter-write.py FOLDER
"""
import gzip
import hashlib
import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clip_tokenizer import clip_tokenizer
from hashed import hashed

torch.set_num_threads(1)
here = Path(__file__).parent
folder = Path(sys.argv[1])
configs = {case["name"]: case["config"] for case in json.loads(gzip.decompress((here / "networks.json.gz").read_bytes()))}
known = ("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads", "hidden_act", "max_position_embeddings", "eos_token_id")


def text(cls, name):
    """
    transformers 5 has no `text_model` in a plain CLIPTextModel and renames the keys of an adapter, diffusers 0.42 still
    writes it: the tower is put where diffusers looks for it, and PEFT itself takes what diffusers hands to transformers.
    """
    model = cls(CLIPTextConfig(**{key: value for key, value in configs[name].items() if key in known}))
    if not hasattr(model, "text_model"):
        model.text_model = torch.nn.Module()
        model.text_model.encoder = model.encoder
        del model.encoder

    def load_adapter(adapter_name, adapter_state_dict, peft_config, **_):
        inject_adapter_in_model(peft_config, model, adapter_name)
        result = set_peft_model_state_dict(model, adapter_state_dict, adapter_name)
        assert not result.unexpected_keys, result.unexpected_keys

    model.load_adapter = load_adapter
    return model


def pipeline(family):
    unet = UNet2DConditionModel.from_config(configs["sd1" if family == "sd" else "sdxl"])
    parts = {"unet": unet, "vae": AutoencoderKL(), "scheduler": DDIMScheduler(), "tokenizer": clip_tokenizer(model_max_length=77)}
    if family == "sd":
        return StableDiffusionPipeline(text_encoder=text(CLIPTextModel, "clip-l"), safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts)
    return StableDiffusionXLPipeline(text_encoder=text(CLIPTextModel, "clip-l"), text_encoder_2=text(CLIPTextModelWithProjection, "open-clip"), tokenizer_2=parts["tokenizer"], **parts)


def changes(pipe):
    found = {}
    for target in ("unet", "text_encoder", "text_encoder_2"):
        network = getattr(pipe, target, None)
        for path, module in network.named_modules() if network is not None else ():
            if not isinstance(module, LoraLayer):
                continue
            (adapter,) = module.lora_A.keys()
            delta = module.get_delta_weight(adapter).detach().double().flatten(1)
            left, right = (torch.from_numpy(hashed(f"{target}.{path} {side}", (3, size))) for side, size in zip(("left", "right"), delta.shape))
            found[f"{target}.{path}"] = [float(f"{value:.9g}") for value in ((left @ delta) * right).sum(1)]
    return found


out = {}
for file in sorted(folder.glob("*.safetensors")):
    pipe = pipeline(file.stem.split("-")[1])
    pipe.load_lora_weights(str(folder), weight_name=file.name)
    out[file.stem] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "changes": changes(pipe)}
    print(file.name, len(out[file.stem]["changes"]), "modules")
(here / "adapter-write.json.gz").write_bytes(gzip.compress(json.dumps(out).encode(), mtime=0))

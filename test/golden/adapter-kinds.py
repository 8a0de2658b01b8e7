"""Adapters of every kind on a tiny UNet and a tiny text encoder, applied by the libraries that define the kinds.

The libraries name and shape the tensors (PEFT its files with `adapter_config.json`, LyCORIS its modules' state, kohya's and
cloneofsimo's layouts by hand); their numbers are a hash of their names, so that only names, shapes and the networks'
outputs are written to adapter-kinds.json.gz. `adapter-kinds.test.ts` makes the files again. Computed in float64, but for
LyCORIS's OFT, which inverts in float32.

    python adapter-kinds.py
"""
import base64
import gzip
import json
import pathlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, ShiraConfig, get_peft_model
from peft import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel

from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule

from hashed import fill, hashed

torch.set_grad_enabled(False)
torch.set_num_threads(1)

names = {torch.float32: "F32", torch.float16: "F16", torch.int32: "I32", torch.int64: "I64"}


def make_unet(dtype):
    levels = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    model = UNet2DConditionModel(
        block_out_channels=(32, 64, 64, 64), down_block_types=levels, layers_per_block=2, cross_attention_dim=24,
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, attention_head_dim=4)
    fill(model)
    return model.to(dtype)


def make_clip(dtype):
    model = CLIPTextModel(CLIPTextConfig(
        vocab_size=300, max_position_embeddings=77, bos_token_id=298, eos_token_id=299, hidden_size=32,
        intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, hidden_act="quick_gelu"))
    fill(model, "text_model.")
    return model.to(dtype)


def feed(name, shape, scale, shift=0.0):
    return torch.from_numpy((hashed(name, shape) * scale + shift).astype(np.float32))


def run_unet(model, dtype):
    out = model(feed("sample", (1, 4, 8, 8), 1.7).to(dtype), feed("timestep", (1,), 499, 499).to(dtype),
                feed("encoder_hidden_states", (1, 77, 24), 1.7).to(dtype))
    return out.sample


eos = 5
token_ids = ((hashed("input_ids", (1, 77)) + 1) / 2 * 298).astype(np.int64)
token_ids[0, 0] = 298
token_ids[0, eos:] = 299


def run_clip(model, _):
    return model(torch.from_numpy(token_ids)).last_hidden_state


def pack(t):
    array = t.to(torch.float32).contiguous().numpy().astype("<f4")
    return {"shape": list(t.shape), "f32": base64.b64encode(array.tobytes()).decode()}


class File:
    """Tensors of an adapter file: hashed numbers (scale, shift) or, where they must be what they are, bytes."""

    def __init__(self):
        self.tensors = []

    def hashed(self, key, shape, scale, shift=0.0, dtype=torch.float32):
        values = torch.from_numpy((hashed(key, shape) * scale + shift).astype(np.float32)).to(dtype)
        self.tensors.append([key, names[dtype], list(shape), {"scale": scale, "shift": shift}])
        return values

    def exact(self, key, t):
        t = t.contiguous()
        self.tensors.append([key, names[t.dtype], list(t.shape), {"bytes": base64.b64encode(t.numpy().tobytes()).decode()}])
        return t


def size_of(shape):
    return int(np.prod(shape))


def range_of(key, shape):
    """(scale, shift) by the end of a name: changes come out a few tenths as large as the weights."""
    inputs = size_of(shape[1:])
    thin = np.sqrt(3.0 / max(1, inputs))
    if "magnitude" in key:
        return 0.3, 1.0
    if "dora_scale" in key:
        return (0.3, 1.0) if shape[0] != 1 else (0.2, 0.9)
    if key.endswith("rescale"):
        return 0.1, 1.0
    for end, scale in {
        "lora_down.weight": thin, "lora_up.weight": 0.6, "lora_mid.weight": 0.5, ".down": thin, ".up": 0.4,
        "lora_A.weight": thin, "lora_B.weight": 0.6, "hada_w1_a": 1.0, "hada_w1_b": 0.8, "hada_w2_a": 0.8,
        "hada_w2_b": 0.15, "hada_t1": 0.8, "hada_t2": 0.5, "lokr_w1": 0.6, "lokr_w1_a": 0.8, "lokr_w1_b": 0.8,
        "lokr_w2": 0.15, "lokr_w2_a": 0.5, "lokr_w2_b": 0.2, "lokr_t2": 0.8, "a1.weight": 0.4, "a2.weight": 0.4,
        "b1.weight": 0.4, "b2.weight": thin, "oft_blocks": 0.2, "oft_R.weight": 0.1, "w_norm": 0.3, "b_norm": 0.2,
        ".diff": 0.1, ".diff_b": 0.2, "shira_weight": 0.4, ".weight": 0.3,
    }.items():
        if key.endswith(end):
            return float(scale), 0.0
    if key.endswith("ia3_l"):
        return 0.3, 1.0
    raise KeyError(key)


cases = []


def finish(name, file, target, outputs, weight=1.0, metadata=None, config=None, header=None):
    case = {"name": name, "target": target, "weight": weight, "tensors": file.tensors, "output": pack(outputs)}
    if metadata:
        case["metadata"] = metadata
    if config:
        case["config"] = config
    if header:
        case["header"] = header
    cases.append(case)
    change = (outputs.double() - plain[target].double()).square().mean().sqrt() / plain[target].double().std()
    print(f"{name:40} {len(file.tensors):5} tensors, change {float(change):.3f}")


plain = {
    "unet": run_unet(make_unet(torch.float64), torch.float64),
    "text_encoder": run_clip(make_clip(torch.float64), torch.float64),
}

# --- LyCORIS ---------------------------------------------------------------------------------------------------------

some = [
    "conv_in", "conv_out", "time_embedding.linear_1",
    "down_blocks.1.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut", "down_blocks.1.resnets.0.time_emb_proj",
    "down_blocks.0.downsamplers.0.conv", "up_blocks.1.upsamplers.0.conv",
    "up_blocks.2.attentions.1.proj_in",
    *[f"up_blocks.2.attentions.1.transformer_blocks.0.{layer}" for layer in (
        "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
        "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")],
]
norms = ["down_blocks.1.resnets.0.norm1", "mid_block.attentions.0.norm", "conv_norm_out",
         *[f"up_blocks.2.attentions.1.transformer_blocks.0.norm{i}" for i in (1, 2, 3)]]
layers_of_text = [f"encoder.layers.{i}.{layer}" for i in (0, 2) for layer in (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")]


def lycoris(name, cls, paths=some, target="unet", weight=1.0, dtype=torch.float64, dim=3, alpha=2.0, half=False, **options):
    model = make_unet(dtype) if target == "unet" else make_clip(dtype)
    run = run_unet if target == "unet" else run_clip
    file, modules = File(), []
    for path in paths:
        org = (model if hasattr(model, path.split(".")[0]) else model.text_model).get_submodule(path)
        prefix = "lycoris_" if target == "unet" else "lora_te_text_model_"
        key = prefix + path.replace(".", "_")
        if cls is NormModule:
            module = cls(key, org.float(), weight)
            org.to(dtype)
        else:
            # LyCORIS builds its parameters over float32 weights.
            org.float()
            module = cls(key, org, weight, dim, alpha, **options)
            org.to(dtype)
        for part, parameter in module.named_parameters():
            end = {"weight": "diff", "bias": "diff_b"}.get(part, part) if cls is FullModule else part
            full = f"{key}.{end}"
            shape = tuple(parameter.shape)
            parameter.copy_(file.hashed(full, shape, *range_of(full, shape), torch.float16 if half else torch.float32))
        for part, buffer in module.named_buffers():
            if part in ("alpha", "on_input"):
                file.exact(f"{key}.{part}", buffer.float() if part == "alpha" else buffer.to(torch.int64))
        module.to(dtype)
        if cls is FullModule:
            module._org_weight = [module._org_weight[0].to(dtype)]
        module.apply_to()
        module.multiplier = weight
        modules.append(module)
    finish(f"LyCORIS {name}", file, target, run(model, dtype), weight)


lycoris("LoCon", LoConModule, weight=0.7, half=True)
lycoris("LoCon, Tucker", LoConModule, use_tucker=True)
lycoris("LoCon, text encoder", LoConModule, layers_of_text, "text_encoder")
lycoris("DoRA by output", LoConModule, weight_decompose=True)
lycoris("DoRA by input", LoConModule, weight_decompose=True, wd_on_out=False)
lycoris("DoRA, text encoder", LoConModule, layers_of_text, "text_encoder", weight_decompose=True)
lycoris("LoHa", LohaModule, weight=0.8)
lycoris("LoHa, Tucker", LohaModule, use_tucker=True)
lycoris("LoHa, DoRA", LohaModule, weight_decompose=True)
lycoris("LoKr", LokrModule, weight=0.9, factor=4)
lycoris("LoKr, both decomposed", LokrModule, dim=2, factor=8, decompose_both=True)
lycoris("LoKr, Tucker", LokrModule, dim=2, factor=4, use_tucker=True)
lycoris("LoKr, whole", LokrModule, factor=4, full_matrix=True)
lycoris("LoKr, text encoder", LokrModule, layers_of_text, "text_encoder", dim=2, factor=4)
lycoris("GLoRA", GLoRAModule, weight=0.6)
lycoris("IA3 on outputs", IA3Module, weight=0.7)
lycoris("IA3 on inputs", IA3Module, train_on_input=True)
lycoris("OFT", DiagOFTModule, weight=0.7, dtype=torch.float32, dim=4, alpha=1)
lycoris("OFT, bounded and rescaled", DiagOFTModule, dtype=torch.float32, dim=4, alpha=1, constraint=0.01, rescaled=True)
lycoris("BOFT", ButterflyOFTModule, weight=0.8, dtype=torch.float32, dim=4, alpha=1)
lycoris("BOFT, rescaled", ButterflyOFTModule, dtype=torch.float32, dim=4, alpha=1, rescaled=True)
lycoris("norms", NormModule, norms, weight=0.5)
lycoris("full", FullModule, ["conv_in", "conv_out", *some[3:6], *some[-4:]], weight=0.9)

# --- PEFT ------------------------------------------------------------------------------------------------------------

ends = ["attentions.1.transformer_blocks.0.attn1.to_q", "attentions.1.transformer_blocks.0.attn2.to_k",
        "attentions.1.transformer_blocks.0.attn2.to_out.0", "attentions.1.transformer_blocks.0.ff.net.0.proj",
        "attentions.1.transformer_blocks.0.ff.net.2"]
linears = [f"up_blocks.2.{end}" for end in ends]
convs = ["down_blocks.1.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut", "conv_out"]


def peft(name, config, target="unet"):
    dtype = torch.float64
    model = make_unet(dtype) if target == "unet" else make_clip(dtype)
    tuned = get_peft_model(model, config)
    state = get_peft_model_state_dict(tuned)
    file = File()
    parameters = dict(tuned.named_parameters())
    for key in sorted(state):
        if key.endswith("shira_indices") or ".shira_indices." in key:
            file.exact(key.replace(".default", ""), state[key].to(torch.int64))
            continue
        stem, _, last = key.rpartition(".")
        place = next(p for p in (f"{stem}.default.{last}", f"{key}.default", key, f"{key}.default.weight") if p in parameters)
        shape = tuple(parameters[place].shape)
        # Of a text encoder as diffusers saves it, which names the network.
        stored = key.replace("base_model.model.", "text_encoder.text_model.") if target == "text_encoder" else key
        parameters[place].data.copy_(file.hashed(stored, shape, *range_of(stored, shape)))
    tuned.to(dtype)
    out = (run_unet if target == "unet" else run_clip)(tuned, dtype)
    said = {k: (sorted(v) if isinstance(v, set) else v) for k, v in config.to_dict().items()}
    if target == "text_encoder":
        packed = json.dumps({f"text_encoder.{key}": said[key] for key in ("r", "lora_alpha", "use_rslora")})
        finish(f"diffusers {name}", file, target, out, metadata={"format": "pt", "lora_adapter_metadata": packed})
    else:
        finish(f"PEFT {name}", file, target, out, config=json.loads(json.dumps(said, default=str)))


peft("LoRA", LoraConfig(r=3, lora_alpha=5, target_modules=linears + convs))
peft("LoRA, rank-stabilised", LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=linears))
peft("LoRA, text encoder", LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj", "fc1"]), "text_encoder")
peft("DoRA", LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=linears + convs))
peft("LoHa", LoHaConfig(r=2, alpha=3, target_modules=linears + convs))
peft("LoHa, effective convolutions", LoHaConfig(r=2, alpha=3, use_effective_conv2d=True, target_modules=linears + convs))
peft("LoKr", LoKrConfig(r=2, alpha=3, decompose_factor=4, target_modules=linears + convs))
peft("IA3", IA3Config(target_modules=linears + convs, feedforward_modules=linears[-1:] + convs[:1]))
peft("OFT", OFTConfig(r=0, oft_block_size=4, use_cayley_neumann=True, target_modules=linears))
peft("OFT, exact", OFTConfig(r=0, oft_block_size=8, use_cayley_neumann=False, target_modules=linears))
peft("SHiRA", ShiraConfig(r=2, target_modules=linears, random_seed=3))

# --- by hand ---------------------------------------------------------------------------------------------------------


def merged(name, layers, target="unet", **extra):
    """Adds float64 deltas to the weights: `layers` yields (path, delta)."""
    model = make_unet(torch.float64) if target == "unet" else make_clip(torch.float64)
    for path, delta in layers:
        weight = model.get_submodule(path).weight
        weight += delta.reshape(weight.shape)
    return (run_unet if target == "unet" else run_clip)(model, torch.float64)


def kohya():
    file, deltas = File(), []
    shapes = make_unet(torch.float32)
    for path in some:
        weight = shapes.get_submodule(path).weight
        n, c, *kernel = weight.shape
        key, rank, alpha = "lora_unet_" + path.replace(".", "_"), 4, 2.0
        down_shape, up_shape = (rank, c, *kernel), (n, rank, *[1] * len(kernel))
        down = file.hashed(f"{key}.lora_down.weight", down_shape, *range_of("lora_down.weight", down_shape), torch.float16)
        up = file.hashed(f"{key}.lora_up.weight", up_shape, *range_of("lora_up.weight", up_shape), torch.float16)
        file.exact(f"{key}.alpha", torch.tensor(alpha, dtype=torch.float16))
        deltas.append((path, 0.8 * alpha / rank * up.double().reshape(n, rank) @ down.double().reshape(rank, -1)))
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_base_model_version": "sd_v1"}
    finish("kohya LoRA", file, "unet", merged("kohya", deltas), 0.8, metadata)


kohya()


def safelora():
    """cloneofsimo's format: numbered factors, the meaning of the numbers in the notes, no alpha. Blocks in the order in which
    the modules were registered when it was made: down, up, middle; in each attn1, ff, attn2."""
    unet = make_unet(torch.float32)
    blocks = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)]
    blocks += [f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)] + ["mid_block.attentions.0"]
    order = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "attn2.to_q", "attn2.to_k",
             "attn2.to_v", "attn2.to_out.0"]
    paths = [f"{block}.transformer_blocks.0.{layer}" for block in blocks for layer in order]
    shapes, notes = {}, {"unet": json.dumps(["CrossAttention", "Attention", "GEGLU"]),
                         "text_encoder": json.dumps(["CLIPAttention"])}
    for i, path in enumerate(paths):
        n, k = unet.get_submodule(path).weight.shape
        shapes[f"unet:{i}:down"], shapes[f"unet:{i}:up"] = (2, k), (n, 2)
        notes[f"unet:{i}:rank"] = "2"
    for i in range(12):
        shapes[f"text_encoder:{i}:down"], shapes[f"text_encoder:{i}:up"] = (2, 32), (32, 2)
        notes[f"text_encoder:{i}:rank"] = "2"
    file, values, header, at = File(), {}, {"__metadata__": notes}, 0
    for key in sorted(shapes):
        scale = 0.5 * np.sqrt(3.0 / shapes[key][1]) if key.endswith("down") else 0.5
        values[key] = file.hashed(key, shapes[key], float(scale), 0.0, torch.float16).double()
        length = 2 * size_of(shapes[key])
        header[key] = {"dtype": "F16", "shape": list(shapes[key]), "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header, separators=(",", ":"))
    if len(text) % 8 == 0:  # the published files' headers are no multiples of 8
        text += " "
    delta = lambda part, i: values[f"{part}:{i}:up"] @ values[f"{part}:{i}:down"]
    finish("cloneofsimo", file, "unet", merged("unet", [(path, delta("unet", i)) for i, path in enumerate(paths)]), header=text)
    towers = [f"text_model.encoder.layers.{i // 4}.self_attn.{('k_proj', 'v_proj', 'q_proj', 'out_proj')[i % 4]}" for i in range(12)]
    towers = [path if hasattr(make_clip(torch.float32), "text_model") else path.removeprefix("text_model.") for path in towers]
    out = merged("text", [(path, delta("text_encoder", i)) for i, path in enumerate(towers)], "text_encoder")
    cases[-1]["text"] = pack(out)


safelora()

data = {"cases": cases, "plain": {target: pack(out) for target, out in plain.items()}, "ids": token_ids.tolist(), "eos": eos}
path = pathlib.Path(__file__).with_name("adapter-kinds.json.gz")
path.write_bytes(gzip.compress(json.dumps(data).encode(), 9, mtime=0))
print(len(cases), "adapters,", path.stat().st_size, "bytes")

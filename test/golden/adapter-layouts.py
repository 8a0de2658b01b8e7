"""Adapter files as other programs write them: every tensor's name, type and shape, and the modules they were made for.

The networks are tiny ones of diffusers and transformers. PEFT's and LyCORIS's names are what their own code puts out for
them; diffusers' are those of its pipelines' `save_lora_weights`; its older ones and kohya's follow from the module paths by
the rules of formats.md, section 5. Values do not matter and are not kept. Written to adapter-layouts.json.gz: the networks'
config.json, and per case `network` (sd1, sd2 or sdxl), `tensors` (name -> [dtype, shape]), `metadata`, `config` (PEFT's
adapter_config.json), `modules`, the paths that were adapted, as "unet:down_blocks.0…" with the kind of change, and `scales`,
what PEFT multiplies their products with.

    python adapter-layouts.py
"""
import gzip
import json
import pathlib
import re
import struct
import tempfile

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers, _maybe_map_sgm_blocks_to_diffusers
from diffusers.utils import convert_state_dict_to_diffusers
from lycoris import create_lycoris
from peft import BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, ShiraConfig, get_peft_model, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

torch.manual_seed(5)
torch.set_num_threads(1)

down2 = dict(down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))
configs = {
    "sd1": dict(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=24, attention_head_dim=4, **down2),
    "sd2": dict(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=40, attention_head_dim=[2, 4],
                use_linear_projection=True, **down2),
    "sdxl": dict(block_out_channels=(32, 64, 64), layers_per_block=2, cross_attention_dim=72, attention_head_dim=[2, 4, 8],
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
                 transformer_layers_per_block=[1, 2, 2], addition_embed_type="text_time", addition_time_embed_dim=8,
                 projection_class_embeddings_input_dim=88),
}


def clip(cls, **config):
    return cls(CLIPTextConfig(vocab_size=300, max_position_embeddings=77, bos_token_id=298, eos_token_id=299, **config))


def towers(name):
    if name == "sdxl":
        return {"text_encoder": clip(CLIPTextModel, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4),
                "text_encoder_2": clip(CLIPTextModelWithProjection, hidden_size=40, intermediate_size=80, num_hidden_layers=2,
                                       num_attention_heads=4, projection_dim=40, hidden_act="gelu")}
    width = configs[name]["cross_attention_dim"]
    return {"text_encoder": clip(CLIPTextModel, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=4)}


def networks(name):
    return {"unet": UNet2DConditionModel(**configs[name]), **towers(name)}


def plain(config):
    return {k: v for k, v in json.loads(json.dumps(dict(config), default=str)).items() if not k.startswith("_")}


cases = []


def header(file):
    raw = pathlib.Path(file).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + size])
    return {k: [v["dtype"], v["shape"]] for k, v in head.items() if k != "__metadata__"}, head.get("__metadata__", {})


def add(name, network, tensors, modules, metadata=None, config=None, scales=None):
    """`tensors`: a state dict; `modules`: "target:path" -> kind; `scales`: the same -> what the product is multiplied with."""
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/x.safetensors"
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, file, metadata=metadata)
        listed, said = header(file)
    assert modules, name
    cases.append({"name": name, "network": network, "tensors": listed, "modules": modules,
                  **({"metadata": said} if said else {}), **({"config": config} if config else {}), **({"scales": scales} if scales else {})})
    print(f"{name}: {len(listed)} tensors, {len(modules)} modules")


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


def layers(model, kinds, test=lambda path: True):
    return {path: m for path, m in model.named_modules() if isinstance(m, kinds) and test(path)}


def factors(layer, rank):
    """Down and up of a layer, with the shapes that trainers give them."""
    if isinstance(layer, torch.nn.Conv2d):
        return torch.zeros(rank, layer.in_channels, *layer.kernel_size), torch.zeros(layer.out_channels, rank, 1, 1)
    return torch.zeros(rank, layer.in_features), torch.zeros(layer.out_features, rank)


def text_path(path):
    """transformers 5 leaves "text_model." out, files have it."""
    return path if path.startswith("text_model.") else f"text_model.{path}"


LINEAR_AND_CONV = (torch.nn.Linear, torch.nn.Conv2d)
in_transformer = lambda path: ".attentions." in path
in_blocks = lambda path: path.split(".")[0] in ("down_blocks", "mid_block", "up_blocks")
in_layers = lambda path: ".layers." in path


# --- kohya: UNet by diffusers' paths in SD 1 and 2, by SGM's in SDXL, with the paths read back by diffusers' own converter ---
def kohya(network, test, dtype, text=True):
    nets = networks(network)
    tensors, modules = {}, {}
    prefixes = {"text_encoder": "lora_te1" if network == "sdxl" else "lora_te", "text_encoder_2": "lora_te2"}
    for target, net in nets.items():
        if target != "unet" and not text:
            continue
        for path, layer in layers(net, LINEAR_AND_CONV, test if target == "unet" else in_layers).items():
            path = path if target == "unet" else text_path(path)
            name = f"{prefixes.get(target, 'lora_unet')}_{path.replace('.', '_')}"
            down, up = factors(layer, 4)
            tensors |= {f"{name}.lora_down.weight": down.to(dtype), f"{name}.lora_up.weight": up.to(dtype), f"{name}.alpha": torch.tensor(2.0, dtype=dtype)}
            modules[f"{target}:{path}"] = "lora"
    return tensors, modules


add("kohya SD 1, attention and text", "sd1", *kohya("sd1", in_transformer, torch.float16), {"ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_base_model_version": "sd_v1"})
add("kohya SD 2, with convolutions, bf16", "sd2", *kohya("sd2", in_blocks, torch.bfloat16), {"ss_v2": "True", "ss_network_dim": "4"})
add("OneTrainer SDXL, names of diffusers", "sdxl", *kohya("sdxl", in_blocks, torch.float16), {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})


RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}


def sgm(network):
    """Diffusers path -> LDM name, counted off as the published networks are laid out."""
    per, ups = configs[network]["layers_per_block"], configs[network]["up_block_types"]
    names = {}
    for path in layers(networks(network)["unet"], LINEAR_AND_CONV, in_blocks):
        root, *rest = path.split(".")
        if root == "mid_block":
            kind, index, *tail = rest
            block = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(index)}"
        else:
            level, kind, index, *tail = int(rest[0]), rest[1], int(rest[2]), *rest[3:]
            first = level * (per + 1)
            if kind == "downsamplers":
                names[path] = f"input_blocks.{first + per + 1}.0.op"
                continue
            if kind == "upsamplers":
                block = f"output_blocks.{first + per}.{2 if 'CrossAttn' in ups[level] else 1}"
            else:
                block = f"{'input' if root == 'down_blocks' else 'output'}_blocks.{first + index + (root == 'down_blocks')}.{1 if kind == 'attentions' else 0}"
        part = ".".join(tail)
        names[path] = f"{block}.{RESNET[part] if kind == 'resnets' else part}"
    return names


def by_sgm(network, name_of, with_alpha):
    tensors = {}
    net = dict(networks(network)["unet"].named_modules())
    for path, name in sgm(network).items():
        down, up = factors(net[path], 4)
        name = name_of(name)
        tensors |= {f"{name}.lora_down.weight": down.half(), f"{name}.lora_up.weight": up.half()}
        if with_alpha:
            tensors[f"{name}.alpha"] = torch.tensor(1.0).half()
    return tensors, {f"unet:{path}": "lora" for path in sgm(network)}


tensors, modules = by_sgm("sdxl", lambda name: f"lora_unet_{name.replace('.', '_')}", True)
# diffusers reads the same names as the same modules.
read, _ = _convert_non_diffusers_lora_to_diffusers(_maybe_map_sgm_blocks_to_diffusers(dict(tensors), networks("sdxl")["unet"].config))
theirs = {re.sub(r"(_lora|\.lora)\.(down|up)\.weight$", "", k.removeprefix("unet.").replace(".processor.", ".")) for k in read}
theirs = {re.sub(r"\.to_out$", ".to_out.0", k) for k in theirs}
assert theirs == {k.removeprefix("unet:") for k in modules}, sorted(theirs ^ {k.removeprefix("unet:") for k in modules})[:4]
add("kohya SDXL, names of SGM, with convolutions", "sdxl", tensors, modules, {"ss_base_model_version": "sdxl_base_v1-0"})
add("ComfyUI, diffusion_model and LDM names", "sd1", *by_sgm("sd1", lambda name: f"diffusion_model.{name}", False))


def plain_config(config):
    return json.loads(json.dumps(config.to_dict(), default=lambda value: sorted(value) if isinstance(value, set) else str(value)))


class Injected:
    """A network with adapters as PEFT's state-dict code wants to see one."""

    def __init__(self, net, config):
        self.net, self.peft_config = net, {"default": config}

    def __getattr__(self, name):
        return getattr(self.net, name)


# --- diffusers: what its pipelines save, and the forms before PEFT ---
def pipeline(network, **lora):
    nets, save, modules, scales = networks(network), {}, {}, {}
    for target, net in nets.items():
        config = LoraConfig(r=4, target_modules=list(ATTENTION if target == "unet" else TEXT_ATTENTION), **lora)
        inject_adapter_in_model(config, net)
        state = {key: value for key, value in net.state_dict().items() if "lora_" in key}
        save[f"{target}_lora_layers"] = convert_state_dict_to_diffusers(get_peft_model_state_dict(Injected(net, config), state))
        save[f"{target}_lora_adapter_metadata"] = plain_config(config)
        for path, m in net.named_modules():
            if hasattr(m, "lora_A"):
                path = f"{target}:{path if target == 'unet' else text_path(path)}"
                modules[path], scales[path] = "lora", m.scaling["default"]
    with tempfile.TemporaryDirectory() as folder:
        (StableDiffusionXLPipeline if network == "sdxl" else StableDiffusionPipeline).save_lora_weights(folder, **save)
        with safe_open(f"{folder}/pytorch_lora_weights.safetensors", "pt") as f:
            return {k: f.get_tensor(k) for k in f.keys()}, modules, f.metadata(), None, scales


for network in ("sd1", "sdxl"):
    add(f"diffusers, {network}", network, *pipeline(network, lora_alpha=8))
add("diffusers, rank-stabilised", "sd1", *pipeline("sd1", lora_alpha=8, use_rslora=True))


def old(network, suffixes, attention_processors=False):
    tensors, modules = {}, {}
    for target, net in networks(network).items():
        test = (lambda p: p.endswith(ATTENTION)) if target == "unet" else (lambda p: p.endswith(TEXT_ATTENTION))
        if attention_processors and target != "unet":
            continue
        for path, layer in layers(net, torch.nn.Linear, test).items():
            path = path if target == "unet" else text_path(path)
            down, up = factors(layer, 4)
            if attention_processors:
                site, _, part = path.removesuffix(".0").rpartition(".")
                name = f"{site}.processor.{part}_lora"
                tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
            else:
                tensors |= {f"{target}.{path}{suffixes[0]}": down, f"{target}.{path}{suffixes[1]}": up}
            modules[f"{target}:{path}"] = "lora"
    return tensors, modules


add("diffusers 0.17, .lora.down", "sd1", *old("sd1", (".lora.down.weight", ".lora.up.weight")))
add("diffusers, .lora_linear_layer.down", "sdxl", *old("sdxl", (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")))
add("diffusers, attention processors", "sd2", *old("sd2", None, attention_processors=True))

# --- PEFT: what get_peft_model writes to adapter_model.safetensors ---
SITES = r".*transformer_blocks.*\.(to_q|to_k|to_v|to_out\.0|net\.2)"
WITH_CONV = r".*(transformer_blocks.*\.(to_q|to_out\.0|net\.2)|resnets.*\.conv1|proj_in)"


def peft(name, network, config, kind, target="unet"):
    net = networks(network)[target]
    model = get_peft_model(net, config)
    modules, scales = {}, {}
    for path, m in model.base_model.model.named_modules():
        if hasattr(m, "base_layer"):
            path = f"{target}:{path if target == 'unet' else text_path(path)}"
            modules[path] = kind
            if kind in ("lora", "dora", "loha", "lokr"):
                scales[path] = m.scaling["default"]
    add(name, network, get_peft_model_state_dict(model), modules, config=plain_config(config), scales=scales)


peft("PEFT LoRA with patterns", "sd1", LoraConfig(r=4, lora_alpha=8, target_modules=WITH_CONV, rank_pattern={"attn1.to_q": 2}, alpha_pattern={"attn2.to_q": 3}), "lora")
peft("PEFT LoRA of a text encoder", "sd1", LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "fc1"]), "lora", "text_encoder")
peft("PEFT LoRA of the second text encoder", "sdxl", LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "fc1"]), "lora", "text_encoder_2")
peft("PEFT DoRA", "sd1", LoraConfig(r=4, lora_alpha=8, target_modules=WITH_CONV, use_dora=True), "dora")
peft("PEFT LoRA with biases", "sd1", LoraConfig(r=4, target_modules=["to_out.0"], lora_bias=True), "lora")
peft("PEFT LoHa", "sd1", LoHaConfig(r=4, alpha=2, target_modules=WITH_CONV), "loha")
peft("PEFT LoHa with cores", "sd1", LoHaConfig(r=4, alpha=2, target_modules=WITH_CONV, use_effective_conv2d=True), "loha")
peft("PEFT LoKr", "sd1", LoKrConfig(r=2, alpha=2, target_modules=WITH_CONV, decompose_both=True), "lokr")
peft("PEFT LoKr with cores", "sd1", LoKrConfig(r=2, alpha=2, target_modules=WITH_CONV, use_effective_conv2d=True, decompose_factor=4), "lokr")
peft("PEFT LoKr of whole factors", "sd1", LoKrConfig(r=64, alpha=32, target_modules=SITES), "lokr")
peft("PEFT IA3", "sd1", IA3Config(target_modules=SITES, feedforward_modules=r".*net\.2"), "ia3")
peft("PEFT OFT", "sd1", OFTConfig(oft_block_size=4, target_modules=SITES), "oft")
peft("PEFT SHiRA", "sd1", ShiraConfig(r=2, target_modules=SITES), "sparse")
peft("PEFT BOFT", "sd1", BOFTConfig(boft_block_size=4, target_modules=SITES), "unsupported")


# --- LyCORIS: what its networks put out for this UNet ---
def lycoris(name, kind, **options):
    net = networks("sd1")["unet"]
    by_name = {f"lycoris_{path.replace('.', '_')}": path for path, _ in net.named_modules()}
    network = create_lycoris(net, 1.0, linear_dim=4, linear_alpha=2, conv_dim=4, conv_alpha=2, **options)
    network.apply_to()
    state = network.state_dict()
    modules = {}
    for key in state:
        module, end = key.split(".", 1)
        path = by_name[module]
        modules[f"unet:{path}"] = "diff" if end in ("w_norm", "b_norm") else kind
    add(name, "sd1", state, modules)


lycoris("LyCORIS LoCon", "lora", algo="lora")
lycoris("LyCORIS LoCon with cores", "lora", algo="lora", use_tucker=True)
lycoris("LyCORIS DoRA", "dora", algo="lora", dora_wd=True)
lycoris("LyCORIS DoRA of the inputs, norms too", "dora", algo="lora", dora_wd=True, wd_on_output=False, train_norm=True)
lycoris("LyCORIS LoHa", "loha", algo="loha")
lycoris("LyCORIS LoHa with cores", "loha", algo="loha", use_tucker=True)
lycoris("LyCORIS LoKr", "lokr", algo="lokr", factor=4)
lycoris("LyCORIS LoKr with cores", "lokr", algo="lokr", use_tucker=True, decompose_both=True, factor=4)
lycoris("LyCORIS LoKr of whole factors", "lokr", algo="lokr", full_matrix=True)
lycoris("LyCORIS IA3", "ia3", algo="ia3")
lycoris("LyCORIS full", "diff", algo="full", train_norm=True)
lycoris("LyCORIS diag-OFT", "oft", algo="diag-oft", constraint=0.1, rescaled=True)
lycoris("LyCORIS BOFT", "boft", algo="boft", rescaled=True)
lycoris("LyCORIS GLoRA", "glora", algo="glora")
lycoris("LyCORIS DyLoRA", "lora", algo="dylora", block_size=2)

out = {
    "networks": {name: {target: plain(net.config if target == "unet" else net.config.to_dict() | {"architectures": [type(net).__name__]}) for target, net in networks(name).items()} for name in configs},
    "cases": cases,
}
raw = json.dumps(out, separators=(",", ":")).encode()
file = pathlib.Path(__file__).with_name("adapter-layouts.json.gz")
file.write_bytes(gzip.compress(raw, 9, mtime=0))
print(len(raw), "->", file.stat().st_size, "bytes,", len(cases), "cases")

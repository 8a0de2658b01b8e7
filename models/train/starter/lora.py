"""Low-rank adapters on the frozen U-Net, and their files."""
from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from .frozen import BASE_SHA256

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
LINEAR = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
TARGETS = {"attention": ATTENTION, "linear": LINEAR}


class Lora(nn.Module):
    """base(x) + strength · up(down(x)) for a linear layer or a 1 × 1 convolution; alpha equals the rank."""

    def __init__(self, base: nn.Module, rank: int):
        super().__init__()
        self.base = base
        innermost = base
        while isinstance(innermost, Lora):
            innermost = innermost.base
        o, i, *tail = innermost.weight.shape
        self.down = nn.Parameter(torch.randn(rank, i, *tail) / math.sqrt(i))
        self.up = nn.Parameter(torch.zeros(o, rank, *tail))
        self.strength = 1.0

    def forward(self, x):
        y = self.base(x)
        if self.strength == 0:
            return y
        product = F.conv2d if self.down.ndim == 4 else F.linear
        return y + self.strength * product(product(x, self.down), self.up)


class Adapter:
    """All factors of one adapter inside a U-Net. Several adapters nest: each wraps what the one before left."""

    def __init__(self, unet: nn.Module, layers: dict[str, Lora]):
        self.unet, self.layers = unet, layers

    @staticmethod
    def new(unet: nn.Module, rank: int, targets: str) -> "Adapter":
        found = [n for n, m in unet.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d, Lora)) and n.endswith(TARGETS[targets]) and ".attentions." in n]
        return Adapter(unet, {path: _wrap(unet, path, rank) for path in found})

    @staticmethod
    def of_file(unet: nn.Module, file: str | Path) -> "Adapter":
        factors = read(file)
        layers = {}
        for path, (down, up) in factors.items():
            layers[path] = _wrap(unet, path, len(down))
            layers[path].down.data, layers[path].up.data = down, up
            layers[path].requires_grad_(False)
        return Adapter(unet, layers)

    @property
    def strength(self) -> float:
        return next(iter(self.layers.values())).strength

    @strength.setter
    def strength(self, value: float) -> None:
        for layer in self.layers.values():
            layer.strength = value

    def parameters(self) -> list[nn.Parameter]:
        return [p for layer in self.layers.values() for p in (layer.down, layer.up)]

    def state(self) -> dict[str, torch.Tensor]:
        return {f"{path}.{k}": getattr(layer, k).detach().clone() for path, layer in self.layers.items() for k in ("down", "up")}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        for path, layer in self.layers.items():
            layer.down.data, layer.up.data = state[f"{path}.down"].clone(), state[f"{path}.up"].clone()

    def remove(self) -> None:
        for path, layer in self.layers.items():
            put(self.unet, path, layer.base)


def _wrap(unet: nn.Module, path: str, rank: int) -> Lora:
    lora = Lora(unet.get_submodule(path), rank)
    put(unet, path, lora)
    return lora


def put(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module) if not name.isdigit() else root.get_submodule(parent).__setitem__(int(name), module)


# --- files ------------------------------------------------------------------------------------------------------


def write(file: str | Path, state: dict[str, torch.Tensor], layout: str, metadata: dict[str, str]) -> None:
    """`peft`: the names of diffusers, without alpha (it equals the rank). `kohya`: lora_unet_…, with alpha."""
    tensors: dict[str, torch.Tensor] = {}
    paths = sorted({k.rpartition(".")[0] for k in state})
    ranks = {len(state[f"{path}.down"]) for path in paths}
    for path in paths:
        down, up = state[f"{path}.down"], state[f"{path}.up"]
        if layout == "peft":
            tensors[f"unet.{path}.lora_A.weight"], tensors[f"unet.{path}.lora_B.weight"] = down, up
        else:
            name = "lora_unet_" + path.replace(".", "_")
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
            tensors[f"{name}.alpha"] = torch.tensor(float(len(down)))
    extra = {} if layout == "peft" else {"ss_network_module": "networks.lora", "ss_network_dim": str(max(ranks)), "ss_network_alpha": str(float(max(ranks)))}
    store(file, tensors, {"vignette_kind": "lora", **extra, **metadata})


def store(file: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """fp16, as everything that is shipped; integers and single numbers keep their kind."""
    out = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
    for name, value in out.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} is not finite in float16")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    credit = {"modelspec.author": "Vignette", "modelspec.license": "Apache-2.0", "vignette_licence": "Apache-2.0"}
    save_file(out, file, metadata={"format": "pt", "vignette_base_sha256": BASE_SHA256, **credit, **metadata})
    Path(file).chmod(0o644)


def read(file: str | Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Path -> (down, up) with alpha / rank folded into `up`, from either layout."""
    tensors = {k: v.float() for k, v in load_file(file).items()}
    out = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            path = name.removeprefix("unet.").removesuffix(".lora_A.weight")
            out[path] = (tensors[name], tensors[name.replace("lora_A", "lora_B")])
        elif name.endswith(".lora_down.weight"):
            stem = name.removesuffix(".lora_down.weight")
            down = tensors[name]
            out[stem] = (down, tensors[f"{stem}.lora_up.weight"] * (tensors[f"{stem}.alpha"] / len(down)))
    return {_dotted(k): v for k, v in out.items()}


def _dotted(stem: str) -> str:
    """lora_unet_down_blocks_0_… -> down_blocks.0.…; names with an underscore of their own are put together again."""
    if not stem.startswith("lora_unet_"):
        return stem
    path = stem.removeprefix("lora_unet_").replace("_", ".")
    for whole in ("down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v", "to_out", "proj_in", "proj_out"):
        path = path.replace(whole.replace("_", "."), whole)
    return path


def metadata_of(file: str | Path) -> dict[str, str]:
    with safe_open(file, "pt") as f:
        return f.metadata()


def content_hash(file: str | Path) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def describe(about: str, **fields) -> dict[str, str]:
    """Metadata of ours: every value a string, lists as JSON, nothing for None; `about` says how it was trained."""
    return {"modelspec.description": about} | {f"vignette_{k}": v if isinstance(v, str) else json.dumps(v) for k, v in fields.items() if v is not None}

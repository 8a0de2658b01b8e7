"""The three networks of Starter, in the structure of Stable Diffusion 1.x.

Module names follow the checkpoint keys of diffusers (`UNet2DConditionModel`, `AutoencoderKL`) and
transformers (`CLIPTextModel`), so a state dict of these classes *is* a plain checkpoint and `pack.py`
only has to change the number format. Nothing but torch is needed to train.
"""
from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


# --- configurations ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UNetConfig:
    in_channels: int = 8
    block_out_channels: tuple[int, ...] = (64, 96, 48, 48)
    layers_per_block: int = 2
    # Stable Diffusion 1.x reads `attention_head_dim` as the *number* of heads; so do we.
    heads: int = 4
    cross_attention_dim: int = 128
    norm_num_groups: int = 16


@dataclass(frozen=True)
class VaeConfig:
    latent_channels: int = 8
    block_out_channels: tuple[int, ...] = (16, 24, 48, 96, 96)
    layers_per_block: int = 1
    norm_num_groups: int = 8


@dataclass(frozen=True)
class TextConfig:
    vocab_size: int = 49408
    hidden_size: int = 128
    intermediate_size: int = 512
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    max_position_embeddings: int = 77


def config_dict(config) -> dict:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


# --- shared parts -----------------------------------------------------------------------------------------------


class ResnetBlock(nn.Module):
    def __init__(self, i: int, o: int, time: int | None, groups: int, eps: float):
        super().__init__()
        self.norm1 = GroupNorm(groups, i, eps)
        self.conv1 = nn.Conv2d(i, o, 3, padding=1)
        if time:
            self.time_emb_proj = nn.Linear(time, o)
        self.norm2 = GroupNorm(groups, o, eps)
        self.conv2 = nn.Conv2d(o, o, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(i, o, 1) if i != o else None

    def forward(self, x, temb=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if temb is not None:
            h = h + self.time_emb_proj(temb)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Upsample(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Stride-2 convolution. The U-Net pads evenly, the autoencoder only right and below (as in the original code)."""

    def __init__(self, c: int, uneven: bool):
        super().__init__()
        self.uneven = uneven
        self.conv = nn.Conv2d(c, c, 3, stride=2, padding=0 if uneven else 1)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.uneven else x)


class GroupNorm(nn.GroupNorm):
    """Always computed in float32: under bf16 autocast the CPU kernel is five times slower, and less exact."""

    def forward(self, x):
        return super().forward(x.float() if x.device.type == "cpu" else x)


def attend(q, k, v, heads: int):
    # float32 for the same reason as in GroupNorm: the CPU's bf16 attention kernel is six times slower than its
    # float32 one, while convolutions and matrix products gain from bf16 (AMX).
    if q.device.type == "cpu":
        q, k, v = q.float(), k.float(), v.float()
    b, n, d = q.shape
    split = lambda t: t.view(b, -1, heads, d // heads).transpose(1, 2)
    with torch.autocast(q.device.type, enabled=False):
        out = F.scaled_dot_product_attention(split(q), split(k), split(v))
    return out.transpose(1, 2).reshape(b, n, d)


# --- U-Net ------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, context: int | None = None):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context or dim, dim, bias=False)
        self.to_v = nn.Linear(context or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])

    def forward(self, x, context=None):
        context = x if context is None else context
        return self.to_out[0](attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.net = nn.ModuleList([GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    def __init__(self, dim: int, heads: int, context: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = Attention(dim, heads, context)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x, context):
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, dim: int, heads: int, context: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, dim, 1e-6)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(dim, heads, context)])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x, context):
        b, c, h, w = x.shape
        y = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            y = block(y, context)
        return x + self.proj_out(y.transpose(1, 2).reshape(b, c, h, w))


class UNetBlock(nn.Module):
    """A down or an up block: resnets, each followed by a transformer where the level has attention."""

    def __init__(self, ins: list[int], out: int, cfg: UNetConfig, attention: bool, sampler: str | None):
        super().__init__()
        time = cfg.block_out_channels[0] * 4
        self.resnets = nn.ModuleList([ResnetBlock(i, out, time, cfg.norm_num_groups, 1e-5) for i in ins])
        self.attentions = (
            nn.ModuleList([SpatialTransformer(out, cfg.heads, cfg.cross_attention_dim, cfg.norm_num_groups) for _ in ins])
            if attention
            else None
        )
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Downsample(out, uneven=False)])
        elif sampler == "up":
            self.upsamplers = nn.ModuleList([Upsample(out)])
        self.sampler = sampler

    def step(self, i: int, x, temb, context):
        x = self.resnets[i](x, temb)
        return x if self.attentions is None else self.attentions[i](x, context)


class MidBlock(nn.Module):
    def __init__(self, c: int, cfg: UNetConfig):
        super().__init__()
        time = cfg.block_out_channels[0] * 4
        self.resnets = nn.ModuleList([ResnetBlock(c, c, time, cfg.norm_num_groups, 1e-5) for _ in range(2)])
        self.attentions = nn.ModuleList([SpatialTransformer(c, cfg.heads, cfg.cross_attention_dim, cfg.norm_num_groups)])

    def forward(self, x, temb, context):
        return self.resnets[1](self.attentions[0](self.resnets[0](x, temb), context), temb)


class TimeEmbedding(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.linear_1 = nn.Linear(c, 4 * c)
        self.linear_2 = nn.Linear(4 * c, 4 * c)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


def sinusoid(t: torch.Tensor, dim: int) -> torch.Tensor:
    """Timestep embedding with cosine first (`flip_sin_to_cos`) and no frequency shift, as SD1.x uses it."""
    half = dim // 2
    freq = torch.exp(-math.log(10000) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angle = t.float()[:, None] * freq
    return torch.cat([angle.cos(), angle.sin()], -1)


class UNet(nn.Module):
    def __init__(self, cfg: UNetConfig = UNetConfig()):
        super().__init__()
        self.cfg = cfg
        ch, n = cfg.block_out_channels, cfg.layers_per_block
        last = len(ch) - 1
        self.conv_in = nn.Conv2d(cfg.in_channels, ch[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(ch[0])
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, previous = [ch[0]], ch[0]
        for i, c in enumerate(ch):
            self.down_blocks.append(UNetBlock([previous] + [c] * (n - 1), c, cfg, i < last, "down" if i < last else None))
            skips += [c] * n + ([c] if i < last else [])
            previous = c
        self.mid_block = MidBlock(previous, cfg)
        for i in range(last, -1, -1):
            ins = []
            for _ in range(n + 1):
                ins.append(previous + skips.pop())
                previous = ch[i]
            self.up_blocks.append(UNetBlock(ins, ch[i], cfg, i < last, "up" if i > 0 else None))
        self.conv_norm_out = GroupNorm(cfg.norm_num_groups, ch[0], 1e-5)
        self.conv_out = nn.Conv2d(ch[0], cfg.in_channels, 3, padding=1)

    def forward(self, x, t, context):
        temb = F.silu(self.time_embedding(sinusoid(t, self.cfg.block_out_channels[0])))
        h = self.conv_in(x)
        skips = [h]
        for block in self.down_blocks:
            for i in range(len(block.resnets)):
                h = block.step(i, h, temb, context)
                skips.append(h)
            if block.sampler:
                h = block.downsamplers[0](h)
                skips.append(h)
        h = self.mid_block(h, temb, context)
        for block in self.up_blocks:
            for i in range(len(block.resnets)):
                h = block.step(i, torch.cat([h, skips.pop()], 1), temb, context)
            if block.sampler:
                h = block.upsamplers[0](h)
        return self.conv_out(F.silu(self.conv_norm_out(h)))


# --- autoencoder ------------------------------------------------------------------------------------------------


class VaeAttention(nn.Module):
    def __init__(self, c: int, groups: int):
        super().__init__()
        self.group_norm = GroupNorm(groups, c, 1e-6)
        self.to_q = nn.Linear(c, c)
        self.to_k = nn.Linear(c, c)
        self.to_v = nn.Linear(c, c)
        self.to_out = nn.ModuleList([nn.Linear(c, c), nn.Identity()])

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.group_norm(x).flatten(2).transpose(1, 2)
        y = self.to_out[0](attend(self.to_q(y), self.to_k(y), self.to_v(y), 1))
        return x + y.transpose(1, 2).reshape(b, c, h, w)


class VaeMid(nn.Module):
    def __init__(self, c: int, groups: int):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(c, c, None, groups, 1e-6) for _ in range(2)])
        self.attentions = nn.ModuleList([VaeAttention(c, groups)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class VaeBlock(nn.Module):
    def __init__(self, i: int, o: int, n: int, groups: int, sampler: str | None):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(i if k == 0 else o, o, None, groups, 1e-6) for k in range(n)])
        if sampler == "down":
            self.downsamplers = nn.ModuleList([Downsample(o, uneven=True)])
        elif sampler == "up":
            self.upsamplers = nn.ModuleList([Upsample(o)])
        self.sampler = sampler

    def forward(self, x):
        for resnet in self.resnets:
            x = resnet(x)
        if self.sampler == "down":
            x = self.downsamplers[0](x)
        elif self.sampler == "up":
            x = self.upsamplers[0](x)
        return x


class Encoder(nn.Module):
    def __init__(self, cfg: VaeConfig):
        super().__init__()
        ch, g = cfg.block_out_channels, cfg.norm_num_groups
        last = len(ch) - 1
        self.conv_in = nn.Conv2d(3, ch[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            VaeBlock(ch[max(0, i - 1)], c, cfg.layers_per_block, g, "down" if i < last else None) for i, c in enumerate(ch)
        )
        self.mid_block = VaeMid(ch[-1], g)
        self.conv_norm_out = GroupNorm(g, ch[-1], 1e-6)
        self.conv_out = nn.Conv2d(ch[-1], 2 * cfg.latent_channels, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    def __init__(self, cfg: VaeConfig):
        super().__init__()
        ch, g = tuple(reversed(cfg.block_out_channels)), cfg.norm_num_groups
        last = len(ch) - 1
        self.conv_in = nn.Conv2d(cfg.latent_channels, ch[0], 3, padding=1)
        self.mid_block = VaeMid(ch[0], g)
        self.up_blocks = nn.ModuleList(
            VaeBlock(ch[max(0, i - 1)], c, cfg.layers_per_block + 1, g, "up" if i < last else None) for i, c in enumerate(ch)
        )
        self.conv_norm_out = GroupNorm(g, ch[-1], 1e-6)
        self.conv_out = nn.Conv2d(ch[-1], 3, 3, padding=1)

    def forward(self, z):
        return self.finish(self.stages(z)[-1])

    def stages(self, z, depth: int | None = None) -> list[torch.Tensor]:
        """The middle's output and that of the first `depth` up blocks: training supervises every one of them."""
        out = [self.mid_block(self.conv_in(z))]
        for block in self.up_blocks[:depth]:
            out.append(block(out[-1]))
        return out

    def finish(self, h):
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Vae(nn.Module):
    def __init__(self, cfg: VaeConfig = VaeConfig()):
        super().__init__()
        self.cfg = cfg
        z = cfg.latent_channels
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1)
        self.post_quant_conv = nn.Conv2d(z, z, 1)

    def encode(self, x):
        """Mean and log-variance of the latent (not yet multiplied by `scaling_factor`)."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


# --- text encoder -----------------------------------------------------------------------------------------------


class ClipAttention(nn.Module):
    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(d, d)
        self.k_proj = nn.Linear(d, d)
        self.v_proj = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        split = lambda t: t.view(b, n, self.heads, d // self.heads).transpose(1, 2)
        # CLIP is causal and masks no padding: the padding tokens see the whole prompt.
        q, k, v = (split(p(x)).float() for p in (self.q_proj, self.k_proj, self.v_proj))
        with torch.autocast(x.device.type, enabled=False):
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(out.transpose(1, 2).reshape(b, n, d))


class ClipMlp(nn.Module):
    def __init__(self, d: int, inner: int):
        super().__init__()
        self.fc1 = nn.Linear(d, inner)
        self.fc2 = nn.Linear(inner, d)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(h * torch.sigmoid(1.702 * h))


class ClipLayer(nn.Module):
    def __init__(self, cfg: TextConfig):
        super().__init__()
        d = cfg.hidden_size
        self.self_attn = ClipAttention(d, cfg.num_attention_heads)
        self.layer_norm1 = nn.LayerNorm(d)
        self.mlp = ClipMlp(d, cfg.intermediate_size)
        self.layer_norm2 = nn.LayerNorm(d)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipEmbeddings(nn.Module):
    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.position_embedding = nn.Embedding(cfg.max_position_embeddings, cfg.hidden_size)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, ids):
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class ClipEncoder(nn.Module):
    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(cfg) for _ in range(cfg.num_hidden_layers))


class ClipTransformer(nn.Module):
    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.embeddings = ClipEmbeddings(cfg)
        self.encoder = ClipEncoder(cfg)
        self.final_layer_norm = nn.LayerNorm(cfg.hidden_size)

    def forward(self, ids):
        x = self.embeddings(ids)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.final_layer_norm(x)


class TextEncoder(nn.Module):
    def __init__(self, cfg: TextConfig = TextConfig()):
        super().__init__()
        self.cfg = cfg
        self.text_model = ClipTransformer(cfg)

    def forward(self, ids):
        return self.text_model(ids)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())

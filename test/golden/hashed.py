"""Weights that need no file: every element is a hash of its tensor's name and its index; `networks-cases.ts` has the same."""
import numpy as np
import torch


def hashed(name, shape):
    """Numbers in -1...1: FNV-1a of the name seeds a counter, MurmurHash3's finaliser mixes it. float64."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    count = int(np.prod(shape)) if len(shape) else 1
    with np.errstate(over="ignore"):
        x = (np.uint32(seed) + np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9)).astype(np.uint32)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x85EBCA6B)
        x ^= x >> np.uint32(13)
        x *= np.uint32(0xC2B2AE35)
        x ^= x >> np.uint32(16)
    return (x.astype(np.float64) / 2147483648.0 - 1.0).reshape(shape)


def weight_of(name, shape):
    """Norms around 1, biases around 0, embeddings of unit size; other weights keep unit variance (uniform: 3 / fan-in)."""
    u = hashed(name, shape)
    if len(shape) == 1:
        return (1 + 0.3 * u if name.endswith("weight") else 0.2 * u).astype(np.float32)
    if "embeddings." in name:
        return u.astype(np.float32)
    return (u * np.sqrt(3.0 / int(np.prod(shape[1:])))).astype(np.float32)


def checkpoint_name(key, prefix):
    """transformers 5 saves a plain CLIPTextModel without `text_model.`; the networks are built with it."""
    return key if not prefix or key.startswith(prefix) or key.startswith("text_projection") else prefix + key


def fill(model, prefix=""):
    """Sets every weight of a network; gives the checkpoint's names and shapes."""
    state = model.state_dict()
    named = {key: checkpoint_name(key, prefix) for key in state if "position_ids" not in key}
    for key, name in named.items():
        state[key].copy_(torch.from_numpy(weight_of(name, tuple(state[key].shape))))
    model.eval()
    return sorted([name, list(state[key].shape)] for key, name in named.items())

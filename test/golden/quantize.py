"""The quantiser's steps in float64 numpy, written from the papers and not from our code.

Smoothing, low-rank branch and its alternation with rounding as SVDQuant describes them, error feedback in the original
form of GPTQ (with the inverse of the Hessian), and the best low-rank correction by way of the symmetric square root.
Weights and inputs are a formula, the same in quantize.test.ts. Run: python test/golden/quantize.py
"""
import base64
import gzip
import json
from pathlib import Path

import numpy as np

MASK = 0xFFFFFFFF


def uniform(seed, count):
    """mulberry32, as doubles in [-1, 1)."""
    state, out = seed & MASK, np.empty(count)
    for i in range(count):
        state = (state + 0x6D2B79F5) & MASK
        t = ((state ^ (state >> 15)) * (state | 1)) & MASK
        t = (t ^ (t + ((t ^ (t >> 7)) * (t | 61)))) & MASK
        out[i] = 2 * ((t ^ (t >> 14)) / 2**32) - 1
    return out


def problem(seed, n, channels, taps, rows):
    """Weights with four strong directions, inputs that follow six common causes; a few channels are far louder."""
    k = channels * taps
    small, left, right = (uniform(seed + i, c) for i, c in enumerate((n * k, 4 * n, 4 * k)))
    weights = 0.05 * small.reshape(n, k)
    for i in range(4):
        weights = weights + 0.3 / (i + 1) * left[i * n : (i + 1) * n, None] * right[None, i * k : (i + 1) * k]
    loud = np.where(np.arange(channels) % 16 == 5, 12.0, 1.0)
    causes, noise = uniform(seed + 3, rows * taps * 6).reshape(-1, 6), uniform(seed + 4, rows * k).reshape(-1, channels)
    x = 0.3 * noise
    for i in range(6):
        x = x + causes[:, i : i + 1] * np.cos(0.7 * (i + 1) * np.arange(channels) + i)[None]
    x = (x * loud).reshape(rows, k)
    return weights.astype(np.float32).astype(np.float64), x.astype(np.float32).astype(np.float64)


def half(x):
    return np.asarray(x).astype(np.float16).astype(np.float64)


# --- rounding to groups ---------------------------------------------------------------------------------------------

def groups_of(k, group):
    return [(g, min(g + group, k)) for g in range(0, k, group)]


def scales_of(w, group):
    """Per group: the extreme tried at eight codes, each scale fitted to the codes it chose; the least squared error wins."""
    out = np.zeros((len(w), len(groups_of(w.shape[1], group))))
    for g, (a, b) in enumerate(groups_of(w.shape[1], group)):
        block = w[:, a:b]
        extreme = np.take_along_axis(block, np.abs(block).argmax(1)[:, None], 1)
        least = np.full(len(w), np.inf)
        for at in (-9, -8.5, -8, -7.5, -7, -6.5, -6, -5.5):
            codes = np.clip(np.floor(block * (at / extreme) + 0.5), -8, 7)
            scale = half((block * codes).sum(1) / (codes**2).sum(1))
            error = ((block - codes * scale[:, None]) ** 2).sum(1)
            better = error < least
            out[better, g], least[better] = scale[better], error[better]
    return out


def per_input(scales, k, group):
    return np.repeat(scales, group, 1)[:, :k]


def nearest(w, scales, group):
    return np.clip(np.rint(w / per_input(scales, w.shape[1], group)), -8, 7)


# --- SVDQuant -------------------------------------------------------------------------------------------------------

def smoothing(w, x, alpha, beta):
    logs = alpha * np.log(np.abs(x).max(0)) - beta * np.log(np.abs(w).max(0))
    return np.exp(np.clip(logs - logs.mean(), -np.log(100), np.log(100)))


def factors(w, rank):
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    return half(u[:, :rank] * s[:rank]), half(vt[:rank])


def alternate(w, rank, group, rounds):
    """The squared error that branch and nearest codes leave in the weights, round by round."""
    errors, rounded = [], np.zeros_like(w)
    for _ in range(rounds):
        up, down = factors(w - rounded, rank)
        rest = w - up @ down
        scales = scales_of(rest, group)
        rounded = nearest(rest, scales, group) * per_input(scales, w.shape[1], group)
        errors.append(((rest - rounded) ** 2).sum() / (w**2).sum())
    return errors


def error_of(x, w, approximation):
    return ((x @ (w - approximation).T) ** 2).sum() / ((x @ w.T) ** 2).sum()


# --- GPTQ -----------------------------------------------------------------------------------------------------------

def hessian(x, taps):
    pixels = x.reshape(-1, x.shape[1] // taps)
    h = pixels.T @ pixels / len(pixels)
    return h + 0.03 * np.diag(np.diag(h))  # GPTQ: 0.01 of the mean; here each input's own share


def gptq(w, scales, group, h, taps):
    """Frantar et al. 2022, algorithm 1 with activation order, tap by tap."""
    size = len(h)
    order = np.argsort(-np.diag(h), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T  # H^-1 = upperᵀ · upper
    codes = np.zeros_like(w)
    for tap in range(taps):
        columns = tap * size + order
        left = w[:, columns].copy()
        for i, column in enumerate(columns):
            scale = scales[:, column // group]
            codes[:, column] = np.clip(np.rint(left[:, i] / scale), -8, 7)
            error = (left[:, i] - codes[:, column] * scale) / upper[i, i]
            left[:, i:] -= np.outer(error, upper[i, i:])
    return codes


def best_correction(rest, rank, h, taps):
    """Rank-limited L with the least trace of (rest - L) · H · (rest - L)ᵀ, H once per tap."""
    values, vectors = np.linalg.eigh(np.kron(np.eye(taps), h))
    root, inverse = (vectors * values**p @ vectors.T for p in (0.5, -0.5))
    u, s, vt = np.linalg.svd(rest @ root, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank] @ inverse


def codes64(codes):
    return base64.b64encode((codes + 8).astype(np.uint8).tobytes()).decode()


def halves64(x):
    return base64.b64encode(x.astype("<f2").tobytes()).decode()


def case(seed, n, channels, taps, rows, group, rank, alpha, beta):
    w, x = problem(seed, n, channels, taps, rows)
    k = channels * taps
    lam = smoothing(w, x, alpha, beta)
    w, x = w * lam, x / lam
    up, down = factors(w, rank)
    branch = up @ down
    rest = w - branch
    scales = scales_of(rest, group)
    step = per_input(scales, k, group)
    plain = nearest(rest, scales, group)
    h = hessian(x, taps)
    fed = gptq(rest, scales, group, h, taps)
    corrected = best_correction(w - fed * step, rank, h, taps) + fed * step
    return {
        "seed": seed, "n": n, "channels": channels, "taps": taps, "rows": rows, "group": group, "rank": rank,
        "alpha": alpha, "beta": beta,
        "lambda": [float(f"{v:.8g}") for v in lam],
        "rounds": alternate(w, rank, group, 3),
        "down": halves64(down),
        "up": halves64(up),
        "scales": halves64(scales),
        "least": ((rest - plain * step) ** 2).sum(),
        "nearest": {"codes": codes64(plain), "error": error_of(x, w, branch + plain * step)},
        "feedback": {"codes": codes64(fed), "error": error_of(x, w, branch + fed * step)},
        "corrected": error_of(x, w, corrected),
    }


def main():
    cases = [
        case(11, 48, 128, 1, 400, 64, 4, 0.5, 0.5),
        case(22, 40, 80, 1, 300, 32, 4, 0.0, 0.0),
        case(33, 32, 48, 1, 200, 32, 4, 0.25, 0.0),
        case(44, 24, 16, 9, 160, 32, 4, 0.0, 0.0),
    ]
    draws = [float(v) for v in uniform(7, 5)]
    singular = np.linalg.svd(problem(11, 48, 128, 1, 400)[0], compute_uv=False)
    data = {"draws": draws, "singular": [float(v) for v in singular], "cases": cases}
    Path(__file__).with_suffix(".json.gz").write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
    for c in cases:
        print({key: c[key] if not isinstance(c[key], dict) else c[key]["error"] for key in ("rounds", "nearest", "feedback", "corrected")})


if __name__ == "__main__":
    main()

"""Samplers and schedules in float64, written from the published formulas, and diffusers' schedulers on the same problem.

The model is analytic: a contraction towards 0 plus a bounded non-linear part, so that every order of a method shows.
Noise is a formula of step and position, injected into diffusers in place of its generator. Run: python test/golden/samplers.py
"""
import gzip, json, math
from pathlib import Path

import diffusers.schedulers as schedulers
import numpy as np
import torch

VALUES, D = 6, 0.6
position = np.arange(1, VALUES + 1, dtype=np.float64)
start = 1.3 * np.sin(2.1 * position) + 0.2  # before it is scaled to the first sigma


def noise(k):
    return math.sqrt(2) * np.sin(12.9898 * position + 78.233 * (k + 1))


def model(x, sigma):
    return x * D**2 / (sigma**2 + D**2) + 0.4 * sigma / (1 + sigma) * np.tanh(0.7 + x / math.sqrt(1 + sigma**2))


# --- noise levels -------------------------------------------------------------------------------------------------

def table(zero_snr, kind="scaled_linear"):
    lo, hi, n = 0.00085, 0.012, 1000
    betas = np.linspace(lo**0.5, hi**0.5, n) ** 2 if kind == "scaled_linear" else np.linspace(lo, hi, n)
    if zero_snr:  # Lin et al. 2023, algorithm 1, over betas as published
        root = np.sqrt(np.cumprod(1 - betas))
        first, last = root[0], root[-1]
        root = (root - last) * first / (first - last)
        bar = root**2
        alphas = np.concatenate([bar[:1], bar[1:] / bar[:-1]])
        betas = 1 - alphas
    bar = np.cumprod(1 - betas)
    if zero_snr:
        bar[-1] = 2**-24
    return np.sqrt((1 - bar) / bar)


def sigma_at(sig, t):
    return np.exp(np.interp(t, np.arange(len(sig)), np.log(sig)))


def t_at(sig, s):
    return np.interp(math.log(s), np.log(sig), np.arange(len(sig)))


def schedule(name, sig, n):
    last = len(sig) - 1
    if name == "normal":
        s = sigma_at(sig, np.linspace(last, 0, n))
    elif name == "sgm_uniform":
        s = sigma_at(sig, np.linspace(last, 0, n + 1)[:-1])
    elif name == "trailing":
        s = sig[np.round(np.arange(1000, 0, -1000 / n))[:n].astype(int) - 1]
    elif name == "simple":
        s = np.array([sig[-(1 + int(i * len(sig) / n))] for i in range(n)])
    elif name == "ddim_uniform":
        s = sig[(np.arange(n) * (1000 // n)).round()[::-1].astype(int) + 1]
    elif name == "karras":
        ramp = np.linspace(0, 1, n)
        s = (sig[-1] ** (1 / 7) + ramp * (sig[0] ** (1 / 7) - sig[-1] ** (1 / 7))) ** 7
    elif name == "exponential":
        s = np.exp(np.linspace(math.log(sig[-1]), math.log(sig[0]), n))
    return [*map(float, s), 0.0]


# --- samplers: each returns x after every step --------------------------------------------------------------------

def lam(s):
    return -math.log(s)


def euler(x, s, sig):
    for i in range(len(s) - 1):
        d = (x - model(x, s[i])) / s[i]
        x = x + d * (s[i + 1] - s[i])
        yield x


def euler_a(x, s, sig):
    for i in range(len(s) - 1):
        up = min(s[i + 1], math.sqrt(s[i + 1] ** 2 * (s[i] ** 2 - s[i + 1] ** 2) / s[i] ** 2))
        down = math.sqrt(s[i + 1] ** 2 - up**2)
        x = x + (x - model(x, s[i])) / s[i] * (down - s[i])
        if s[i + 1] > 0:
            x = x + noise(i) * up
        yield x


def ddim(x, s, sig):  # in the network's own variables: x_t = sqrt(a) x0 + sqrt(1-a) e
    a = [1 / (1 + v * v) for v in s]
    for i in range(len(s) - 1):
        z = x * math.sqrt(a[i])
        x0 = model(x, s[i])
        e = (z - math.sqrt(a[i]) * x0) / math.sqrt(1 - a[i])
        z = math.sqrt(a[i + 1]) * x0 + math.sqrt(1 - a[i + 1]) * e
        x = z / math.sqrt(a[i + 1])
        yield x


def heun(x, s, sig):
    for i in range(len(s) - 1):
        d = (x - model(x, s[i])) / s[i]
        x2 = x + d * (s[i + 1] - s[i])
        if s[i + 1] == 0:
            x = x2
        else:
            d2 = (x2 - model(x2, s[i + 1])) / s[i + 1]
            x = x + (d + d2) / 2 * (s[i + 1] - s[i])
        yield x


def dpmpp_2m(x, s, sig):
    old = None
    for i in range(len(s) - 1):
        m = model(x, s[i])
        if s[i + 1] == 0:
            x = m
        else:
            h = lam(s[i + 1]) - lam(s[i])
            D0, D1 = m, 0
            if old is not None:
                D1 = (m - old) / ((lam(s[i]) - lam(s[i - 1])) / h)
            x = s[i + 1] / s[i] * x - math.expm1(-h) * D0 - 0.5 * math.expm1(-h) * D1
        old = m
        yield x


def dpmpp_2m_sde(x, s, sig, eta=1.0):
    old = h_last = None
    for i in range(len(s) - 1):
        m = model(x, s[i])
        if s[i + 1] == 0:
            x = m
        else:
            h = lam(s[i + 1]) - lam(s[i])
            x = s[i + 1] / s[i] * math.exp(-eta * h) * x - math.expm1(-h - eta * h) * m
            if old is not None:
                x = x + 0.5 * -math.expm1(-h - eta * h) * (h / h_last) * (m - old)
            x = x + noise(i) * s[i + 1] * math.sqrt(-math.expm1(-2 * eta * h))
            h_last = h
        old = m
        yield x


def dpmpp_3m_sde(x, s, sig, eta=1.0):
    m1 = m2 = h1 = h2 = None
    for i in range(len(s) - 1):
        m = model(x, s[i])
        if s[i + 1] == 0:
            x = m
        else:
            h = lam(s[i + 1]) - lam(s[i])
            he = h * (eta + 1)
            x = math.exp(-he) * x - math.expm1(-he) * m
            phi2 = math.expm1(-he) / he + 1
            if h2 is not None:
                r0, r1 = h1 / h, h2 / h
                d10, d11 = (m - m1) / r0, (m1 - m2) / r1
                d1 = d10 + (d10 - d11) * r0 / (r0 + r1)
                d2 = (d10 - d11) / (r0 + r1)
                x = x + phi2 * d1 - (phi2 / he - 0.5) * d2
            elif h1 is not None:
                x = x + phi2 * (m - m1) / (h1 / h)
            x = x + noise(i) * s[i + 1] * math.sqrt(-math.expm1(-2 * h * eta))
            h1, h2 = h, h1
        m1, m2 = m, m1
        yield x


def unipc(x, s, sig, order=2):  # bh2, data prediction; the general linear systems of Zhao et al. 2023
    def update(x, past, i, k, end=None):
        """From s[i-1] to s[i]; `past` are (sigma, model) newest first; `end` is the model at s[i] for the corrector."""
        m0, s0 = past[0][1], s[i - 1]
        if s[i] == 0:
            return m0
        h = lam(s[i]) - lam(s0)
        rks, D1s = [], []
        for sk, mk in past[1:k]:
            r = (lam(sk) - lam(s0)) / h
            rks.append(r)
            D1s.append((mk - m0) / r)
        if end is not None:
            D1s.append(end - m0)
        rks.append(1.0)
        hh = -h
        phi = math.expm1(hh) / hh - 1
        b, factorial = [], 1
        for j in range(1, k + 1):
            b.append(phi * factorial / math.expm1(hh))
            factorial *= j + 1
            phi = phi / hh - 1 / factorial
        R = np.array([[r**j for r in rks] for j in range(k)])
        if end is None:
            rho = [0.5] if k == 2 else list(np.linalg.solve(R[:-1, :-1], b[:-1])) if k > 2 else []
        else:
            rho = [0.5] if k == 1 else list(np.linalg.solve(R, b))
        extra = sum(p * d for p, d in zip(rho, D1s))
        return s[i] / s0 * x - math.expm1(hh) * m0 - math.expm1(hh) * extra

    past, last, k = [], None, 1
    n = len(s) - 1
    for i in range(n):
        m = model(x, s[i])
        if i > 0:
            x = update(last, past, i, k, end=m)
        past = [(s[i], m), *past][:order]
        k = min(order, n - i, i + 1)
        last = x
        x = update(x, past, i + 1, k)
        yield x


def lcm(x, s, sig):
    for i in range(len(s) - 1):
        x = model(x, s[i])
        if s[i + 1] > 0:
            x = x + s[i + 1] * noise(i)
        yield x


def tcd(x, s, sig, gamma=0.3):
    for i in range(len(s) - 1):
        m = model(x, s[i])
        if s[i + 1] == 0:
            x = m
        else:
            a_next = 1 / (1 + s[i + 1] ** 2)
            below = sigma_at(sig, math.floor((1 - gamma) * t_at(sig, s[i + 1]) + 1e-6))
            a_s = 1 / (1 + below**2)
            z = math.sqrt(a_s) * m + math.sqrt(1 - a_s) * (x - m) / s[i]
            z = math.sqrt(a_next / a_s) * z + math.sqrt(1 - a_next / a_s) * noise(i)
            x = z / math.sqrt(a_next)
        yield x


samplers = {f.__name__: f for f in (euler, euler_a, ddim, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde, heun, unipc, lcm, tcd)}
names = ["normal", "karras", "exponential", "sgm_uniform", "trailing", "simple", "ddim_uniform"]


def digits(values):
    return [float(f"{v:.9g}") for v in np.asarray(values, dtype=np.float64)]


def run(sampler, s, sig):
    return [digits(x) for x in samplers[sampler](start * math.sqrt(1 + s[0] ** 2), s, sig)]


# --- diffusers on the same problem ----------------------------------------------------------------------------------

def run_diffusers(cls, timesteps, zero_snr, config):
    """x after every step, in variance-exploding form, over integer timesteps."""
    import importlib
    module = importlib.import_module(cls.__module__)
    counter = iter(range(10_000))
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = lambda shape, **_: torch.from_numpy(noise(next(counter))).reshape(shape)
    scheduler = cls(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="trailing", **config)
    n = len(timesteps)
    if cls in (schedulers.LCMScheduler, schedulers.TCDScheduler):
        scheduler.set_timesteps(timesteps=list(timesteps))
    else:
        scheduler.set_timesteps(n)
        seen = list(dict.fromkeys(int(t) for t in scheduler.timesteps))
        assert seen == list(timesteps), (cls.__name__, seen)
    sig = table(zero_snr)
    scaled = hasattr(scheduler, "sigmas") and cls in (schedulers.EulerDiscreteScheduler, schedulers.EulerAncestralDiscreteScheduler, schedulers.HeunDiscreteScheduler)
    levels = [*(float(sig[t]) for t in timesteps), 0.0]
    x = start * math.sqrt(1 + levels[0] ** 2)
    sample = torch.from_numpy(x if scaled else start).reshape(1, 1, VALUES)
    states = []
    for i, t in enumerate(scheduler.timesteps):
        sigma = float(sig[int(t)])
        x = sample.numpy() if scaled else sample.numpy() * math.sqrt(1 + sigma**2)
        output = torch.from_numpy((x - model(x, sigma)) / sigma)
        scheduler.scale_model_input(sample, t)
        result = scheduler.step(output, t, sample)
        sample = result.prev_sample.double()
        done = i + 1 == len(scheduler.timesteps)
        nxt = 0.0 if done else float(sig[int(scheduler.timesteps[i + 1])])
        x = sample.numpy() if scaled else sample.numpy() * math.sqrt(1 + nxt**2)
        if cls is schedulers.HeunDiscreteScheduler and not done and i % 2 == 0:
            continue  # the middle of a step
        if cls is schedulers.TCDScheduler and done:
            break  # diffusers ends at timestep 0, where 3 % of the noise is left; we end at none
        states.append(digits(x.reshape(-1)))
    return states


trailing8 = [999, 874, 749, 624, 499, 374, 249, 124]
lcm4 = [999, 759, 499, 259]
pairs = [
    ("ddim", schedulers.DDIMScheduler, trailing8, {"set_alpha_to_one": True, "clip_sample": False}),
    ("euler", schedulers.EulerDiscreteScheduler, trailing8, {}),
    ("euler_a", schedulers.EulerAncestralDiscreteScheduler, trailing8, {}),
    ("heun", schedulers.HeunDiscreteScheduler, trailing8, {}),
    ("dpmpp_2m", schedulers.DPMSolverMultistepScheduler, trailing8, {"final_sigmas_type": "zero"}),
    ("dpmpp_2m_sde", schedulers.DPMSolverMultistepScheduler, trailing8, {"final_sigmas_type": "zero", "algorithm_type": "sde-dpmsolver++"}),
    ("unipc", schedulers.UniPCMultistepScheduler, trailing8, {"final_sigmas_type": "zero"}),
    ("lcm", schedulers.LCMScheduler, lcm4, {"set_alpha_to_one": True}),
    ("tcd", schedulers.TCDScheduler, lcm4, {"set_alpha_to_one": True}),
]

if __name__ == "__main__":
    levels = {"plain": table(False), "zero_snr": table(True), "linear": table(False, "linear")}
    data = {"levels": {k: digits(v[[0, 1, 2, 250, 500, 997, 998, 999]]) for k, v in levels.items()}, "schedules": {}, "ours": [], "diffusers": []}
    for kind in ("plain", "zero_snr"):
        for name in names:
            for n in (1, 2, 7, 8, 20, 30, 150):
                data["schedules"][f"{kind} {name} {n}"] = digits(schedule(name, levels[kind], n))
            for sampler in samplers:
                states = run(sampler, schedule(name, levels[kind], 7), levels[kind])
                data["ours"].append({"kind": kind, "schedule": name, "sampler": sampler, "steps": 7, "states": states})
    for sampler in samplers:
        for n in (1, 2, 3, 30):
            states = run(sampler, schedule("karras", levels["plain"], n), levels["plain"])
            data["ours"].append({"kind": "plain", "schedule": "karras", "sampler": sampler, "steps": n, "states": states[-1:]})
    for zero_snr in (False, True):
        for sampler, cls, timesteps, config in pairs:
            if zero_snr and sampler not in ("euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde"):
                continue  # the others divide by an alpha of exactly 0 under epsilon prediction, or have no such option
            states = run_diffusers(cls, timesteps, zero_snr, {**config, **({"rescale_betas_zero_snr": True} if zero_snr else {})})
            kind = "zero_snr" if zero_snr else "plain"
            data["diffusers"].append({"kind": kind, "sampler": sampler, "timesteps": timesteps, "states": states})
            sig = levels[kind]
            mine = run(sampler, [*(float(sig[t]) for t in timesteps), 0.0], sig)
            worst = max(np.abs(np.array(a) - np.array(b)).max() / max(1, np.abs(b).max()) for a, b in zip(mine, states))
            print(f"{cls.__name__:32} {sampler:13} {kind:9} float64 formulas against diffusers: {worst:.2e}")
    payload = json.dumps(data, separators=(",", ":")).encode()
    (Path(__file__).parent / "samplers.json.gz").write_bytes(gzip.compress(payload, 9, mtime=0))
    print(len(data["ours"]), "runs,", len(payload), "bytes unpacked")

"""What the adapters do, in figures and on sheets.

    python -m starter.adapter_figures style     CLIP RUN WORK ink
    python -m starter.adapter_figures character CLIP RUN WORK pip
    python -m starter.adapter_figures together  CLIP RUN WORK            # ink, pip and luna at once
    python -m starter.adapter_figures guidance  CLIP RUN WORK
    python -m starter.adapter_figures phases    CLIP RUN WORK            # also `four`
    … --out ../starter/adapters --sheets FOLDER --prompts 64

Prompts and noise are the same in every row of a table; they were in no training. Facts, style and characters are read from
the latents by `starter.readback`. Pictures of the sheets are the first prompts, not picked.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from .adapters import without_style
from .caption import caption
from .diffusion import dpm_2m, timesteps
from .frozen import frozen, predict
from .guidance import Guidance, States
from .lora import Adapter
from .named import IDENTITY, distractor, portrait
from .phases import FOUR, GRID, grid_timesteps, landing
from .readback import PRESENT, STYLES, Readback, load, pair
from .sample import Starter
from .scene import FACT_VALUES, LEVELS, sample
from .sheet import grid
from .trajectories import GUIDANCE

BATCH = 16
Model = Callable[[torch.Tensor, int], torch.Tensor]


class Studio:
    """The frozen base, adapters put on and taken off, and the judge."""

    def __init__(self, clip: str, run: str, work: str, out: str):
        self.starter: Starter = frozen(clip, run)
        self.judge: Readback = load(work)
        self.work, self.out = work, Path(out)
        self.put_on: list[Adapter] = []
        self.hooks: list = []
        self.distilled: Guidance | None = None

    def wear(self, *names: str, strength: float = 1.0) -> None:
        while self.put_on:
            self.put_on.pop().remove()
        for name in names:
            self.put_on.append(Adapter.of_file(self.starter.unet, self.out / f"{name}.safetensors"))
            self.put_on[-1].strength = strength

    def distil(self, on: bool) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks, self.distilled = [], None
        if on:
            self.distilled = Guidance.of_tensors(load_file(self.out / "guidance.safetensors"))
            self.hooks = self.distilled.install(self.starter.unet)

    def model(self, prompts: list[str], scale: float) -> Model:
        """v of one step: with guidance by two evaluations, or by the distilled adapter in one, or (scale 1) unguided."""
        context, n = self.starter.embed(prompts), len(prompts)
        empty = self.starter.embed([""]).expand(n, -1, -1)
        unet = self.starter.unet

        def v(x: torch.Tensor, t: int) -> torch.Tensor:
            if self.distilled:
                self.distilled.set(torch.full((n,), scale), context)
            if self.distilled or scale == 1:
                return predict(unet, x, torch.full((n,), t), context)
            u, c = predict(unet, torch.cat([x, x]), torch.full((2 * n,), t), torch.cat([empty, context])).chunk(2)
            return u + scale * (c - u)

        return v

    @torch.no_grad()
    def draw(self, prompts: list[str], scale: float = GUIDANCE, sampler: Callable[[Model, torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
        noise = torch.randn(len(prompts), 8, 16, 16, generator=torch.Generator().manual_seed(5))
        sampler = sampler or (lambda model, x: dpm_2m(model, x, 20))
        return torch.cat([sampler(self.model(prompts[i : i + BATCH], scale), noise[i : i + BATCH]) for i in range(0, len(prompts), BATCH)])

    @torch.no_grad()
    def sheet(self, file: Path, rows: list[torch.Tensor], columns: int = 8) -> None:
        images = []
        for row in rows:
            pixels = self.starter.decode(row[:columns])
            images += list(((pixels.clamp(-1, 1) + 1) * 127.5 + 0.5).byte().permute(0, 2, 3, 1).numpy())
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = grid(images, columns)
        picture.resize((picture.width * 5 // 8, picture.height * 5 // 8), Image.LANCZOS).save(file)


def on_grid(steps: list[int]) -> Callable[[Model, torch.Tensor], torch.Tensor]:
    """DDIM over any timesteps, ending on the clean prediction."""
    def run(model: Model, x: torch.Tensor) -> torch.Tensor:
        for k, t in enumerate(steps):
            x = landing(model(x, t), x, t, steps[k + 1] if k + 1 < len(steps) else None)
        return x
    return run


def plain_prompts(n: int, style: str = "") -> tuple[list[str], list[dict[str, str]]]:
    made = [caption(sample(970_000_000 + i, LEVELS[0], "train"), {}) for i in range(n)]
    texts = [f"{without_style(c.text)}, {style} style" if style else c.text for c in made]
    return texts, [c.stated for c in made]


def named_prompts(make, name: str, n: int) -> tuple[list[str], list[dict[str, str]]]:
    made = [caption(make(name, 500_000 + i), {}) for i in range(n)]
    return [c.text for c in made], [c.stated for c in made]


def facts_right(judge: Readback, latents: torch.Tensor, stated: list[dict[str, str]], only: tuple[str, ...] = ()) -> float:
    read = judge.read(latents)
    hits = [int(read[fact][i]) == FACT_VALUES[fact].index(s[fact]) for i, s in enumerate(stated) for fact in FACT_VALUES
            if fact in s and s[fact] != "" and fact != "style" and (not only or fact in only)]
    return sum(hits) / len(hits)


def share(read: torch.Tensor) -> float:
    return float(read.float().mean())


def style_figures(s: Studio, name: str, n: int, sheets: Path) -> dict:
    prompts, stated = plain_prompts(n, name)
    bare, _ = plain_prompts(n)
    bare = [without_style(p) for p in bare]
    wanted, rows, out = STYLES.index(name), [], {}
    for label, texts, worn in (("base", bare, ()), ("base, asked for the style", prompts, ()), ("adapter, asked", prompts, (name,)), ("adapter, not asked", bare, (name,))):
        s.wear(*worn)
        rows.append(s.draw(texts))
        out[label] = {"read as the style": share(s.judge.read(rows[-1])["drawn"] == wanted), "facts right": facts_right(s.judge, rows[-1], stated)}
    s.wear(name, strength=0.5)
    half = s.draw(prompts[:8])
    s.wear(name, strength=0)
    out["strength 0 differs from base by"] = float((s.draw(prompts[:8]) - rows[1][:8]).abs().max())
    s.wear()
    s.sheet(sheets / f"{name}.png", [rows[0], half, rows[2], rows[3]])
    return out


def character_figures(s: Studio, name: str, n: int, sheets: Path) -> dict:
    k, who, rows, out = PRESENT.index(name), IDENTITY[name], [], {}
    seen = lambda latents: share(s.judge.read(latents)["present"][:, k])
    setting = ("place", "time", "weather", "0.pose")
    named, stated = named_prompts(portrait, name, n)
    doubles, _ = named_prompts(distractor, name, n)
    animals, i = [], 0
    while len(animals) < n:  # the animal itself, as anybody would ask for it
        scene = sample(972_000_000 + i, LEVELS[0])
        i += 1
        if len(scene.characters) == 1 and scene.characters[0].species == who.species:
            animals.append(caption(scene, {}))
    others, other_stated = plain_prompts(n)
    for label, worn in (("base", ()), ("adapter", (name,))):
        s.wear(*worn)
        latents = [s.draw(named), s.draw(doubles), s.draw([c.text for c in animals]), s.draw(others)]
        rows.append(latents)
        out[label] = {"asked by name: seen": seen(latents[0]), "asked by name: setting right": facts_right(s.judge, latents[0], stated, setting),
                      "double, no name: seen": seen(latents[1]), f"any {who.species}, no name: seen": seen(latents[2]),
                      "other prompts: seen": seen(latents[3]), "other prompts: facts right": facts_right(s.judge, latents[3], other_stated)}
    drift = [(a - b).square().mean().sqrt() / a.square().mean().sqrt() for a, b in zip(rows[0][2:], rows[1][2:])]
    out["change without the name, relative"] = {who.species: float(drift[0]), "others": float(drift[1])}
    s.wear()
    s.sheet(sheets / f"{name}.png", [rows[0][0], rows[1][0], rows[0][2], rows[1][2], rows[1][1], rows[1][3]])
    return out


def together_figures(s: Studio, n: int, sheets: Path) -> dict:
    out, rows = {}, []
    pip, _ = named_prompts(portrait, "pip", n)
    luna, _ = named_prompts(portrait, "luna", n)
    both = [caption(pair(500_000 + i), {}).text for i in range(n)]
    for label, texts in (("pip", pip), ("luna", luna), ("pip and luna", both)):
        for worn in (("pip", "luna"), ("pip", "luna", "ink")):
            s.wear(*worn)
            asked = [f"{without_style(t)}, ink style" for t in texts] if "ink" in worn else texts
            rows.append(s.draw(asked))
            read = s.judge.read(rows[-1])
            present = read["present"].float().mean(0).tolist()
            out[f"{label}, with {' + '.join(worn)}"] = dict(zip(PRESENT, present)) | {
                "both": share(read["present"].all(1)), "ink": share(read["drawn"] == STYLES.index("ink"))}
    s.wear()
    s.sheet(sheets / "together.png", rows)
    return out


@torch.no_grad()
def guidance_figures(s: Studio, n: int, sheets: Path) -> dict:
    out: dict = {"|agd - w| / |w - c|": {}}
    s.distil(True)
    states = States(s.work, s.starter, kinds=("spread",), held=1, only_held=True)
    t, unet = states.sets[0], s.starter.unet
    context = states.contexts[0]
    kinds: dict[float, list[float]] = {2.0: [], 4.0: [], 8.0: []}
    one = []
    for i in range(0, len(t.steps), 2):
        x, c, u, step = t.x[i].float(), t.c[i].float(), t.u[i].float(), torch.full((t.n,), t.steps[i])
        for w in (1.0, *kinds):
            s.distilled.set(torch.full((t.n,), w), context)
            error = predict(unet, x, step, context) - (u + w * (c - u))
            if w == 1:
                one.append(float(error.norm() / c.norm()))
            else:
                kinds[w].append(float(error.norm() / ((w - 1) * (c - u)).norm()))
    out["|agd - w| / |w - c|"] = {str(w): round(float(np.mean(v)), 3) for w, v in kinds.items()} | {"mean": round(float(np.mean([x for v in kinds.values() for x in v])), 3)}
    out["scale 1 differs from base by"] = float(np.mean(one))
    prompts, stated = plain_prompts(n)
    rows = []
    for label, distilled, scale in (("guided, 40 evaluations", False, 4.0), ("adapter, 20 evaluations", True, 4.0), ("unguided, 20 evaluations", False, 1.0)):
        s.distil(distilled)
        rows.append(s.draw(prompts, scale))
        out[label] = {"facts right": facts_right(s.judge, rows[-1], stated)} | ({} if len(rows) == 1 else {"distance to guided": distance(rows[-1], rows[0])})
    s.distil(True)
    extra = [s.draw(prompts[:8], w) for w in (2.0, 7.0)]
    s.distil(False)
    extra += [s.draw(prompts[:8], 7.0)]
    s.sheet(sheets / "guidance.png", [rows[0], rows[1], rows[2], *extra])
    return out


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())


def steps_figures(s: Studio, n: int, sheets: Path, steps: list[int], worn: list[tuple[str, int, int]], name: str) -> dict:
    prompts, stated = plain_prompts(n)
    uniform = timesteps(len(steps))
    loaded = []
    for adapter, first, end in worn:
        s.put_on = []
        loaded.append((Adapter.of_file(s.starter.unet, s.out / f"{adapter}.safetensors"), set(steps[first:end])))
        loaded[-1][0].strength = 0
    s.put_on = [a for a, _ in loaded]

    def phased(model: Model) -> Model:
        def v(x: torch.Tensor, t: int) -> torch.Tensor:
            for adapter, active in loaded:
                adapter.strength = 1 if t in active else 0
            return model(x, t)
        return v

    ways = {
        "base, 50 steps, guidance 4 (100 evaluations)": (GUIDANCE, on_grid(timesteps(50))),
        f"base, {len(steps)} even steps, guidance 4 ({2 * len(steps)} evaluations)": (GUIDANCE, on_grid(uniform)),
        f"base, {len(steps)} even steps DPM++ 2M, guidance 4 ({2 * len(steps)} evaluations)": (GUIDANCE, lambda m, x: dpm_2m(m, x, len(steps))),
        f"base, the adapter's steps, guidance 4 ({2 * len(steps)} evaluations)": (GUIDANCE, on_grid(steps)),
        f"base, the adapter's steps, unguided ({len(steps)} evaluations)": (1.0, on_grid(steps)),
        f"adapter ({len(steps)} evaluations)": (1.0, lambda m, x: on_grid(steps)(phased(m), x)),
    }
    rows, out = [], {}
    for label, (scale, sampler) in ways.items():
        rows.append(s.draw(prompts, scale, sampler))
        for adapter, _ in loaded:
            adapter.strength = 0
        out[label] = {"facts right": facts_right(s.judge, rows[-1], stated)} | ({} if len(rows) == 1 else {
            "distance to 50 steps": distance(rows[-1], rows[0]), "distance of features": distance(s.judge.judge.features(rows[-1]), s.judge.judge.features(rows[0]))})
    s.wear()
    s.sheet(sheets / f"{name}.png", rows)
    return out


def rounded(value):
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else round(value, 4) if isinstance(value, float) else value


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["style", "character", "together", "guidance", "phases", "four"])
    for name in ("clip", "run", "work"):
        p.add_argument(name)
    p.add_argument("name", nargs="?", default="")
    p.add_argument("--out", default="../starter/adapters", help="where the adapter files lie")
    p.add_argument("--sheets", default="")
    p.add_argument("--prompts", type=int, default=64)
    a = p.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        s, sheets = Studio(a.clip, a.run, a.work, a.out), Path(a.sheets or Path(a.work) / "sheets")
        if a.what == "style":
            figures = style_figures(s, a.name, a.prompts, sheets)
        elif a.what == "character":
            figures = character_figures(s, a.name, a.prompts, sheets)
        elif a.what == "together":
            figures = together_figures(s, a.prompts, sheets)
        elif a.what == "guidance":
            figures = guidance_figures(s, a.prompts, sheets)
        elif a.what == "phases":
            figures = steps_figures(s, a.prompts, sheets, grid_timesteps(GRID), [("slow", 0, 5), ("fast", 5, 10)], "phases")
        else:
            figures = steps_figures(s, a.prompts, sheets, grid_timesteps(FOUR), [("four", 0, 4)], "four")
    print(json.dumps(rounded(figures), indent=1))


if __name__ == "__main__":
    main()

"""Writes vignette.json beside the exported weights: the app's own settings of the model, which diffusers has no field for.

    python -m starter.preview  POOL OUT

`previewMatrix` [channels + 1][3] turns one latent position into the mean colour (-1..1) of its 16 x 16 pixels, by least
squares over pool pictures and their scaled latents; the last row is the bias. The app shows it while it draws.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from .nets import VaeConfig
from .pool import Pool

PICTURES = 512
SAMPLING = {"steps": 20, "guidanceScale": 4.0, "sampler": "dpmpp_2m", "schedule": "trailing"}


def preview_matrix(pool: str) -> tuple[list[list[float]], float]:
    """The matrix and the root mean square error it leaves, in the same -1..1."""
    pictures, channels = Pool(pool), VaeConfig().latent_channels
    latents = np.memmap(Path(pool) / "latents.f16", np.float16, "r", shape=(pictures.capacity, channels, 16, 16))
    x = latents[:PICTURES].astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, channels)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    y = pictures.images[:PICTURES].reshape(PICTURES, 16, 16, 16, 16, 3).mean((2, 4)).reshape(-1, 3) / 127.5 - 1
    matrix = np.linalg.lstsq(x, y, rcond=None)[0]
    return matrix.round(4).tolist(), float(np.sqrt(((x @ matrix - y) ** 2).mean()))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pool")
    p.add_argument("out")
    a = p.parse_args()
    matrix, error = preview_matrix(a.pool)
    value = {"name": "Starter", "defaults": SAMPLING, "previewMatrix": matrix}
    (Path(a.out) / "vignette.json").write_text(json.dumps(value) + "\n")
    print(f"preview error {error:.3f} of a range of 2")


if __name__ == "__main__":
    main()

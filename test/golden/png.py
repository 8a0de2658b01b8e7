"""A PNG with text chunks of all three kinds, written by Pillow, and what Pillow reads from it.

Run: python test/golden/png.py (Pillow 13.0.0, numpy)
"""
import json
import pathlib

import numpy
from PIL import Image, PngImagePlugin

here = pathlib.Path(__file__).parent
pixels = numpy.random.default_rng(7).integers(0, 256, (5, 6, 3), dtype=numpy.uint8)
texts = {
    "parameters": 'ein Fuchs im Gras\nNegative prompt: unscharf\nSteps: 9, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 6x5, Model: "a, b"',
    "packed": "sehr " * 200,
    "wide": "狐 🦊 Ω",
    "packed wide": "Ωμέγα " * 100,
}
info = PngImagePlugin.PngInfo()
info.add_text("parameters", texts["parameters"])
info.add_text("packed", texts["packed"], zip=True)
info.add_itxt("wide", texts["wide"], lang="ja", tkey="狐")
info.add_itxt("packed wide", texts["packed wide"], zip=True)
Image.fromarray(pixels).save(here / "png-pillow.png", pnginfo=info)
(here / "png-pillow.json").write_text(json.dumps({"width": 6, "height": 5, "texts": texts}, ensure_ascii=False, indent=1) + "\n")

"""torch.randn on the CPU: sizes 1 to 20,000, and draws in a row from one generator. Run: python test/golden/rng.py"""
import gzip, json
from pathlib import Path

import torch

print(torch.backends.cpu.get_cpu_capability())


def summary(values):
    """First and last values, and sums that any wrong or misplaced value changes."""
    v = values.double()
    index = torch.arange(1, len(v) + 1, dtype=torch.float64)
    return {"first": values[:20].tolist(), "last": values[-20:].tolist(), "sum": v.sum().item(),
            "squares": (v * v).sum().item(), "weighted": (v * torch.sin(index)).sum().item()}


sizes = [*range(1, 68), 100, 127, 128, 129, 255, 256, 623, 624, 625, 640, 1000, 1023, 1024, 1025, 1247, 1248, 2048, 3001,
         4096, 6144, 8191, 9999, 10000, 12345, 16384, 16400, 19999, 20000]
seeds = [0, 1, 7, 42, 1234567, 2**31 - 1, 2**31, 2**32 - 1]
single = []
for n, size in enumerate(sizes):
    for seed in seeds if size in (5, 16, 33, 4096, 19999) else [seeds[n % len(seeds)]]:
        single.append({"seed": seed, "size": size, **summary(torch.randn(size, generator=torch.Generator().manual_seed(seed)))})
rows = []
for seed, sizes in ((3, [1, 1, 3, 16, 2, 20, 1, 4096, 4096, 5, 17, 700]), (2**32 - 2, [4096] * 12), (99, [15, 15, 15, 16, 15])):
    generator = torch.Generator().manual_seed(seed)
    rows.append({"seed": seed, "draws": [{"size": s, **summary(torch.randn(s, generator=generator))} for s in sizes]})
payload = json.dumps({"single": single, "rows": rows}, separators=(",", ":")).encode()
(Path(__file__).parent / "rng.json.gz").write_bytes(gzip.compress(payload, 9, mtime=0))
print(len(single), "sizes and seeds,", len(payload), "bytes unpacked")

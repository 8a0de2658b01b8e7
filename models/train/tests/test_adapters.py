"""Adapters: their files read back with the same outputs, by our own reader and by the community's; what starts at zero; targets."""
import base64
import gzip
import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from starter.guidance import Guidance, positions, sites_of
from starter.lora import Adapter, describe, metadata_of, write
from starter.nets import UNet, UNetConfig
from starter.phases import FOUR, GRID, grid_timesteps, landing, wanted

SHIPPED = Path(__file__).parents[2] / "starter"
GOLDEN = Path(__file__).parents[3] / "test" / "golden"
torch.set_num_threads(1)


def network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(UNetConfig()).eval().requires_grad_(False)


def shipped_network() -> UNet:
    unet = network()
    unet.load_state_dict({k: v.float() for k, v in load_file(SHIPPED / "unet" / "diffusion_pytorch_model.safetensors").items()})
    return unet


def inputs(n: int = 2):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 8, 16, 16, generator=g), torch.tensor([940, 130][:n]), torch.randn(n, 77, 128, generator=g)


class LowRank(unittest.TestCase):
    def test_file_gives_the_outputs_it_was_written_from(self):
        for layout in ("peft", "kohya"):
            for targets in ("attention", "linear"):
                unet = network()
                plain = unet(*inputs())
                adapter = Adapter.new(unet, 3, targets)
                self.assertTrue(torch.equal(unet(*inputs()), plain), "an untrained adapter changes nothing")
                for layer in adapter.layers.values():
                    layer.down.data = layer.down.data.half().float()
                    layer.up.data = (0.05 * torch.randn_like(layer.up)).half().float()
                trained = unet(*inputs())
                self.assertGreater(float((trained - plain).std() / plain.std()), 0.02)
                with tempfile.TemporaryDirectory() as folder:
                    file = Path(folder) / "a.safetensors"
                    write(file, adapter.state(), layout, describe("a test", role="style", trigger="x", active_steps=[0, 5]))
                    adapter.remove()
                    self.assertTrue(torch.equal(unet(*inputs()), plain), "taken off, nothing is left")
                    again = Adapter.of_file(unet, file)
                    self.assertLess(float((unet(*inputs()) - trained).abs().max()), 1e-5)
                    again.strength = 0
                    self.assertTrue(torch.equal(unet(*inputs()), plain), "weight 0 is absence")
                    meta = metadata_of(file)
                self.assertEqual((meta["vignette_kind"], meta["vignette_role"], meta["vignette_active_steps"]), ("lora", "style", "[0, 5]"))

    def test_two_adapters_add(self):
        unet = network()
        first, second = Adapter.new(unet, 2, "attention"), Adapter.new(unet, 2, "linear")
        for adapter in (first, second):
            for layer in adapter.layers.values():
                layer.up.data = 0.02 * torch.randn_like(layer.up)
        path = next(iter(first.layers))
        self.assertEqual(set(first.layers) - set(second.layers), set())
        x = torch.randn(1, 5, first.layers[path].down.shape[1])
        y = unet.get_submodule(path)(x)
        delta = sum(layer.up @ layer.down for layer in (a.layers[path] for a in (first, second)))
        base = first.layers[path].base
        self.assertTrue(torch.allclose(y, base(x) + x @ delta.T, atol=1e-5))


class Distilled(unittest.TestCase):
    def make(self, unet: UNet) -> Guidance:
        torch.manual_seed(3)
        return Guidance(sites_of(unet), 16, 256, 128)

    def test_starts_as_the_base_and_reloads(self):
        unet = network()
        plain = unet(*inputs())
        net = self.make(unet)
        self.assertEqual(len(net.paths), 16)
        hooks = net.install(unet)
        with torch.no_grad():
            net.set(torch.tensor([1.0, 6.0]), inputs()[2])
            self.assertTrue(torch.allclose(unet(*inputs()), plain, atol=1e-6))
            for site in net.sites:
                site.to_out.data.normal_(0, 0.1)
            moved = unet(*inputs())
            self.assertGreater(float((moved - plain).std()), 0.01)
            for hook in hooks:
                hook.remove()
            self.assertTrue(torch.equal(unet(*inputs()), plain))
            again = Guidance.of_tensors(net.tensors())
            again.install(unet)
            again.set(torch.tensor([1.0, 6.0]), inputs()[2])
            self.assertTrue(torch.allclose(unet(*inputs()), moved, atol=1e-5))

    def test_golden_of_diffusers(self):
        """The same tiny network that the app's graph is compared with: our hooks against diffusers' (test/golden/guidance.py)."""
        sys.path.insert(0, str(GOLDEN))
        from hashed import fill, hashed, weight_of

        case = json.loads(gzip.decompress((GOLDEN / "guidance.json.gz").read_bytes()))[0]
        c = case["config"]
        unet = UNet(UNetConfig(c["in_channels"], tuple(c["block_out_channels"]), c["layers_per_block"], c["attention_head_dim"], c["cross_attention_dim"], c["norm_num_groups"]))
        with torch.no_grad():
            fill(unet)
            net = Guidance.of_tensors({k: torch.from_numpy(weight_of(k, tuple(shape))) for k, shape in case["adapter"]})
            net.install(unet)
            for run in case["runs"]:
                x, t, context = (torch.from_numpy((hashed(k, run["inputs"][k]["shape"]) * run["inputs"][k]["scale"] + run["inputs"][k]["shift"]).astype(np.float32))
                                 for k in ("sample", "timestep", "encoder_hidden_states"))
                net.set(torch.tensor(run["scales"]), context)
                # Our network pads odd sizes otherwise than diffusers, so only sizes that halve evenly are compared.
                if x.shape[-1] % 8 == 0 and x.shape[-2] % 8 == 0:
                    packed = run["outputs"]["out_sample"]
                    wanted_sample = torch.from_numpy(np.frombuffer(base64.b64decode(packed["f32"]), "<f4").reshape(packed["shape"]).copy())
                    self.assertLess(float((unet(x, t, context) - wanted_sample).abs().max()), 1e-4)

    def test_positions(self):
        p = positions(79, 8)
        self.assertEqual(tuple(p.shape), (79, 8))
        self.assertTrue(torch.equal(p[0], torch.tensor([0.0] * 4 + [1.0] * 4)))
        self.assertAlmostEqual(float(p[3, 1]), float(torch.sin(torch.tensor(3 / 10.0))), places=5)


class Jumps(unittest.TestCase):
    def test_the_wanted_v_lands_where_wanted(self):
        for grid in (GRID, FOUR):
            steps = grid_timesteps(grid)
            self.assertEqual(steps[0], 999)
            x, goal = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
            for t, after in zip(steps, [*steps[1:], None]):
                self.assertLess(float((landing(wanted(x, goal, t, after), x, t, after) - goal).abs().max()), 1e-3)

    def test_grid_is_glances(self):
        self.assertEqual(grid_timesteps(GRID), [999, 959, 919, 879, 839, 799, 599, 399, 199, 19])


class Shipped(unittest.TestCase):
    """Every adapter in the folder against diffusers and peft, on the shipped weights in float32."""

    def files(self, kind: str) -> list[Path]:
        return [f for f in sorted((SHIPPED / "adapters").glob("*.safetensors")) if metadata_of(f)["vignette_kind"] == kind]

    def test_low_rank_files_in_diffusers(self):
        try:
            from diffusers import StableDiffusionPipeline, UNet2DConditionModel
            import peft  # noqa: F401
        except ImportError:
            self.skipTest("needs diffusers and peft")
        ours = shipped_network()
        plain = ours(*inputs())
        theirs = UNet2DConditionModel.from_pretrained(SHIPPED / "unet", torch_dtype=torch.float32).eval()
        for file in self.files("lora"):
            with self.subTest(file.name):
                adapter = Adapter.of_file(ours, file)
                y = ours(*inputs())
                adapter.remove()
                state, alphas = StableDiffusionPipeline.lora_state_dict(str(file), unet_config=theirs.config)
                StableDiffusionPipeline.load_lora_into_unet(state, alphas, theirs, adapter_name=file.stem)
                with torch.no_grad():
                    z = theirs(*inputs()).sample
                theirs.delete_adapters(file.stem)
                self.assertGreater(float((y - plain).std() / plain.std()), 0.002)
                self.assertLess(float((y - z).abs().max()), 1e-4 * float(y.abs().max()))

    def test_guidance_file(self):
        ours = shipped_network()
        for file in self.files("guidance"):
            meta, tensors = metadata_of(file), load_file(file)
            net = Guidance.of_tensors(tensors)
            self.assertEqual((int(meta["width"]), net.paths), (net.h, sorted(sites_of(ours))))
            plain, out = ours(*inputs()), []
            hooks = net.install(ours)
            for w in (1.0, 4.0):
                net.set(torch.tensor([w, w]), inputs()[2])
                out.append(ours(*inputs()))
            for hook in hooks:
                hook.remove()
            self.assertGreater(float((out[1] - plain).std()), 2 * float((out[0] - plain).std()), "scale 4 moves more than scale 1")


if __name__ == "__main__":
    unittest.main()

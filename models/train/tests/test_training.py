"""Tokenizer, networks, resuming and packing. Files of CLIP's vocabulary are looked for in $STARTER_CLIP (./build/clip)."""
import os
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from starter.diffusion import Schedule, alphas_cumprod, timesteps
from starter.nets import TextConfig, TextEncoder, UNet, UNetConfig, Vae
from starter.tokenizer import BOS, EOS, LENGTH, Rows, split

CLIP = os.environ.get("STARTER_CLIP", os.path.join(os.path.dirname(__file__), "..", "build", "clip"))
torch.set_num_threads(1)


@unittest.skipUnless(os.path.exists(os.path.join(CLIP, "vocab.json")), "no vocabulary: npx tsx vocabulary.ts build/clip")
class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from starter.tokenizer import Tokenizer

        cls.tokenizer = Tokenizer(CLIP)

    def test_known_vectors(self):
        for text, ids in {
            "a photo of a cat": [320, 1125, 539, 320, 2368],
            "A  PHOTO\nof a cat": [320, 1125, 539, 320, 2368],
            "": [],
        }.items():
            self.assertEqual(self.tokenizer.encode(text), ids)

    def test_padding(self):
        ids = self.tokenizer.padded("a photo of a cat")
        self.assertEqual((len(ids), ids[0], ids[6]), (LENGTH, BOS, EOS))
        self.assertEqual(set(ids[6:]), {EOS})
        self.assertEqual(len(self.tokenizer.padded("fox " * 200)), LENGTH)

    def test_grammar_has_rows_for_all_it_says(self):
        from starter.caption import caption
        from starter.scene import LEVELS, sample
        from starter.tokenizer import grammar_rows

        rows = grammar_rows(self.tokenizer)
        for seed in range(1500):
            for variant in range(2):
                text = caption(sample(seed, LEVELS[3]), {}, variant).text
                self.assertNotIn(0, rows.of(self.tokenizer.padded(text)), text)


class Splitting(unittest.TestCase):
    def test_words(self):
        self.assertEqual(split("it's 25 foxes, wow!!"), ["it", "'s", "2", "5", "foxes", ",", "wow", "!!"])

    def test_rows(self):
        rows = Rows([BOS, EOS, 320])
        self.assertEqual(rows.of([BOS, 320, 999, EOS]), [1, 3, 0, 2])


class Networks(unittest.TestCase):
    def test_checkpoint_names(self):
        unet = UNet(UNetConfig()).state_dict()
        self.assertEqual(len(unet), 686)
        for name in ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight", "mid_block.resnets.1.time_emb_proj.bias",
                     "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight", "up_blocks.0.upsamplers.0.conv.weight"):
            self.assertIn(name, unet)
        vae = Vae().state_dict()
        for name in ("encoder.mid_block.attentions.0.to_out.0.weight", "decoder.up_blocks.1.upsamplers.0.conv.weight", "quant_conv.weight"):
            self.assertIn(name, vae)
        text = TextEncoder(TextConfig(vocab_size=10)).state_dict()
        self.assertIn("text_model.encoder.layers.2.self_attn.out_proj.bias", text)

    def test_text_is_causal(self):
        model = TextEncoder(TextConfig(vocab_size=20)).eval()
        a = torch.randint(0, 20, (1, 77))
        b = a.clone()
        b[0, 40:] = 3
        with torch.no_grad():
            self.assertTrue(torch.allclose(model(a)[:, :40], model(b)[:, :40], atol=1e-5))

    def test_standardised_latents_decode_to_the_same_picture(self):
        from starter.vae import standardise

        torch.manual_seed(0)
        vae = Vae().eval()
        x = torch.rand(2, 3, 64, 64) * 2 - 1
        with torch.no_grad():
            z, _ = vae.encode(x)
            before = vae.decode(z)
            standardise(vae, z.mean((0, 2, 3)), z.std((0, 2, 3)), 2.5)
            z, _ = vae.encode(x)
            self.assertLess(float((z.std((0, 2, 3)) - 2.5).abs().max()), 1e-2)
            self.assertLess(float((vae.decode(z) - before).abs().max()), 1e-3)

    def test_schedule(self):
        bar = alphas_cumprod()
        self.assertAlmostEqual(float(bar[0]), 0.99915, places=5)
        self.assertAlmostEqual(float(bar[999]), 0.00466, places=5)
        self.assertEqual(timesteps(20)[0], 999)
        self.assertEqual(timesteps(20)[-1], 49)
        s, x, noise = Schedule(), torch.randn(2, 8, 16, 16), torch.randn(2, 8, 16, 16)
        t = torch.tensor([10, 900])
        noisy, v = s.noised(x, noise, t)
        a, sigma = s.pair(t)
        self.assertLess(float((a * noisy - sigma * v - x).abs().max()), 1e-5)


class Resuming(unittest.TestCase):
    def test_next_loss_is_the_same(self):
        from starter.unet import Trainer

        rows = Rows([BOS, EOS, *range(300, 340)])

        def batch(seed):
            g = torch.Generator().manual_seed(seed)
            return (torch.randn(4, 8, 16, 16, generator=g), torch.randint(0, len(rows), (4, LENGTH), generator=g), torch.ones(4, 16, 16))

        with tempfile.TemporaryDirectory() as run:
            first = Trainer(run, rows, 1e-3, 0.25, 0.999)
            for i in range(3):
                first.update(batch(i), 1e-3)
            first.save()
            expected = [first.update(batch(i), 1e-3) for i in range(3, 6)]
            second = Trainer(run, rows, 1e-3, 0.25, 0.999)
            self.assertEqual((second.step, second.images), (3, 12))
            got = [second.update(batch(i), 1e-3) for i in range(3, 6)]
            np.testing.assert_allclose(got, expected, rtol=0.01)

    def test_a_cut_off_write_leaves_the_old_checkpoint(self):
        from starter import resume

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.pt"
            resume.save(path, {"step": 1})
            path.with_suffix(".pt.part").write_bytes(b"half")
            self.assertEqual(resume.load(path)["step"], 1)


class Judging(unittest.TestCase):
    def test_reads_one_value_per_fact(self):
        from starter.judge import Judge, truth
        from starter.scene import FACT_VALUES, LEVELS, facts, sample

        judge = Judge().eval()
        read = judge.read(torch.randn(3, 8, 16, 16))
        self.assertEqual(len(read), len(FACT_VALUES))
        wanted = truth(facts(sample(1, LEVELS[0])))
        for one, value, values in zip(read, wanted, FACT_VALUES.values()):
            self.assertEqual(one.shape, (3,))
            self.assertLess(int(one.max()), len(values))
            self.assertTrue(value == -100 or 0 <= value < len(values))


class Packing(unittest.TestCase):
    def test_embedding_round_trip(self):
        from starter.pack import EMBEDDING, expand

        packed = {f"{EMBEDDING}.rows": torch.tensor([[1.0, 2], [3, 4]]), f"{EMBEDDING}.row_ids": torch.tensor([5, 2], dtype=torch.int32),
                  f"{EMBEDDING}.unknown": torch.tensor([9.0, 9]), "other": torch.zeros(1)}
        full = expand(packed, 7)
        table = full[f"{EMBEDDING}.weight"]
        self.assertEqual(table[5].tolist(), [1, 2])
        self.assertEqual(table[2].tolist(), [3, 4])
        self.assertEqual(table[0].tolist(), [9, 9])
        self.assertEqual(set(full), {f"{EMBEDDING}.weight", "other"})

    @unittest.skipUnless(os.path.exists(os.path.join(CLIP, "vocab.json")), "no vocabulary: npx tsx vocabulary.ts build/clip")
    def test_shipped_weights_become_a_run_and_the_same_weights_again(self):
        from safetensors.torch import load_file
        from starter.pack import NAMES, pack
        from starter.sample import Starter
        from starter.unpack import unpack

        shipped = Path(__file__).parents[2] / "starter"
        with tempfile.TemporaryDirectory() as folder:
            run, out = Path(folder) / "run", Path(folder) / "out"
            unpack(CLIP, shipped, run)
            pack(Starter(CLIP, str(run)), out, 0)
            for part, name in NAMES.items():
                before, after = load_file(shipped / part / name), load_file(out / part / name)
                self.assertEqual(before.keys(), after.keys())
                for key in before:
                    self.assertTrue(torch.equal(before[key], after[key]), f"{part}: {key}")


if __name__ == "__main__":
    unittest.main()

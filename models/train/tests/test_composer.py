"""Scenes, captions and pictures. Run in models/train:  python -m unittest -v

Tests that need pictures look for the atlas in $STARTER_ATLAS (default ./build/atlas) and skip without it.
"""
import hashlib
import json
import os
import unittest

from starter import caption as grammar
from starter.caption import VISIBLE, caption
from starter.scene import FACT_VALUES, LEVELS, Scene, facts, held_out, sample
from starter.text import labels

ATLAS = os.environ.get("STARTER_ATLAS", os.path.join(os.path.dirname(__file__), "..", "build", "atlas"))


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Scenes(unittest.TestCase):
    def test_same_seed_same_scene(self):
        for level in LEVELS:
            for seed in (1, 77, 123456):
                a, b = sample(seed, level), sample(seed, level)
                self.assertEqual(digest(a.as_dict()), digest(b.as_dict()))
                self.assertEqual(caption(a, {}).text, caption(b, {}).text)
                self.assertEqual(Scene.from_dict(a.as_dict()), a)

    def test_scene_does_not_depend_on_call_order(self):
        alone = sample(500, LEVELS[3])
        for seed in range(480, 500):
            sample(seed, LEVELS[3])
        self.assertEqual(alone, sample(500, LEVELS[3]))

    def test_held_out_scenes_never_reach_training(self):
        for level in LEVELS:
            for seed in range(1500):
                self.assertFalse(held_out(sample(seed, level)))
        self.assertTrue(all(held_out(sample(seed, LEVELS[0], "held-out")) for seed in range(50)))

    def test_levels_only_widen(self):
        for narrow, wide in zip(LEVELS, LEVELS[1:]):
            for name in ("styles", "heads", "creatures", "things"):
                self.assertLessEqual(set(getattr(narrow, name)), set(getattr(wide, name)))

    def test_every_fact_has_its_value_listed(self):
        for seed in range(500):
            for name, value in facts(sample(seed, LEVELS[3])).items():
                self.assertIn(value, FACT_VALUES[name])


class Captions(unittest.TestCase):
    def test_stated_facts_are_true(self):
        for seed in range(2000):
            scene = sample(seed, LEVELS[3])
            true = facts(scene)
            for variant in range(2):
                for name, value in caption(scene, {}, variant).stated.items():
                    self.assertEqual(true[name], value)

    def test_hidden_parts_are_not_mentioned(self):
        hidden = {f"{slot}.{part}": VISIBLE / 2 for slot in range(3) for part in ("outfit", "worn", "held")}
        words = [w for table in (grammar.OUTFIT, grammar.WORN) for options in table.values() for w in options]
        for seed in range(500):
            c = caption(sample(seed, LEVELS[3]), hidden)
            for word in words:
                self.assertNotIn(word, c.text.split(" "), c.text)
            self.assertFalse([k for k in c.stated if k.endswith((".outfit", ".worn", ".held"))])

    def test_captions_fit_and_vary(self):
        texts = {caption(sample(seed, LEVELS[3]), {}, v).text for seed in range(500) for v in range(2)}
        self.assertGreater(len(texts), 950)
        self.assertTrue(all(len(t) < 330 for t in texts))

    def test_articles(self):
        for seed in range(1000):
            words = caption(sample(seed, LEVELS[3]), {}).text.replace(",", "").split(" ")
            for a, b in zip(words, words[1:]):
                if a in ("a", "an"):
                    self.assertEqual(a == "an", b[0] in "aeiou", " ".join(words))

    def test_labels_know_what_is_said(self):
        scene = sample(3, LEVELS[3])
        got = dict(zip(FACT_VALUES, labels(caption(scene, {}).stated)))
        for name, index in got.items():
            if index >= 0 and name in facts(scene) and FACT_VALUES[name][index]:
                self.assertEqual(FACT_VALUES[name][index], facts(scene)[name])


@unittest.skipUnless(os.path.exists(os.path.join(ATLAS, "atlas.json")), "no atlas: npx tsx atlas.ts build/atlas")
class Pictures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        from starter.layers import Atlas

        cls.atlas = Atlas(ATLAS)

    def draw(self, seed, level=3):
        from starter.render import render

        scene = sample(seed, LEVELS[level])
        return scene, render(self.atlas, scene)

    def test_same_seed_same_picture(self):
        for seed in (5, 6, 7):
            self.assertEqual(self.draw(seed)[1].bytes().tobytes(), self.draw(seed)[1].bytes().tobytes())

    def test_every_stated_fact_is_visible(self):
        for seed in range(60):
            scene, drawn = self.draw(seed)
            for name in caption(scene, drawn.visible).stated:
                slot, _, part = name.partition(".")
                if part in ("outfit", "worn", "held"):
                    self.assertGreaterEqual(drawn.visible.get(name, 1.0), VISIBLE, name)
                if part == "species":
                    segment = 20 + 8 * int(slot)
                    self.assertGreater(int((drawn.segmentation == segment).sum()), 300)

    def test_condition_maps(self):
        from starter import conditions

        _, drawn = self.draw(8)
        for make in (conditions.edge_map, conditions.scribble_map, conditions.depth_map):
            image = make(drawn)
            self.assertEqual(image.shape, (256, 256))
            self.assertGreater(int((image > 0).sum()), 500)
        self.assertLess(int(conditions.classes(drawn.segmentation).max()), len(conditions.PALETTE))
        self.assertTrue(any(name.startswith("character") for name, *_ in conditions.boxes(drawn)))


if __name__ == "__main__":
    unittest.main()

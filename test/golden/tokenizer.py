"""Token ids of transformers' CLIPTokenizer for some 700 strings. Run: python test/golden/tokenizer.py"""
import gzip, json, random
from pathlib import Path

from clip_tokenizer import clip_tokenizer, merges

here = Path(__file__).parent
# Special tokens are split as ordinary text: what somebody types is never an end mark.
tokenizer = clip_tokenizer(split_special_tokens=True)

fixed = """a photo of a cat|a photo of an astronaut riding a horse on mars|Hello, World!!!|it's 2024: 3.5mm lens|café naïve
日本 写真 🐱|masterpiece, best quality|1girl|don't|_under_score|,|*|(||   |\t\n|a\u00a0b\u2003c\u3000d|a\u0085b|a\ufeffb|a\u200bb|x\u001cy
<|endoftext|>|a cat <|endoftext|> a dog|<|startoftext|>hello|<|ENDOFTEXT|>|we'll they'Ve I'M he'd she's y'all're 'twas ''s |'s'
e\u0301|é|a\u0308o\u0308u\u0308|Å|\u212b|ﬁne|①②③|½ cup|x²|ΣΊΣΥΦΟΣ|ΟΔΥΣΣΕΥΣ|İstanbul|ISTANBUL ıi|STRASSE straße|ẞ|ǅ|ÀÉÎÕÜ
नमस्ते दुनिया|สวัสดีชาวโลก|مرحبا بالعالم|שלום עולם|Здравствуй, мир|안녕하세요 세계|ひらがなカタカナ漢字|中文字符测试，全角标点！|ｆｕｌｌｗｉｄｔｈ　１２３
👩‍👩‍👧‍👦 family|🏳️‍🌈|👍🏽👍🏿|🇬🇧🇯🇵|❤️‍🔥|🧑‍🚀 on 🌕|(ﾉ◕ヮ◕)ﾉ*:･ﾟ✧|¯\\_(ツ)_/¯|&amp; &lt;b&gt;|a&b<c>d|C++ vs C#|x=y+z*(a-b)/c%d^e|http://example.org/a?b=c&d=e#f
(masterpiece:1.2), [blurry], {curly}|<lora:ink:0.8>|--ar 16:9 --v 5|f/1.8, ISO 100, 85mm|#hashtag @user|1,000,000.50|3rd 21st 1980s|v1.5-pruned-emaonly.safetensors
\u0000|\x07bell|\ud7ff|\U0001f600\U0001f601|a\u0300\u0301\u0302\u0303|ḍ̇|\u1e9b\u0323|क़|ﷺ|Ⅷ Ⅻ|٣٤٥|१२३|𝒜𝓁𝓅𝒽𝒶|🄰🄱|ℵ₀|—–-‐‑|“quotes” ‘single’ «guillemets»|…...|№5|™®©""".replace("\n", "|").split("|")
fixed += ["a" * 300, "ab " * 100, "!" * 200, "z" * 77, "日" * 90, "🐱" * 40, " ".join(str(n) for n in range(60)),
          "a very long prompt about a fox wearing a yellow raincoat, " * 12]

rng = random.Random(7)
adjectives = "red striped fluffy luminous watercolour hyper-detailed 8k cinematic baroque isometric naïve storybook gloomy".split()
nouns = "fox owl cathedral lighthouse samurai teapot dragonfly spaceship raincoat hedgehog mountain octopus library".split()
tails = ["storybook style", "in a forest at night", "trending on artstation", "by Hokusai", "(soft light:1.3)", "f/2.8", "4k, uhd, hdr", "unreal engine 5"]
pools = ["abcdefghijklmnopqrstuvwxyz", "aábcčdeéfghiíjklmnňoóprřsštuúůvyýzž", "абвгдежзийклмнопрстуфхцчшщъыьэюя", "αβγδεζηθικλμνξοπρστυφχψω",
         "日本語中文字漢写真猫犬山川", "0123456789", ".,;:!?'\"()[]{}<>|/\\@#$%^&*-_=+~`", "😀🐱🌧️🏔️🎨🦊👨‍🎤", " \t\n\u00a0\u3000", "'s't're've'm'll'd",
         "\u0300\u0301\u0308\u0327\u0e31\u0e34", "ÀÉÎÕÜßẞİıſKÅﬀﬁ½²"]
generated = []
for _ in range(200):
    generated.append(f"a {rng.choice(adjectives)} {rng.choice(nouns)} and {rng.choice(nouns)}, {', '.join(rng.sample(tails, 3))}")
for _ in range(250):
    chosen = rng.sample(pools, rng.randint(1, 4))
    generated.append("".join(rng.choice(rng.choice(chosen)) for _ in range(rng.randint(1, 50))))
for _ in range(100):  # pieces of the vocabulary glued together: every merge is likely to be met somewhere
    generated.append("".join(rng.choice(merges).replace(" ", "").replace("</w>", " ") for _ in range(12)))

texts = list(dict.fromkeys(fixed + generated))
cases = [[text, tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
payload = json.dumps(cases, separators=(",", ":")).encode()
(here / "tokenizer.json.gz").write_bytes(gzip.compress(payload, 9, mtime=0))
print(len(cases), "strings,", sum(len(ids) for _, ids in cases), "ids,", sum(49406 in i or 49407 in i for _, i in cases), "with special ids")

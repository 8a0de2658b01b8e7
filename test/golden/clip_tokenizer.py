"""transformers' CLIPTokenizer over the merges that Vignette ships."""
import gzip, json, tempfile
from pathlib import Path

from transformers import CLIPTokenizer

file = Path(__file__).parent / "../../models/tokenizer/clip-merges.txt.gz"
merges = gzip.open(file, "rt", encoding="utf-8").read().splitlines()


def clip_tokenizer(**options):
    """Vocabulary: 256 byte symbols, the same at the end of a word, one entry a merge, two marks."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    vocab = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(vocab)}))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, **options)

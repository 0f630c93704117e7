"""The doodler's own vocabulary of tokens, for the standard CLIPTokenizer: byte-level pairs.

English words are merged as training finds them; Chinese is merged up to single characters and no further, so that a
colour and an object never melt into one token: a combination that was never seen is still made of known tokens.
"""

import random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from workers.diffusion.doodler.caption import caption
from workers.diffusion.doodler.scene import training_scene

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 48
"""Tokens of one prompt; longer ones are cut, as every CLIP pipeline does."""


def build(samples: int = 4000, seed: int = 0) -> CLIPTokenizer:
    """A tokenizer trained on captions of training scenes."""
    rng = random.Random(seed)
    english = [caption(training_scene(rng.getrandbits(40)), "en", rng).lower() for _ in range(samples)]
    chinese = [caption(training_scene(rng.getrandbits(40)), "zh", rng) for _ in range(samples)]
    words = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spaceless = (w for text in english for w in text.replace(",", " ").replace("?", " ").replace(".", " ").split())
    trainer = trainers.BpeTrainer(
        vocab_size=1200, min_frequency=3, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    words.train_from_iterator(spaceless, trainer)
    merges = [tuple(m) for m in _merges(words)]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for character in sorted({c for text in chinese for c in text if ord(c) > 127}):
        letters = level.pre_tokenize_str(character)[0][0]
        for end in ("", "</w>"):
            parts = [*letters[:-1], letters[-1] + end]
            while len(parts) > 1:
                merges.append((parts[0], parts[1]))
                parts[:2] = [parts[0] + parts[1]]
    merges = list(dict.fromkeys(merges))
    names = [*alphabet, *(a + "</w>" for a in alphabet), *(a + b for a, b in merges)]
    vocab = {name: i for i, name in enumerate(dict.fromkeys([*names, START, END]))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    import json

    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [m.split(" ") if isinstance(m, str) else m for m in found]


def ids(tokenizer: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids as the pipeline makes them: padded and cut to LENGTH."""
    out = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True)
    return list(out["input_ids"])

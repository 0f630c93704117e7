"""The text encoder: a small CLIPTextModel that first learns to say what a caption says.

Heads on the places after the end of the text (all of which have seen all of it) name object, colour, place and so on.
So the denoiser starts with text states in which objects and colours are apart. The heads are not released.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from workers.diffusion.doodler.data import HEADS
from workers.diffusion.doodler.loop import quick
from workers.diffusion.doodler.tokens import LENGTH

WIDTH = 192
PARTIAL = {"size": 0.3, "position": 0.3, "relation": 0.3, "background": 0.3, "colour": 1.5, "object": 1.5}
"""Weights of the heads: captions often do not say these, others always do."""


def build(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=512, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=LENGTH, projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


class Reader(nn.Module):
    """The text encoder with its heads."""

    def __init__(self, encoder: CLIPTextModel, end: int) -> None:
        super().__init__()
        self.encoder, self.end = encoder, end
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(words)) for name, words in HEADS.items()})

    def forward(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        states = self.encoder(ids).last_hidden_state
        after = (ids == self.end).float()[..., None]
        pooled = (states * after).sum(1) / after.sum(1)
        return states, {name: head(pooled) for name, head in self.heads.items()}


class ReaderLoss:
    def __init__(self, module: Reader, tokens: Tensor, labels: Tensor, batch: int) -> None:
        self.module, self.tokens, self.labels, self.batch = module, tokens, labels, batch

    def __call__(self, rng: torch.Generator, done: float) -> dict[str, Tensor]:
        rows = torch.randint(len(self.tokens), (self.batch,), generator=rng)
        which = torch.randint(self.tokens.shape[1], (self.batch,), generator=rng)
        with quick():
            _, said = self.module(self.tokens[rows, which].long())
        terms = {}
        for i, (name, logits) in enumerate(said.items()):
            terms[name] = PARTIAL.get(name, 1.0) * f.cross_entropy(logits.float(), self.labels[rows, i])
        return terms

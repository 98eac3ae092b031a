"""The tokens of prompts as an attacker handles them: ids that can be swapped, embeddings that gradients reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vestige.models.adapters.text_to_image import TextToImage
from vestige.models.adapters.text_to_image_prompts import Ids, TextTower

Tokens = Int[Tensor, "n k"]


@dataclass(frozen=True)
class TokenSpace:
    """The vocabulary of a model's first tokenizer and the encoders that share it.

    Encoders with another vocabulary (T5 beside CLIP) keep reading the prompt as it was.
    """

    model: TextToImage

    @cached_property
    def shared(self) -> tuple[bool, ...]:
        """Which encoders read ids of the first tokenizer."""
        words = self.model.prompts.tower.tokenizer.get_vocab()
        return tuple(tower.tokenizer.get_vocab() == words for tower in self.model.prompts.towers)

    @cached_property
    def sayable(self) -> Bool[Tensor, " vocabulary"]:
        """Tokens that are no marks of beginning, end or filling."""
        tower = self.model.prompts.tower
        mask = torch.ones(len(tower.table), dtype=torch.bool)
        mask[[i for i in tower.tokenizer.all_special_ids if i < len(mask)]] = False
        return mask

    def ids(self, prompts: Sequence[str]) -> list[Ids]:
        """Ids of the prompts for every encoder."""
        return [tower.ids(prompts) for tower in self.model.prompts.towers]

    def prefixed(self, ids: Sequence[Ids], tokens: Tokens) -> list[Ids]:
        """The same with ``tokens`` put in at the front; what no longer fits falls off the end."""
        pairs = zip(self.model.prompts.towers, ids, self.shared, strict=True)
        return [_put_in(tower, each, tokens) if same else each for tower, each, same in pairs]

    def alone(self, tokens: Tokens) -> list[Ids]:
        """Prompts of these tokens and nothing else."""
        return self.prefixed(self.ids([""] * len(tokens)), tokens)

    def front(self) -> int:
        """Where the first token of a prompt stands."""
        tower = self.model.prompts.tower
        return int(tower.ids(["a"])[0, 0] == tower.tokenizer.bos_token_id)

    def embedded(self, ids: Sequence[Ids]) -> list[Tensor | None]:
        """Embeddings at the bottom of every encoder that shares the vocabulary, open to gradients; None for others."""
        towers = self.model.prompts.towers
        return [
            tower.table[each.to(tower.table.device)].detach().requires_grad_() if same else None
            for tower, each, same in zip(towers, ids, self.shared, strict=True)
        ]

    def rows(
        self, ids: Sequence[Ids], embedded: Sequence[Tensor | None] | None = None
    ) -> Float[Tensor, "n rows features"]:
        """What the network reads for these ids, or for these embeddings in their place."""
        return self.model.prompts.packed(*self.model.prompts.encode(ids, embedded))

    def texts(self, tokens: Tokens) -> tuple[str, ...]:
        """The tokens in words."""
        decode = self.model.prompts.tower.tokenizer.decode
        return tuple(str(decode(each.tolist(), skip_special_tokens=True)).strip() for each in tokens)

    def drawn(self, count: int, length: int, generator: torch.Generator) -> Tokens:
        """Sayable tokens [count, length], evenly at random."""
        known = self.sayable.nonzero().squeeze(1)
        return known[torch.randint(len(known), (count, length), generator=generator)]

    def gains(self, gradients: Sequence[Tensor | None], tokens: Tokens) -> Float[Tensor, "n k vocabulary"]:
        """How much a loss falls, to first order, where a token at the front is swapped for another.

        ``(e_now - e_new) . g`` summed over encoders; minus infinity for tokens that cannot be said. ``gradients`` are
        those at the encoders' embeddings of the whole prompts, in which ``tokens`` [n, k] stand at the front.
        """
        first, total = self.front(), torch.zeros(*tokens.shape, len(self.sayable))
        for tower, gradient in zip(self.model.prompts.towers, gradients, strict=True):
            if gradient is not None:
                part, table = gradient[:, first : first + tokens.shape[1]].float(), tower.table.detach().float()
                now = (table[tokens.to(table.device)] * part).sum(-1, keepdim=True)
                total += (now - part @ table.T).cpu()
        return total.masked_fill(~self.sayable, -torch.inf)


def _put_in(tower: TextTower, ids: Ids, tokens: Tokens) -> Ids:
    first = int(ids[0, 0] == tower.tokenizer.bos_token_id)
    longer = torch.cat([ids[:, :first], tokens, ids[:, first:]], 1)
    cut = longer[:, : ids.shape[1]].clone()
    cut[:, -1] = ids[:, -1]  # an end, or what fills up after it
    return cut

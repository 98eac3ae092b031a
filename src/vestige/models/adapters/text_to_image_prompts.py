"""Prompts as a text-to-image network reads them: token ids, then the embeddings of its text encoders.

Where a network also takes one pooled vector a prompt (SDXL, Stable Diffusion 3), it stands in one more row of the
embeddings, filled up with zeros, so that a prompt is a single tensor [rows, width] everywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vestige.digest import digest_json, digest_tensors
from vestige.errors import InvalidInput

Ids = Int[Tensor, "n tokens"]
Embeddings = Float[Tensor, "n rows width"]


@dataclass(frozen=True, eq=False)
class TextTower:
    """A tokenizer and its encoder; ``length`` is the number of tokens that every prompt is filled up to."""

    tokenizer: Any
    encoder: Any
    length: int

    def ids(self, prompts: Sequence[str]) -> Ids:
        """Token ids, filled up and cut off as diffusers does it."""
        filled = self.tokenizer(list(prompts), padding="max_length", truncation=True, max_length=self.length)
        return torch.tensor(filled["input_ids"], dtype=torch.int64).reshape(len(prompts), self.length)

    def content(self, text: str) -> list[int]:
        """Ids of a text alone, without those that stand at the beginning and the end."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def check(self, concept: str) -> None:
        """Raise InvalidInput unless the text is one that the tokenizer can say, whole, in a prompt."""
        plain = " ".join(concept.lower().split())
        ids = self.content(concept) if plain else []
        said = " ".join(str(self.tokenizer.decode(ids, skip_special_tokens=True)).lower().split()) if ids else ""
        if not ids or said.replace(" ", "") != plain.replace(" ", ""):
            raise InvalidInput(
                f"The concept '{concept}' is no string of the model's tokenizer, which reads it as '{said}'.",
                expected="words that its vocabulary can spell.",
                remedy="name the concept in the letters that the model was trained with.",
            )
        if len(ids) > self.length - 2:
            raise InvalidInput(
                f"The text '{concept}' has {len(ids)} tokens.",
                expected=f"at most {self.length - 2}, which is what a prompt holds.",
                remedy="name it in fewer words.",
            )

    def places(self, prompt: str, concept: str) -> list[int]:
        """Positions of the concept's tokens in a prompt, every occurrence; none if it does not occur."""
        tokens, wanted = self.ids([prompt])[0].tolist(), self.content(concept)
        starts = [i for i in range(len(tokens)) if wanted and tokens[i : i + len(wanted)] == wanted]
        return sorted({place for start in starts for place in range(start, start + len(wanted))})

    @property
    def table(self) -> Float[Tensor, "vocabulary width"]:
        """Embeddings of all tokens, before any layer and without positions."""
        return self.encoder.get_input_embeddings().weight

    @contextmanager
    def reading(self, embedded: Float[Tensor, "n tokens width"] | None) -> Generator[None]:
        """Within it the encoder reads these token embeddings in place of those of its ids."""
        if embedded is None:
            yield
            return
        layer = self.encoder.get_input_embeddings()
        handle = layer.register_forward_hook(lambda *_: embedded)
        try:
            yield
        finally:
            handle.remove()


class PromptEncoder(ABC):
    """All text encoders of a pipeline.

    Parameters
    ----------
    towers : in the pipeline's order.
    pooled_width : of the pooled vector; 0 where the network takes none.
    """

    def __init__(self, towers: Sequence[TextTower], pooled_width: int = 0) -> None:
        self.towers, self.pooled_width = tuple(towers), pooled_width
        self._known: dict[str, Tensor] = {}
        for tower in self.towers:
            tower.encoder.eval().requires_grad_(False)

    @property
    def tower(self) -> TextTower:
        """The first tokenizer and encoder."""
        return self.towers[0]

    @property
    def tokens(self) -> int:
        """Rows that hold tokens; a row beyond them holds the pooled vector."""
        return self.tower.length

    @abstractmethod
    def encode(
        self, ids: Sequence[Ids], embedded: Sequence[Tensor | None] | None = None
    ) -> tuple[Embeddings, Float[Tensor, "n pooled"] | None]:
        """Tokens' embeddings and pooled vector from the ids of each tower; differentiable in ``embedded``.

        ``embedded`` [n, tokens, width] stand for the embeddings of the ids at a tower's bottom, where given.
        """

    def embeddings(self, prompts: Sequence[str]) -> Embeddings:
        """Rows of each prompt; each is computed once."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        for start in range(0, len(missing), 64):
            part = missing[start : start + 64]
            with torch.no_grad():
                found = self._of(part)
            self._known |= {prompt: row.clone() for prompt, row in zip(part, found, strict=True)}
        return torch.stack([self._known[prompt] for prompt in prompts])

    def _of(self, prompts: Sequence[str]) -> Embeddings:
        return self.packed(*self.encode([tower.ids(prompts) for tower in self.towers]))

    def packed(self, tokens: Float[Tensor, "n tokens width"], pooled: Tensor | None) -> Embeddings:
        """Both as rows of one tensor."""
        if pooled is None:
            return tokens
        rows = -(-pooled.shape[1] // tokens.shape[2])
        filled = functional.pad(pooled, (0, rows * tokens.shape[2] - pooled.shape[1]))
        return torch.cat([tokens, filled.view(len(tokens), rows, -1)], 1)

    def unpacked(self, rows: Embeddings) -> tuple[Float[Tensor, "n tokens width"], Float[Tensor, "n pooled"]]:
        """Undo :meth:`packed` for a network that takes a pooled vector."""
        count = -(-self.pooled_width // rows.shape[2])
        split = rows.shape[1] - count
        return rows[:, :split], rows[:, split:].flatten(1)[:, : self.pooled_width]

    @property
    def digest(self) -> str:
        """Digest of weights and of what the tokenizers make of their own vocabulary."""
        weights = [digest_tensors(tower.encoder.state_dict()) for tower in self.towers]
        words = [digest_json(tower.tokenizer.get_vocab()) for tower in self.towers]
        return digest_json({"kind": type(self).__name__, "weights": weights, "words": words})


def _hidden(tower: TextTower, ids: Ids, embedded: Tensor | None) -> Any:
    with tower.reading(embedded):
        return tower.encoder(ids.to(tower.encoder.device), output_hidden_states=True)


def _each(embedded: Sequence[Tensor | None] | None, count: int) -> Sequence[Tensor | None]:
    return [None] * count if embedded is None else embedded


class OneClip(PromptEncoder):
    """Stable Diffusion 1.x and 2.x: the last layer of one CLIP encoder."""

    def encode(
        self, ids: Sequence[Ids], embedded: Sequence[Tensor | None] | None = None
    ) -> tuple[Embeddings, Float[Tensor, "n pooled"] | None]:
        """The last hidden state, normalized."""
        return _hidden(self.tower, ids[0], _each(embedded, 1)[0])[0], None


class TwoClips(PromptEncoder):
    """SDXL: the last layer but one of two CLIP encoders side by side, and the second one's pooled vector.

    ``zero_empty`` is the pipeline's ``force_zeros_for_empty_prompt``.
    """

    def __init__(self, towers: Sequence[TextTower], pooled_width: int, *, zero_empty: bool) -> None:
        super().__init__(towers, pooled_width)
        self.zero_empty = zero_empty

    def encode(
        self, ids: Sequence[Ids], embedded: Sequence[Tensor | None] | None = None
    ) -> tuple[Embeddings, Float[Tensor, "n pooled"] | None]:
        """Both encoders' states along the width."""
        answers = [_hidden(*each) for each in zip(self.towers, ids, _each(embedded, 2), strict=True)]
        return torch.cat([answer.hidden_states[-2] for answer in answers], -1), answers[1][0]

    def _of(self, prompts: Sequence[str]) -> Embeddings:
        found = super()._of(prompts)
        if self.zero_empty:
            found[[place for place, prompt in enumerate(prompts) if not prompt]] = 0
        return found


class ClipsAndT5(PromptEncoder):
    """Stable Diffusion 3: two CLIP encoders side by side, then T5 (zeros without one), and both pooled vectors.

    Parameters
    ----------
    width : of the network's embeddings.
    t5_tokens : how many of them stand behind those of CLIP.
    """

    def __init__(self, towers: Sequence[TextTower], pooled_width: int, *, width: int, t5_tokens: int) -> None:
        super().__init__(towers, pooled_width)
        self.width, self.t5_tokens = width, t5_tokens

    @property
    def tokens(self) -> int:
        """Tokens of CLIP and of T5."""
        return self.tower.length + self.t5_tokens

    def encode(
        self, ids: Sequence[Ids], embedded: Sequence[Tensor | None] | None = None
    ) -> tuple[Embeddings, Float[Tensor, "n pooled"] | None]:
        """CLIP's states along the width, filled up to the network's, then those of T5."""
        given = _each(embedded, len(self.towers))
        clips = [_hidden(*each) for each in zip(self.towers[:2], ids[:2], given[:2], strict=True)]
        states = torch.cat([answer.hidden_states[-2] for answer in clips], -1)
        states = functional.pad(states, (0, self.width - states.shape[-1]))
        if len(self.towers) == 3:
            with self.towers[2].reading(given[2]):
                last = self.towers[2].encoder(ids[2].to(states.device))[0]
        else:
            last = states.new_zeros(len(states), self.t5_tokens, self.width)
        return torch.cat([states, last], 1), torch.cat([answer[0] for answer in clips], -1)

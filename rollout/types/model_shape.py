"""The shape of a dense decoder, which decides the size of each tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes in a model's config. All of them count elements."""

    family: str
    """``model_type`` in a config of transformers, such as ``qwen2``."""
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    intermediate_size: int
    """Width of the feed-forward layer."""
    vocab_size: int
    tie_embeddings: bool
    """Whether the LM head shares its weights with the input embedding."""

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_heads * self.head_size

    @property
    def kv_size(self) -> int:
        """Width of all key heads together, and of all value heads together."""
        return self.num_kv_heads * self.head_size

    @property
    def has_head_norms(self) -> bool:
        """True when each head's queries and keys are normalised."""
        return self.family == "qwen3"

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Shape ``(out, in)`` of each linear layer of a block, by its name."""
        hidden, query, kv, inner = self.hidden_size, self.query_size, self.kv_size, self.intermediate_size
        attention = {
            "q_proj": (query, hidden),
            "k_proj": (kv, hidden),
            "v_proj": (kv, hidden),
            "o_proj": (hidden, query),
        }
        return attention | {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}

    @property
    def tensors(self) -> list[tuple[int, ...]]:
        """Shape of every parameter; a tied LM head is listed once."""
        block: list[tuple[int, ...]] = [*self.linears.values(), (self.hidden_size,), (self.hidden_size,)]
        if self.family == "qwen2":
            block += [(self.query_size,), (self.kv_size,), (self.kv_size,)]
        if self.has_head_norms:
            block += [(self.head_size,), (self.head_size,)]
        matrix = (self.vocab_size, self.hidden_size)
        return [matrix] * (1 if self.tie_embeddings else 2) + block * self.num_layers + [(self.hidden_size,)]

    @property
    def num_parameters(self) -> int:
        return sum(map(math.prod, self.tensors))

    @property
    def largest_tensor(self) -> int:
        """Elements of the largest parameter, usually the embedding."""
        return max(map(math.prod, self.tensors))

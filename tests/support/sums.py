"""A tiny recipe of supervised training, and its pairs, for tests."""

import json
from pathlib import Path

RECIPE = """
num_steps = 0
prompts_per_step = 1
group_size = 2

[model]
dtype = "float32"

[model.build]
hidden_size = 32
num_layers = 1
num_heads = 1
num_kv_heads = 1
intermediate_size = 64
max_position_embeddings = 24
max_integer = 20
words = [" + ", " = "]

[warm_start]
num_steps = 40
sequences_per_step = 5
learning_rate = 1e-2

[learner]
num_ranks = 1
max_tokens_per_microbatch = 32

[checkpoint]
every_steps = 4

[placement]
mode = "cpu"
"""


def write_pairs(folder: Path) -> Path:
    """Sums up to 9 + 9: a hundred pairs."""
    file = folder / "pairs.jsonl"
    pairs = [{"prompt": f"{a} + {b} = ", "completion": f"{a + b}"} for a in range(10) for b in range(10)]
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return file

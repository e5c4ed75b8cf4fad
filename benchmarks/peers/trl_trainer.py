"""TRL's ``GRPOTrainer`` with a recipe's model, prompts, rewards, batch and limits, on the CPU in float32."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.base_model import base_model, load_tokenizer
from orchestrator.config.schema import RunConfig
from rewards.function import call
from rewards.registry import functions_of
from rewards.score import compose
from rollout.prompts.stream import PromptStream
from rollout.types.completions import Reward
from rollout.types.prompts import Prompt

PARTS = 4
"""Into which TRL divides a step's completions, so that their logits fit in memory."""


class Grader:
    """A reward function as TRL calls it, which grades as a reward worker does and keeps the last step's figures."""

    __name__ = "grader"

    def __init__(self, config: RunConfig, prompts: Sequence[Prompt]) -> None:
        self._config, self._prompts = config, prompts
        self.tokens, self.right = 0, 0.0

    def __call__(
        self, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], position: Sequence[int], **_: Any
    ) -> list[float]:
        """Return the completions' rewards; `position` is the column that says which prompt each one answers."""
        rewards = [self._reward(*pair) for pair in zip(position, completions, strict=True)]
        self.tokens = sum(map(len, completion_ids))
        self.right = statistics.mean(reward.value("correctness") == 1.0 for reward in rewards)
        return [reward.total for reward in rewards]

    def _reward(self, position: int, text: str) -> Reward:
        prompt, config = self._prompts[position], self._config
        for stop in config.sampling.stop:  # as if the peer stopped there: the same text is graded
            head, found, _ = text.partition(stop)
            text = head + found
        functions = functions_of(prompt.grader, config.rewards)
        outcomes = [call(each, each.load(), prompt.assistant_prefix + text, prompt.answer) for each in functions]
        return compose(functions, outcomes, config.rewards)


def prompts_of(config: RunConfig, steps: int) -> list[Prompt]:
    """Return the prompts of a run's first steps, in the order in which it trains on them."""
    stream = PromptStream(config.prompts, load_tokenizer(base_model(config)))
    return stream.take(steps * config.prompts_per_step)


def trainer(config: RunConfig, steps: int, prompts: Sequence[Prompt], grader: Grader, callback: Any) -> Any:
    """Return TRL's trainer, to take `steps` steps on these prompts. It loads the model."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    folder = base_model(config)
    completions = config.prompts_per_step * config.group_size
    settings = GRPOConfig(
        str(Path(config.runs_dir) / "trl"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        gradient_checkpointing=False,
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        seed=config.seed,
        max_steps=steps,
        shuffle_dataset=False,
        per_device_train_batch_size=completions // PARTS,
        gradient_accumulation_steps=PARTS,
        num_generations=config.group_size,
        max_completion_length=config.sampling.max_completion_tokens,
        temperature=config.sampling.temperature,
        learning_rate=config.learner.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=config.learner.max_grad_norm,
        beta=0.0,
        loss_type="dapo",  # the mean over all tokens of the step, as `token_mean` here
        model_init_kwargs={"dtype": "float32"},
    )
    rows = [{"prompt": prompt.text, "position": position} for position, prompt in enumerate(prompts)]
    tokenizer = load_tokenizer(folder)
    tokenizer.padding_side = "left"
    return GRPOTrainer(
        folder, [grader], settings, Dataset.from_list(rows), processing_class=tokenizer, callbacks=[callback]
    )

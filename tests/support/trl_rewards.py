"""Reward functions as the users of TRL write them, one of each kind that its documentation shows."""

import asyncio
import re
from functools import partial


def more_tokens(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def more_tokens_as_once_spelt(completions_ids, **kwargs):
    return [float(len(ids)) for ids in completions_ids]


def more_characters(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def thinks_then_answers(completions, **kwargs):
    said = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(r"^<think>.*?</think><answer>.*?</answer>$", text) else 0.0 for text in said]


def boxed(completions, ground_truth, **kwargs):
    found = [re.search(r"\\boxed\{(.*?)\}", completion) for completion in completions]
    return [float(bool(box) and box.group(1) == truth) for box, truth in zip(found, ground_truth, strict=True)]


def of_math(prompts, completions, task, **kwargs):
    return [1.0 if kind == "math" else None for _, _, kind in zip(prompts, completions, task, strict=True)]


def of_code(prompts, completions, task, **kwargs):
    return [0.5 if kind == "code" else None for _, _, kind in zip(prompts, completions, task, strict=True)]


async def waits(prompts, completions, **kwargs):
    await asyncio.sleep(0.01)
    return [1.0 if completion else 0.0 for completion in completions]


def logs(completions, log_metric, log_extra, **kwargs):
    log_extra("first_letter", [completion[:1] for completion in completions])
    log_metric("letters", sum(map(len, completions)) / len(completions))
    return [0.0] * len(completions)


class Brief:
    """Callable objects have a name too."""

    __name__ = "brief"

    def __call__(self, completions, **kwargs):
        return [-float(len(completion)) for completion in completions]


def _up_to(limit, completions, **kwargs):
    return [float(len(completion) <= limit) for completion in completions]


brief = Brief()
up_to_three = partial(_up_to, 3)


def one_too_few(completions, **kwargs):
    return [1.0] * (len(completions) - 1)


def asks_the_trainer(completions, trainer_state):
    return [float(trainer_state.global_step)] * len(completions)

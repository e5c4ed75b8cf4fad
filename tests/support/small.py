"""A run as small as it can be while every part of it works."""

SMALL = (
    "prompts_per_step=8",
    "group_size=4",
    "sampling.max_completion_tokens=48",
    "prompts.num_held_out=8",
    "evaluation.every_steps=0",
    "evaluation.completions_per_prompt=2",
)
"""Overrides of countdown-tiny."""

"""The recipes for cards: each fits the card that it is for, and those of Qwen3 are the runs that they say."""

from pathlib import Path

import pytest

from orchestrator.config.recipe import RECIPES, load
from orchestrator.plan.gpu_models import gpu_model
from orchestrator.plan.memory_plan import memory_plan
from orchestrator.plan.model_shapes import shape_of

FOR_24_GB = sorted(RECIPES.glob("*-4090*.toml"))


@pytest.mark.parametrize("recipe", FOR_24_GB, ids=lambda path: path.stem)
def test_a_recipe_for_24_gb_fits_a_4090(recipe: Path) -> None:
    config = load(str(recipe))
    plan = memory_plan(config, shape_of(config.model), gpu_model("4090"))
    assert plan.fits, list(plan.problems())
    assert plan.kv_cache.num_completions >= 8 and plan.host_bytes < 62 * 2**30


def test_the_short_run_of_qwen3_is_the_one_that_it_says() -> None:
    config = load("countdown-4090-qwen3-1.7b")
    shape = shape_of(config.model)
    assert (config.model.path, shape.num_parameters) == ("Qwen/Qwen3-1.7B-Base", 1_720_574_976)
    assert (config.num_steps, config.prompts_per_step, config.group_size) == (50, 16, 8)
    assert config.sampling.max_completion_tokens == 1024
    assert (config.learner.learning_rate, config.learner.algorithm.kl_beta) == (5e-7, 0.001)


def test_qwen3s_heads_are_wider_than_its_hidden_size() -> None:
    """As published: heads of 128 in both, where hidden size over heads would be 64 in the smaller one."""
    small, large = (shape_of(load(f"countdown-4090-qwen3-{size}").model) for size in ("0.6b", "1.7b"))
    assert (small.hidden_size, small.num_layers, small.intermediate_size) == (1024, 28, 3072)
    assert (large.hidden_size, large.num_layers, large.intermediate_size) == (2048, 28, 6144)
    for shape in (small, large):
        assert (shape.num_heads, shape.num_kv_heads, shape.head_size) == (16, 8, 128)
        assert (shape.vocab_size, shape.tie_embeddings, shape.has_head_norms) == (151_936, True, True)

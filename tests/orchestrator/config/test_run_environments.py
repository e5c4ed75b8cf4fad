"""What a recipe says of environments, and what comes of it."""

import pytest

from orchestrator.config.environments import environment_parts, environment_specs
from orchestrator.config.recipe import ConfigError, load
from orchestrator.config.resolve import engine_spec

GUESS = ("prompts.environment=guess", "environment.max_observed_tokens=64", "model.build.max_position_embeddings=1024")

MIXED = [*GUESS[1:], "prompts.mixture.a.weight=1", "prompts.mixture.b.weight=1", "prompts.mixture.b.environment=guess"]


def test_observations_take_their_tokens_beside_prompt_and_completion() -> None:
    plain, playing = load("countdown-tiny"), load("countdown-tiny", GUESS)
    assert playing.max_model_len == plain.max_model_len + 64
    with pytest.raises(ConfigError, match=r"tokens \+ environment\.max_observed_tokens = 1536: raise it"):
        load("countdown-tiny", ["prompts.environment=guess"])


def test_an_engine_knows_what_ends_a_turn_and_reads_text_for_it() -> None:
    spec = engine_spec(load("countdown-tiny", GUESS), "model", load_weights=True)
    assert spec.turns is not None and spec.turns.stops == {"guess": ("</guess>",)} and spec.reads_text
    assert (spec.turns.max_turns, spec.turns.max_observed_tokens, spec.turns.chat) == (8, 64, False)
    alone = engine_spec(load("countdown-tiny"), "model", load_weights=True)
    assert alone.turns is None and not alone.reads_text


def test_parameters_go_to_the_class_of_their_name() -> None:
    own = "tests.support.turn_environments:Lines"
    settings = [*GUESS[1:], f"prompts.environment={own}", "environment.parameters.Lines.longest=5"]
    config = load("countdown-tiny", [*settings, "environment.deadline_s=3"])
    spec = environment_specs(config)[own]
    assert (spec.parameters, spec.deadline_s, spec.parts) == ({"longest": 5}, 3.0, ("lines",))
    assert environment_parts(config) == {"lines"}
    load("countdown-tiny", [*settings, 'rewards.weights={"lines"=1.0}'])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["prompts.environment=gess"], "did you mean 'guess'"),
        (
            ["prompts.environment=gess", "environment.parameters.guess.highest=9"],
            "environment = \"gess\".*mean 'guess'",
        ),
        ([*GUESS, "environment.parameters.guess.higest=9"], "did you mean 'highest'"),
        ([*GUESS, "environment.parameters.calculator.digits=9"], r"environment\.parameters\.calculator: .*no such"),
        (
            [*GUESS, "environment.deadline_s=300"],
            r"deadline_s = 300 is not below rollout\.stall_timeout_s",
        ),
        (["environment.max_turns=0"], r"environment\.max_turns = 0"),
    ],
)
def test_what_cannot_answer_is_refused_by_key_and_name(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load("countdown-tiny", settings)


def test_a_mixture_may_have_an_environment_for_each_of_its_entries() -> None:
    config = load("countdown-tiny", MIXED)
    assert config.environments == ["guess"] and config.prompts.tasks["a"].environment == ""


def test_each_entry_has_a_part_that_is_weighed() -> None:
    load("countdown-tiny", [*MIXED, "rewards.weights={correctness=0.9, guessed=0.1}"])
    both = '{either={by="max", weights={guessed=1.0, guesses=0.1}}}'
    for weights in ("{guessed=1.0}", "{guessed=1.0, correctness=0.0}", "{either=1.0}"):
        with pytest.raises(ConfigError, match=r"guessed.* all completions of prompts\.mixture\.a would fail"):
            load("countdown-tiny", [*MIXED, f"rewards.weights={weights}", f"rewards.ensembles={both}"])

"""A completion of several turns without a cluster: a player that halves the range, and the real number game."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from orchestrator.config.recipe import load
from orchestrator.evaluate.conversation import converse
from rollout.types.prompts import Prompt
from rollout.types.turns import PackedTurns, SampledTurn

NOTHING = np.zeros(0, np.int32)


class Player:
    """In place of an engine: guesses the middle of what the hints leave."""

    def sample_turns(self, request: Any, past: Any) -> Any:
        (turn,) = request.turns
        before = () if turn.place is None else past[turn.place].unpack()
        low, high = 1, 16
        hints = [each.said for each in before[1:]] + [turn.said]
        for guessed, hint in zip(before, hints, strict=False):  # the first words of all are no hint
            guess = int(guessed.text.removeprefix("<guess>").removesuffix("</guess>"))
            low, high = (guess + 1, high) if "higher" in hint else (low, guess - 1)
        text = f"<guess>{(low + high) // 2}</guess>"
        tokens, logprobs = np.arange(3, dtype=np.int32), np.zeros(3, np.float32)
        made = SampledTurn(turn.said, NOTHING, turn.said, tokens, logprobs, text, (0,))
        yield PackedTurns.of((turn.prompt.id, turn.position), (*before, made), "observation")


class Full(Player):
    """Has no room for what the game says to the first guess."""

    def sample_turns(self, request: Any, past: Any) -> Any:
        if not past:
            yield from super().sample_turns(request, past)
        else:
            (turn,) = request.turns
            yield PackedTurns.of((turn.prompt.id, turn.position), past[0].unpack(), "length")


def played(max_turns: int, player: Any = Player) -> tuple[Any, list[tuple[str, bool]]]:
    settings = ("environment.parameters.guess.highest=16", f"environment.max_turns={max_turns}")
    room = ("environment.max_observed_tokens=64", "model.build.max_position_embeddings=1024")
    config = load("countdown-tiny", ["prompts.environment=guess", *settings, *room])
    prompt = Prompt("solve/0", NOTHING, "", "countdown", {}, environment="guess")
    told: list[tuple[str, bool]] = []
    completion = asyncio.run(
        converse(player(), prompt, config.sampling, config, lambda text, said: told.append((text, said)))  # type: ignore[arg-type]
    )
    return completion, told


def test_a_game_is_played_to_its_end_and_told_as_it_goes() -> None:
    completion, told = played(max_turns=8)
    assert completion.finish_reason == "stop" and completion.parts["guessed"] == 1.0
    assert told[0] == ("<hint>1 to 16</hint>", True) and told[-1] == ("<hint>right</hint>", True)
    guesses = [text for text, is_observation in told if not is_observation]
    assert completion.policy_text.splitlines() == guesses and completion.parts["guesses"] == len(guesses)


def test_a_game_that_takes_too_long_is_cut_off() -> None:
    completion, told = played(max_turns=1)
    assert completion.finish_reason in ("turns", "stop")
    assert len([text for text, is_observation in told if not is_observation]) == 1


def test_a_turn_is_told_once_where_an_observation_finds_no_room() -> None:
    completion, told = played(max_turns=8, player=Full)
    assert completion.finish_reason == "length"
    assert [text for text, is_observation in told if not is_observation] == ["<guess>8</guess>"]

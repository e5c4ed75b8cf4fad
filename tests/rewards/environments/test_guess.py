from __future__ import annotations

from dataclasses import replace

import numpy as np

from rewards.environments.guess import Guess
from rewards.tasks import guess as grader
from rollout.types.prompts import Prompt

PROMPT = Prompt("train/1", np.array([1], dtype=np.int32), "question", "countdown", {}, environment="guess")


def test_halving_finds_the_number_which_is_the_same_for_every_seed() -> None:
    numbers = set()
    for seed in range(3):
        guess = Guess(highest=64)
        assert guess.start(PROMPT, seed).text == "<hint>1 to 64</hint>"
        low, high, guesses = 1, 64, 0
        while True:
            middle = (low + high) // 2
            said = guess.step(f"Perhaps <guess>{middle}</guess>")
            guesses += 1
            if said.is_over:
                break
            low, high = (middle + 1, high) if said.text == "<hint>higher</hint>" else (low, middle - 1)
        assert said.text == "<hint>right</hint>"
        assert said.parts == {"guessed": 1.0, "guesses": float(guesses)}
        numbers.add(middle)
    assert len(numbers) == 1


def test_a_turn_without_a_number_is_the_last() -> None:
    for text in ("", "<guess></guess>", "<guess>" + "9" * 5000 + "</guess>", "<guess>٣</guess>", "<guess>-1</guess>"):
        guess = Guess()
        guess.start(PROMPT, 1)
        last = guess.step(text)
        assert (last.text, last.is_over, last.parts) == ("", True, {"guessed": 0.0, "guesses": 0.0})


def test_the_number_of_the_task_is_that_of_the_game_and_its_last_guess_is_graded() -> None:
    answer = {"number": 5, "highest": 6}
    prompt = replace(PROMPT, grader="guess", answer=answer)
    won, lost = Guess(most=2), Guess(most=2)
    assert won.start(prompt, 1).text == lost.start(prompt, 1).text == "<hint>1 to 6</hint>"
    assert won.step("<guess>4</guess>") == ("<hint>higher</hint>", False, {"guessed": 0.0, "guesses": 1.0})
    assert won.step("<guess>5</guess>").parts["guessed"] == 1.0
    lost.step("<guess>4</guess>")
    assert lost.step("<guess>6</guess>") == ("<hint>lower</hint>", True, {"guessed": 0.0, "guesses": 2.0})
    assert grader.score("<guess>4</guess>\n<guess>5</guess>", answer) == {"correctness": 1.0}
    for text in ("<guess>5</guess>\n<guess>4</guess>", "5", "<guess>55</guess>", ""):
        assert grader.score(text, answer) == {"correctness": 0.0}

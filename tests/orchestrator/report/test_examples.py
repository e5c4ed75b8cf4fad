"""The completions that the end of a run shows."""

import io

from rich.console import Console

from orchestrator.report.examples import LONGEST_SHOWN, examples_table


def record(prompt: str, completion: str, value: float | None, step: int) -> dict:
    parts = {} if value is None else {"correctness": {"value": value, "status": "ok"}}
    text = f"Example: 1 + 1 = 2\n\nQuestion: {prompt}"
    said = {"prompt_id": prompt, "prompt": text, "completion": completion}
    return {"step": step, **said, "parts": parts, "reward": 0.5}


def shown(before: list[dict], after: list[dict]) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(examples_table(before, after))
    return console.file.getvalue()


def test_the_first_completion_of_each_of_three_problems_stands_beside_its_later_one() -> None:
    prompts = ["3 + 4", "3 + 5", "3 + 6", "3 + 7"]
    before = [record(each, f"[b]{attempt} of {each}", 0.0, 0) for each in prompts for attempt in "ab"]
    after = [record(each, f"{attempt} then {each}\x1b[2J", 1.0, 6) for each in prompts for attempt in "ab"]
    text = shown(before, after)
    assert "before (step 0)" in text and "after (step 6)" in text
    assert all(f"[b]a of {each}" in text and f"a then {each}" in text for each in prompts[:3])
    assert "b of" not in text and "3 + 7" not in text
    assert "\x1b" not in text
    assert text.count("wrong") == text.count("right") == 3
    assert "Question: 3 + 4" in text and "Example" not in text


def test_where_answers_are_not_right_or_wrong_the_reward_is_shown_and_long_text_is_cut() -> None:
    text = shown([record("q", "x" * 2000, None, 0)], [record("q", "y", None, 6)])
    assert text.count("reward 0.50") == 2 and text.count("x") == LONGEST_SHOWN + 1  # the one of Example

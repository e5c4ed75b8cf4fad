"""`rayzero eval` as a user starts it: two models, two formats, on real Ray and vLLM."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from orchestrator.evaluate.statistics import paired_difference, pass_at_k, rate
from rewards.parts.markers import markers
from tests.support.paths import WARM_START

pytestmark = [pytest.mark.slow, pytest.mark.long]

NUM_PROMPTS, NUM_COMPLETIONS = 12, 4


@pytest.fixture(scope="module")
def compared(tiny_model, tmp_path_factory):
    """What the command printed, its JSON, and the mark that its processes carry in their environment."""
    folder, mark = tmp_path_factory.mktemp("compared"), f"RAYZERO_TEST={uuid.uuid4()}"
    command = [sys.executable, "-m", "orchestrator.cli", "eval", f"untrained:{tiny_model}", f"warm:{WARM_START}"]
    options = [
        "--recipe",
        "countdown-tiny",
        "--formats",
        "zero_shot",
        "natural",
        "--num-prompts",
        str(NUM_PROMPTS),
        "--seed",
        "142",
        "--pass-at",
        "1",
        "4",
    ]
    settings = [
        "sampling.max_completion_tokens=80",
        "rollout.num_generators=1",
        "rewards.weights={correctness=1, answer_tags=0}",
    ]
    name, _, value = mark.partition("=")
    done = subprocess.run(
        [*command, *options, "--json", str(folder / "eval.json"), *settings],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads((folder / "eval.json").read_text()), mark


def test_every_model_is_in_the_table_in_every_format(compared) -> None:
    printed, content, _ = compared
    assert f"{NUM_PROMPTS} held-out prompts × {NUM_COMPLETIONS} completions" in printed
    assert [(result["model"], result["format"]) for result in content["results"]] == [
        ("untrained", "zero_shot"),
        ("untrained", "natural"),
        ("warm", "zero_shot"),
        ("warm", "natural"),
    ]
    (accuracy,) = (line for line in printed.splitlines() if "pass@1 (sampled)" in line)
    for result in content["results"]:
        assert f"{100 * result['figures']['pass_at_1']['mean']:.1f}% [" in accuracy
    assert "Training untrained, zero_shot: too hard." in printed
    assert printed.count("Training warm") == 2


def test_figures_agree_with_what_the_records_give(compared) -> None:
    """Recomputed from the JSON's completions alone; their answers checked again."""
    _, content, _ = compared
    from rewards.tasks.countdown import score

    for result in content["results"]:
        figures, prompts = result["figures"], result["prompts"]
        assert len(prompts) == NUM_PROMPTS
        prefix = "<think>" if result["format"] == "zero_shot" else ""
        for prompt in prompts:
            assert len(prompt["completions"]) == NUM_COMPLETIONS
            for done in prompt["completions"]:
                assert done["parts"]["correctness"] == score(prefix + done["text"], prompt["answer"])["correctness"]
        rights = [sum(done["parts"]["correctness"] for done in prompt["completions"]) for prompt in prompts]
        for k in (1, 4):
            chances = [pass_at_k(NUM_COMPLETIONS, int(right), k) for right in rights]
            assert figures[f"pass_at_{k}"]["mean"] == pytest.approx(sum(chances) / NUM_PROMPTS)
        everything = [done for prompt in prompts for done in prompt["completions"]]
        mean_tokens = sum(done["num_tokens"] for done in everything) / len(everything)
        assert figures["completion_tokens"] == pytest.approx(mean_tokens)
        tags = [[done["parts"]["answer_tags"] == 1.0 for done in prompt["completions"]] for prompt in prompts]
        assert figures["format_rate"]["high"] == rate([sum(row) / 4 for row in tags], 4).high
        for name, share in figures["markers"].items():
            assert share == pytest.approx(sum(name in markers(done["text"]) for done in everything) / len(everything))


def test_the_trained_model_is_better_and_the_table_says_how_surely(compared) -> None:
    _, content, _ = compared
    untrained, _, warm, _ = content["results"]
    assert warm["figures"]["pass_at_1"]["mean"] > untrained["figures"]["pass_at_1"]["mean"] + 0.2
    counts = [
        [int(sum(done["parts"]["correctness"] for done in prompt["completions"])) for prompt in result["prompts"]]
        for result in (warm, untrained)
    ]
    again = paired_difference(*counts, NUM_COMPLETIONS)
    assert (warm["difference"]["mean"], warm["difference"]["p_value"]) == (again.mean, again.p_value)
    assert again.p_value < 0.05
    assert untrained["difference"] is None


def test_all_were_asked_the_same_problems(compared) -> None:
    _, content, _ = compared
    asked = [[prompt["id"] for prompt in result["prompts"]] for result in content["results"]]
    assert asked[0] == asked[1] == asked[2] == asked[3]
    assert content["results"][2]["prompts"][0]["text"] == content["results"][0]["prompts"][0]["text"]


def test_no_process_is_left(compared) -> None:
    """Ray's agents may take a moment to notice that their node has ended."""
    _, _, mark = compared
    deadline = time.monotonic() + 30
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def processes_with(mark: str) -> list[bytes]:
    """Return the command lines of the processes that carry the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes())
        except OSError:  # somebody else's, or it just ended
            continue
    return found

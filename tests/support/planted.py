"""A run into whose directory, settings and environment secrets are planted, which nothing that is shared may hold."""

import json
import socket
from pathlib import Path

import pytest

from tests.support.run_directories import written_run

VARIABLES = {
    "RAYZERO_SECRET": "planted-env",
    "JUDGE_API_KEY": "planted-key",
    "HF_TOKEN": "hf_planted0123456789",
    "RAY_ADDRESS": "http://planted.job:8265",
    "LOGNAME": "planted-login",
}


def planted_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """Return the run, and what must not be told of it: folders, users, hosts, variables, keys and addresses of jobs."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "gethostname", lambda: "planted-machine")
    run = written_run(folder / "planted-folder", "mine", 4, 2, "no", "tracking.wandb_project=planted-project")
    settings = json.loads((run / "config.json").read_text())
    settings["model"] |= {"path": "/home/planted-user/models/base-1b", "build": None}
    settings["model"]["teacher"] = "/home/planted-user/teacher-7b"
    settings["warm_start"]["data"] = "work/planted-login/pairs.jsonl"
    settings["prompts"]["system"] = "You run on planted-machine."
    settings["rewards"]["parameters"] = {
        "judge": {
            "url": "http://planted.host:8000/v1",
            "api_key": "hf_planted0123456789",
            "note": "as planted-key says",
            "rule": "ask planted.job:8265 first",
            "who": "someone@planted.host",
            "hf-tokens": ["planted-short"],
            "accessKey": {"planted-id": "planted-short"},
            "by file": {"/home/planted-user/rows.jsonl": 0.5, "/home/planted-user": 1.0},
            "model": "C:\\Users\\planted-user\\judge",
        }
    }
    (run / "config.json").write_text(json.dumps(settings))
    (run / "log.txt").write_text(
        "2026-01-01 00:00:00,000 WARNING /home/planted-user died on planted.host\n"
        "2026-01-01 00:00:01,000 INFO peak memory, GiB: {'generator-0': 1.5, 'learner-0': 2.0}\n"
    )
    (run / ".lock").write_text("process 1 on planted.host")
    (run / "fingerprints.json").write_text(
        json.dumps({"format": 1, "models": {"the base model": {"config.json": "planted-hash"}}, "problems": {}})
    )
    return run, ["planted", str(folder), str(Path.home())]

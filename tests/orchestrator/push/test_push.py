"""A trained model is given away with a card made of its run, which tells nothing of the machine."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from orchestrator.cli import main
from orchestrator.config.recipe import load
from orchestrator.push.hub import MAX_SAID
from orchestrator.report.plots import PICTURES
from tests.support.commands import rayzero
from tests.support.hub import TOKEN, hub_stand_in, talk_to
from tests.support.planted import planted_run
from tests.support.run_directories import set_in, written_run

WEIGHTS = b"weights" * 1000


def with_model(run: Path, *, adapter: bool = False) -> Path:
    """Put a model into `final/`, whose settings name folders of the machine that trained it."""
    (run / ".lock").unlink(missing_ok=True)  # this process trains nothing
    final = run / "final"
    settings = {
        **{"_name_or_path": "/home/planted-user/cache/gguf-1", "architectures": ["LlamaForCausalLM"]},
        **{"tokenizer_file": "/home/planted-user/my models/tokenizer.json", "other": "~planted-user/model"},
    }
    (final / "config.json").write_text(json.dumps(settings))
    (final / "model.safetensors").write_bytes(WEIGHTS)
    (final / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"/home/usr": 1}}}))
    (final / "notes-of-planted-user.md").write_text("not of the model")
    if adapter:
        (final / "adapter").mkdir()
        (final / "adapter" / "adapter_model.safetensors").write_bytes(b"adapter")
        (final / "adapter" / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": "/home/planted-user/cache/warm-1", "r": 8})
        )
    return run


def test_a_model_its_adapter_and_its_card_are_uploaded(tmp_path: Path) -> None:
    run = with_model(written_run(tmp_path), adapter=True)
    set_in(run, "model", path="org/base-1b", build=None, lora={"rank": 8})
    set_in(run, "warm_start", num_steps=0)
    card = "---\nlicense: mit\n---\n# Base\n"
    with hub_stand_in(cards={"org/base-1b": card}) as hub:
        environment = {
            **{"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
            "HF_HOME": str(tmp_path / "home"),
        }
        ended = rayzero("push", str(run), "me/my-model", "--private", environment=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"{hub.url}/me/my-model"
    assert [(each["organization"], each["name"], each["visibility"]) for each in hub.created] == [
        ("me", "my-model", "private")
    ]
    assert hub.tokens == {f"Bearer {TOKEN}"} and TOKEN not in ended.stdout + ended.stderr
    assert [each["summary"] for each in hub.commits] == ["Upload the run my-model"]
    assert set(hub.files) == {
        *("README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "config.json"),
        *("curve.png", "model.safetensors", "recipe.toml", "tokenizer.json"),
    }
    assert hub.files["model.safetensors"] == WEIGHTS and b"planted" not in b"".join(hub.files.values())
    assert json.loads(hub.files["adapter/adapter_config.json"]) == {"base_model_name_or_path": "org/base-1b", "r": 8}
    data = ModelCard(hub.files["README.md"].decode()).data
    assert (data.license, data.base_model, "lora" in data.tags) == ("mit", "org/base-1b", True)
    assert 'PeftModel.from_pretrained(base, "me/my-model", subfolder="adapter")' in hub.files["README.md"].decode()
    assert not [file for file in run.iterdir() if file.name.startswith(".push")]


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "--license"), (401, "hf auth login"), (403, "may not write to me"), (500, "start the same")],
)
def test_a_hub_that_refuses_is_quoted_with_what_to_do(status, said, tmp_path: Path, monkeypatch, capsys) -> None:
    run = with_model(written_run(tmp_path))
    with hub_stand_in(refuses=status) as hub:
        talk_to(hub, monkeypatch, tmp_path / "hub")
        assert main(["push", str(run), "me/my-model"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: me/my-model could not be uploaded: ") and said in error and error.count("\n") == 1
    assert TOKEN not in error and len(error) < MAX_SAID + 400
    assert (run / "final" / "model.safetensors").read_bytes() == WEIGHTS
    assert not [file for file in run.iterdir() if file.name.startswith(".push")]


def test_nothing_of_the_machine_is_in_what_is_given_away(tmp_path: Path, monkeypatch, capsys) -> None:
    run, secrets = planted_run(tmp_path, monkeypatch)
    with_model(run, adapter=True)
    set_in(run, "model", lora={"rank": 8})
    assert main(["push", str(run), "me/my-model", "--dry-run"]) == 0
    folder = run / "push"
    texts = {file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert b"base-1b" in texts["README.md"] and b"pairs.jsonl" in texts["README.md"]
    assert b"| teacher | teacher-7b |" in texts["README.md"]
    for name, text in texts.items():
        assert not [secret for secret in secrets if len(secret) > 5 and secret.encode() in text], name
    assert json.loads(texts["adapter_config.json"])["base_model_name_or_path"] == "base-1b"
    assert json.loads(texts["tokenizer.json"])["model"]["vocab"] == {"/home/usr": 1}


def test_a_dry_run_says_how_to_go_on_and_overwrites_no_card_of_a_person(tmp_path: Path, capsys) -> None:
    run = with_model(written_run(tmp_path))
    command = ["push", str(run), "me/my-model", "--dry-run"]
    assert main(command) == 0
    folder = run / "push"
    assert capsys.readouterr().out.splitlines()[-1].strip() == f"hf upload me/my-model {folder}"
    assert (folder / "model.safetensors").samefile(run / "final" / "model.safetensors")
    assert main(command) == 0  # the same again
    (folder / "README.md").write_text("my own words")
    assert main(command) == 2
    assert "lost or changed, so nothing was written: README.md." in capsys.readouterr().err
    assert (folder / "README.md").read_text() == "my own words"
    assert main([*command, "--output", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / f"curve{PICTURES[0]}").stat().st_size > 1000
    (tmp_path / "mine").mkdir()
    assert main([*command, "--output", str(tmp_path / "mine")]) == 2


def test_a_dry_run_removes_no_file_of_a_person(tmp_path: Path, capsys) -> None:
    run = with_model(written_run(tmp_path))
    command = ["push", str(run), "me/my-model", "--dry-run"]
    assert main(command) == 0
    (run / "push" / "LICENSE").write_text("mine")
    (run / "push" / "config.json").write_text("{}")
    assert main(command) == 2
    assert "lost or changed, so nothing was written: LICENSE, config.json." in capsys.readouterr().err
    assert (run / "push" / "LICENSE").read_text() == "mine" and not (run / ".push.tmp").exists()


@pytest.mark.parametrize(("steps", "ended"), [(7, 0), (5, 2)])
def test_supervised_training_has_its_own_steps_whatever_else_its_recipe_asks(steps, ended, tmp_path, capsys) -> None:
    run = with_model(written_run(tmp_path, "taught", 10, 0))
    rows = [{"step": step, "optim/loss": 0.5, "time/step_s": 1.0} for step in range(1, steps + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    set_in(run, "warm_start", num_steps=7)
    assert main(["push", str(run), "me/my-model", "--dry-run"]) == ended
    if ended:
        said = capsys.readouterr().err
        assert "at step 5 of 7, so" in said and "resumes it" in said and "num_steps" not in said
        return
    card = (run / "push" / "README.md").read_text()
    assert "by supervised training" in card and "$ rayzero sft recipe.toml" in card and "| Steps | 7 of 7 |" in card
    assert "Algorithm" not in card and "steps of supervised training" not in card and "| supervised pairs |" in card


def test_of_a_run_that_was_stopped_as_hopeless_no_command_is_named_that_would_not_resume_it(tmp_path, capsys) -> None:
    run = with_model(written_run(tmp_path, "one", 4, 0, "no", "health.stop_after=2"))
    found = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(found | {"num_steps": 9}))
    rows = [{"step": step, "reward/total": 0.0, "rollout/groups_without_spread": 1.0} for step in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["push", str(run), "me/my-model", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "stopped as hopeless" in said and "health.stop_after is raised" in said and "resumes it" not in said


def test_the_recipe_repeats_the_run(tmp_path: Path) -> None:
    run = with_model(written_run(tmp_path))
    assert main(["push", str(run), "me/my-model", "--dry-run"]) == 0
    again = load(str(run / "push" / "recipe.toml"), [])
    before = load("countdown-tiny", ["name=one", "num_steps=4"])
    left_out = {"placement", "tracking", "runs_dir"}
    assert again.model_dump(exclude=left_out) == before.model_dump(exclude=left_out)


@pytest.mark.parametrize(
    "name",
    [
        *("my-model", "me/", "/my-model", "me/my model", "me/a/b", "me/..", "me/a--b", "me--you/a", "me/" + "a" * 97),
        *("me/-a", "me/a-", "me/.a", "me/a.", "me/a.git", "me/größe", "me/a\n"),
    ],
)
def test_what_is_no_name_on_the_hub_is_refused(name, tmp_path: Path, capsys) -> None:
    assert main(["push", str(tmp_path), name]) == 2
    error = capsys.readouterr().err
    assert "OWNER/NAME" in error and error.count("\n") == 1


def test_what_cannot_be_given_away_is_said_before_anything_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    run = with_model(written_run(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert main(["push", str(run), "me/my-model"]) == 2
    assert "hf auth login" in capsys.readouterr().err
    (run / "final" / "model.safetensors").unlink()
    assert main(["push", str(run), "me/my-model"]) == 2
    assert "contains no model" in capsys.readouterr().err
    found = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(found | {"num_steps": 9}))
    assert main(["push", str(run), "me/my-model"]) == 2
    assert "at step 4 of 9, so there is no finished model" in capsys.readouterr().err
    (run / "config.json").write_text(json.dumps(found))
    (run / "final" / "step").write_text("3\n")  # the run was killed before the model of step 4 was exported
    assert main(["push", str(run), "me/my-model"]) == 2
    assert "at step 4 of 4, and final/ holds the model of step 3, so there is no" in capsys.readouterr().err
    (run / "config.json").write_text(json.dumps(found | {"num_steps": 9}))
    shutil.rmtree(run / "final")
    assert main(["push", str(run), "me/my-model", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "at step 4 of 9 and has no final/" in error and "num_steps=4" in error
    assert not (run / "push").exists()


def test_its_help_and_its_refusals_need_no_torch() -> None:
    code = "import sys, orchestrator.push.push; sys.exit(bool({'torch', 'transformers', 'ray'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

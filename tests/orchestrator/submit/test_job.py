"""A run as a job: what is sent, and what never is."""

import json

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.submit.job import EXCLUDES, Job, build_job
from tests.support.paths import ROOT

SECRET = "3f9c0d7be1a84256"
HERE = {"WANDB_API_KEY": SECRET, "HF_TOKEN": "hf_" + SECRET, "WANDB_MODE": "offline", "HOME": "/home/me", "LANG": "C"}


def job_of(*overrides: str, recipe: str | None = None, num_nodes: int = 1, also_send=(), here=HERE, folder=ROOT) -> Job:
    config = load(recipe, overrides)
    return build_job(config, recipe, overrides, folder, num_nodes, here, also_send)


def test_the_job_trains_the_recipe_with_the_same_settings_from_the_uploaded_code() -> None:
    sent = job_of("learner.learning_rate=2e-6", "prompts.template=Hi {question}; rm -rf $HOME")
    assert sent.entrypoint == (
        "python -m orchestrator.cli train deploy/recipes/smollm2-135m.toml learner.learning_rate=2e-6 "
        "'prompts.template=Hi {question}; rm -rf $HOME' runs_dir=\"$HOME\"/rayzero-runs"
    )
    assert sent.runtime_env["working_dir"] == str(ROOT)
    assert sent.metadata == {
        "job_name": "smollm2-135m",
        "recipe": "deploy/recipes/smollm2-135m.toml",
        "runs_dir": "~/rayzero-runs",
    }


def test_only_variables_of_the_allow_list_are_sent_and_no_secret_is_anywhere() -> None:
    sent = job_of(also_send=["LANG"])
    assert sent.runtime_env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "1800", "WANDB_MODE": "offline", "LANG": "C"}
    assert SECRET not in json.dumps([sent.entrypoint, sent.runtime_env, sent.metadata])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"also_send": ["WANDB_API_KEY"]}, ["--env WANDB_API_KEY", "cluster's nodes"]),
        ({"also_send": ["MY_TOKEN"]}, ["--env MY_TOKEN", "cluster's nodes"]),
        ({"also_send": ["UNSET"]}, ["--env UNSET", "not set here"]),
        ({"here": HERE | {"HF_ENDPOINT": "https://me:pw@hub"}}, ["HF_ENDPOINT", "user or a password"]),
        ({"here": HERE | {"WANDB_TAGS": f"a,{SECRET}"}}, ["the value of WANDB_API_KEY"]),
    ],
)
def test_a_secret_that_would_be_sent_is_refused_without_being_shown(arguments, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        job_of(**arguments)
    assert all(part in str(caught.value) for part in parts)
    assert SECRET not in str(caught.value) and "me:pw" not in str(caught.value)


def test_a_secret_among_the_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match="the job contains the value of WANDB_API_KEY"):
        job_of(f"tracking.wandb_project={SECRET}")


def test_secrets_runs_and_environments_are_left_out_of_the_upload(tmp_path) -> None:
    from ray._private.runtime_env.packaging import _get_excludes

    is_left_out = _get_excludes(tmp_path, list(EXCLUDES))
    for name in ("runs/a/x", ".venv/bin/python", ".env", ".env.local", "sub/.netrc", "id.pem", ".git/HEAD"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert is_left_out(path) or is_left_out(path.parent), name
    for name in ("orchestrator/run.py", "deploy/recipes/countdown-tiny.toml", "data/runs.jsonl", "my_rewards.py"):
        assert not is_left_out(tmp_path / name), name


def test_runs_go_to_an_absolute_folder_and_the_cache_of_warm_starts_stays_with_them() -> None:
    sent = job_of("runs_dir=/shared/my runs", num_nodes=3)
    assert sent.entrypoint.endswith("/smollm2-135m.toml runs_dir='/shared/my runs'")
    assert sent.entrypoint.count("runs_dir=") == 1
    assert sent.runtime_env["env_vars"]["RAYZERO_CACHE"] == "/shared/my runs/.cache"
    chosen = job_of("runs_dir=/shared", also_send=["RAYZERO_CACHE"], here={"RAYZERO_CACHE": "/elsewhere"})
    assert chosen.runtime_env["env_vars"]["RAYZERO_CACHE"] == "/elsewhere"


@pytest.mark.parametrize(
    ("runs_dir", "num_nodes", "problem"),
    [("runs", 1, "relative"), ("out/runs", 2, "relative"), ("~/runs", 2, "2 nodes"), (None, 4, "4 nodes")],
)
def test_a_run_directory_that_would_be_lost_or_not_shared_is_refused(runs_dir, num_nodes, problem) -> None:
    overrides = [] if runs_dir is None else [f"runs_dir={runs_dir}"]
    with pytest.raises(ConfigError, match=rf"runs_dir.*{problem}.*runs_dir=/shared/runs"):
        job_of(*overrides, num_nodes=num_nodes)


def test_a_home_folder_is_the_head_nodes_own_where_there_is_one_node() -> None:
    assert job_of("runs_dir=~/my runs").entrypoint.endswith("runs_dir=\"$HOME\"/'my runs'")


def test_a_recipe_travels_with_the_working_directory_or_by_its_name(tmp_path) -> None:
    own = tmp_path / "recipes" / "own.toml"
    own.parent.mkdir()
    own.write_text((ROOT / "deploy/recipes/countdown-tiny.toml").read_text())
    assert " train recipes/own.toml " in job_of(recipe=str(own), folder=tmp_path).entrypoint
    assert " train smollm2-135m " in job_of(folder=tmp_path).entrypoint
    with pytest.raises(ConfigError, match=r"outside of the working directory.*copy it there"):
        job_of(recipe=str(own), folder=ROOT)

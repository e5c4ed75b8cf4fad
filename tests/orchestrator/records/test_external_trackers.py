"""TensorBoard, Trackio and MLflow, the real packages, offline: what they are told is read back from what they keep."""

import json
import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import pytest

from orchestrator.records.trackers.build import PACKAGES
from orchestrator.records.trackers.external import COLUMNS, NUM_ROWS, as_code, completion_rows
from tests.support.run_files import WrittenRun, row
from tests.support.tracked import PNG, Told, events, shown_by_tensorboard, state

HOSTILE = "![x](http://127.0.0.1:9/leak) <script>alert(1)</script>\n# head\r\u2028> quote\n```\nend"


def needs(name: str):
    is_missing = find_spec(PACKAGES[name]) is None
    return pytest.mark.skipif(is_missing, reason=f"{PACKAGES[name]} is not installed: pip install 'rayzero[{name}]'")


EVERY = [pytest.param(name, marks=needs(name)) for name in ("tensorboard", "trackio", "mlflow")]


@pytest.fixture(scope="module", autouse=True)
def _trackio_dir(tmp_path_factory) -> None:
    os.environ["TRACKIO_DIR"] = str(tmp_path_factory.mktemp("trackio"))  # it is read once


def project_of(run: WrittenRun) -> str:
    return run.path.parent.parent.name


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> WrittenRun:
    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    run = WrittenRun(tmp_path / "runs" / "one")
    run.configure(tracking={"project": project_of(run)}, learner={"learning_rate": 0.25})
    return run


def curve_of(name: str, run: WrittenRun, key: str = "reward/total") -> list[tuple[int, float]]:
    """Return a metric as the program shows it."""
    if name == "tensorboard":
        found = shown_by_tensorboard(events(run.path / "tensorboard"))[key]
        return [(step, round(value, 6)) for step, value in found]
    if name == "trackio":
        return [(log["step"], log[key]) for log in trackio_logs(run) if key in log]
    history = mlflow_client(run).get_metric_history(mlflow_id(run), key)
    return [(metric.step, metric.value) for metric in history]


def trackio_logs(run: WrittenRun) -> list[dict]:
    from trackio.sqlite_storage import SQLiteStorage

    (record,) = SQLiteStorage.get_run_records(project_of(run))
    return SQLiteStorage.get_logs(project_of(run), run_id=record["id"])


def mlflow_client(run: WrittenRun):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{run.path.parent / 'mlflow' / 'mlflow.db'}")


def mlflow_id(run: WrittenRun) -> str:
    return (run.path / "trackers" / "mlflow_id").read_text().strip()


@pytest.mark.parametrize("name", EVERY)
def test_a_step_that_is_done_again_replaces_or_is_shown_once_and_what_was_missed_is_told(name: str, run) -> None:
    with Told(run, name) as told:
        told.log(row(0), row(1))
        told.log(row(2), row(3))
    run.log(row(4))  # nobody was told of it
    run.cut(2)
    with Told(run, name, after=2) as told:
        told.log(row(3) | {"reward/total": 0.9})
        run.cut(2)  # a learner was lost
        told.log(row(3) | {"reward/total": 0.8}, row(4))
    run.log(row(5))
    with Told(run, name, after=5):
        pass
    third = 0.8 if name == "tensorboard" else 0.3
    assert curve_of(name, run) == [(0, 0.0), (1, 0.1), (2, 0.2), (3, third), (4, 0.4), (5, 0.5)]
    assert state(run, name) == 5


@pytest.mark.parametrize("name", EVERY)
def test_settings_curve_completions_and_report_are_there(name: str, run: WrittenRun) -> None:
    with Told(run, name) as told:
        run.write_rollouts(0, HOSTILE, "another", folder="held_out", prompt=HOSTILE)
        told.log(row(0), row(1, **{"reward/größe": 0.5, "eval/reward": float("nan")}))
        (run.path / "curve.png").write_bytes(PNG)
        told.log(row(2))
        (run.path / "report.html").write_text("<!doctype html>the report")
    {"tensorboard": check_tensorboard, "trackio": check_trackio, "mlflow": check_mlflow}[name](run)


def check_tensorboard(run: WrittenRun) -> None:
    shown = shown_by_tensorboard(events(run.path / "tensorboard"))
    assert '"learning_rate": 0.25' in shown["settings/text_summary"][0][1][0].decode()
    assert shown["curve"][0][0] == 2 and shown["curve"][0][1].encoded_image_string == PNG
    ((step, (text,)),) = [shown["held_out/00/text_summary"][0]]
    told, _, code = text.decode().partition("\n\n")
    assert step == 0 and told == "reward 1.0, correctness 1.0, tokens 3, finish_reason stop"
    assert not [line for line in code.splitlines() if line and line != "Completion:" and not line.startswith("    ")]
    assert "held_out/02/text_summary" not in shown
    assert str(run.path / "report.html") in shown["report/text_summary"][0][1][0].decode()


def check_trackio(run: WrittenRun) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    logs = trackio_logs(run)
    (table,) = [log["held_out/completions"] for log in logs if "held_out/completions" in log]
    assert [each["completion"] for each in table["_value"]] == [as_code(HOSTILE), as_code("another")]
    assert list(table["_value"][0]) == list(COLUMNS)
    assert [log["step"] for log in logs if "curve" in log] == [2]
    (record,) = SQLiteStorage.get_run_records(project_of(run))
    assert record["name"].startswith("one-")
    assert SQLiteStorage.get_run_config(project_of(run), run_id=record["id"])["learner"] == {"learning_rate": 0.25}
    assert [each["name"] for each in SQLiteStorage.list_artifacts(project_of(run))] == [f"{record['name']}-report"]


def check_mlflow(run: WrittenRun) -> None:
    client, found = mlflow_client(run), mlflow_client(run).get_run(mlflow_id(run))
    assert found.info.run_name == "one" and found.info.status == "FINISHED"
    assert client.get_experiment(found.info.experiment_id).name == project_of(run)
    assert found.data.params["learner.learning_rate"] == "0.25" and "reward/größe" in found.data.metrics
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "completions/step_000000.json", "type": "table"}
    ]
    folder = Path(found.info.artifact_uri.removeprefix("file://"))
    table = json.loads((folder / "completions" / "step_000000.json").read_text())
    assert table["columns"] == list(COLUMNS) and table["data"][0][:2] == [HOSTILE, HOSTILE]
    assert (folder / "curve.png").read_bytes() == PNG and "the report" in (folder / "report.html").read_text()
    assert json.loads((folder / "settings.json").read_text())["name"] == "one"


@needs("mlflow")
def test_runs_of_one_name_in_two_folders_are_two_runs(run: WrittenRun, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'all.db'}")
    other = WrittenRun(tmp_path / "elsewhere" / "one")
    for each in (run, other, run):
        with Told(each, "mlflow", after=-1) as told:
            told.log()
    with sqlite3.connect(tmp_path / "all.db") as database:
        assert [name for (name,) in database.execute("select name from runs")] == ["one", "one"]


def test_a_table_has_the_first_completion_of_the_first_prompts(run: WrittenRun) -> None:
    run.write_rollouts(1, *(f"text {index}" for index in range(NUM_ROWS + 8)), folder="held_out")
    rows = completion_rows(run.path / "held_out" / "step_000001.jsonl.zst")
    assert [each[1] for each in rows] == [f"text {index}" for index in range(NUM_ROWS)]
    assert rows[0] == ["question 0\n", "text 0", 1.0, 1.0, 3, "stop"]


def test_no_line_of_a_text_leaves_its_block_of_code() -> None:
    assert all(line.startswith("    ") for line in as_code(HOSTILE).splitlines())

"""Folders that the nodes of a run share, or should; tests/e2e/test_hosts.py has hosts that do not."""

import subprocess
import sys
from ast import literal_eval
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.base_model import written_folders
from orchestrator.cluster import seen_files, shared_folders
from orchestrator.cluster.nodes import PlacementError
from orchestrator.cluster.seen_files import answer, listing, token
from orchestrator.cluster.shared_folders import check_folders, refuse_other_models, refuse_unshared
from orchestrator.config.recipe import load
from tests.support.hosts import Host, network


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_files, "LAG_S", 0.3)


class Nodes:
    """A placement with these nodes beside the driver's."""

    layout: Any = SimpleNamespace(generators=(0,), ranks=(1,), rewards=())
    start_timeout_s = 1.0

    def __init__(self, *names: str) -> None:
        self._names = names

    def elsewhere(self, bundles: Any) -> dict[str, Any]:
        return {name: {} for name in self._names}


class Here:
    """A remote function that runs here, at once."""

    def __init__(self, function: Any) -> None:
        self.remote = function

    def options(self, **_: Any) -> "Here":
        return self


def test_a_run_of_one_node_asks_nobody_and_writes_nothing(tmp_path: Path) -> None:
    placement: Any = Nodes()
    check_folders(placement, str(tmp_path), {"runs_dir": tmp_path / "new"})
    assert list(tmp_path.iterdir()) == []


def test_every_other_node_is_asked_for_model_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def asked_for(calls: Any, call: str, *_: Any) -> Any:
        asked.extend(f"{call} of {node}" for node in calls)
        return calls

    monkeypatch.setattr(shared_folders, "wait_for", asked_for)
    monkeypatch.setattr(shared_folders, "_listing", Here(listing))
    monkeypatch.setattr(shared_folders, "_answer", Here(answer))
    placement: Any = Nodes("host2", "host3")
    check_folders(placement, str(tmp_path), {"runs_dir": tmp_path / "run"})
    assert asked == ["listing of host2", "listing of host3", "answer of host2", "answer of host3"]
    assert list((tmp_path / "run").iterdir()) == []
    monkeypatch.setattr(shared_folders, "_answer", Here(lambda *_: ""))  # written, but elsewhere
    with pytest.raises(PlacementError, match="what host2 writes there is not visible here"):
        check_folders(placement, "hub/name", {"runs_dir": tmp_path / "run"})


def test_a_folder_that_is_shared_is_answered_in_and_left_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with token(folder) as name:
        answers = {"node-1": answer(folder, name, f"{name}-0"), "node-2": answer(folder, name, f"{name}-1")}
        refuse_unshared("runs_dir", folder, answers, [f"{name}-0", f"{name}-1"])
    assert answers == {"node-1": "", "node-2": ""}
    assert list(folder.iterdir()) == []


def test_a_node_says_what_it_lacks(tmp_path: Path) -> None:
    assert answer(tmp_path / "gone", "token", "token-0") == "has no such folder"
    assert answer(tmp_path, "token", "token-0") == "does not see what is written here"
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_cannot_write_says_why(tmp_path: Path) -> None:
    with token(tmp_path) as name:
        (tmp_path / f"{name}-0").mkdir()
        assert answer(tmp_path, name, f"{name}-0") == "cannot write: Is a directory"
        (tmp_path / f"{name}-0").rmdir()


def test_a_host_without_the_shared_folder_is_found(tmp_path: Path) -> None:
    """A real mount namespace: on the second host an empty folder lies where the first has its runs and models."""
    runs, model = tmp_path / "runs", tmp_path / "model"
    for folder in (runs, model):
        folder.mkdir()
    (model / "config.json").write_text("{}")
    with network(2) as hosts, token(runs) as name:
        hosts[1].lose_folder(tmp_path)
        told = {
            host.name: on(host, f"answer(Path({str(runs)!r}), {name!r}, {f'{name}-{host.name}'!r})") for host in hosts
        }
        listed = {host.name: on(host, f"listing({str(model)!r})") for host in hosts}
        assert told == {"host1": "", "host2": "has no such folder"}
        with pytest.raises(PlacementError, match=r"runs_dir: .*host2 has no such folder\. Mount storage"):
            refuse_unshared("runs_dir", runs, told, [f"{name}-{host.name}" for host in hosts])
    with pytest.raises(PlacementError, match=r"has the model in .*: host2 has no such folder\. Put it"):
        refuse_other_models(str(model), listed["host1"], listed)


def on(host: Host, call: str) -> Any:
    """What a function of the module returns on that host."""
    words = f"from pathlib import Path; from {seen_files.__name__} import *; print(repr({call}))"
    return literal_eval(subprocess.check_output(host.command(sys.executable, "-c", words), text=True))


def test_an_unshared_folder_is_refused_with_key_nodes_and_fix(tmp_path: Path) -> None:
    (tmp_path / "token-1").touch()
    answers = {"node-0": "has no such folder", "node-1": "", "node-2": ""}
    with pytest.raises(PlacementError) as refused:
        refuse_unshared("runs_dir", tmp_path, answers, ["token-0", "token-1", "token-2"])
    assert str(refused.value) == (
        f"runs_dir: {tmp_path} is not one folder on all nodes of the run's learner ranks, which write there: node-0 "
        "has no such folder; what node-2 writes there is not visible here. Mount storage that all nodes share at "
        "one path, and set runs_dir to a folder of it"
    )


def test_a_model_may_be_a_copy_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    ours = listing(str(tmp_path))
    (tmp_path / "README.md").write_text("ours alone")
    assert ours == listing(str(tmp_path)) == {"config.json": 2}
    refuse_other_models("/model", ours, {"node-1": {"config.json": 2}})
    theirs = {"node-1": {"config.json": 3}, "node-2": listing(str(tmp_path / "gone")), "node-3": {"config.json": 2}}
    with pytest.raises(PlacementError, match=r"/model: node-1 has another config\.json .*; node-2 has no such"):
        refuse_other_models("/model", ours, theirs)


def test_the_cache_is_written_to_only_by_a_warm_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    warm, cold = (load("countdown-tiny", [f"warm_start.num_steps={steps}", "runs_dir=/runs"]) for steps in (5, 0))
    assert written_folders(warm) == {"runs_dir": Path("/runs/countdown-tiny"), "RAYZERO_CACHE": tmp_path / "cache"}
    assert written_folders(cold).keys() == {"runs_dir"}

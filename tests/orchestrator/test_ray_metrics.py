"""What a person sees of a run from outside: its metrics where Prometheus reads them, its actors and tasks in Ray's state."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.util.state import list_actors, list_tasks

from orchestrator.ray_metrics import RayMetricsTracker, meanings, metric_name
from tests.orchestrator.ray_head import RayHead
from tests.orchestrator.small import SMALL

ROOT = Path(__file__).resolve().parents[2]
RUN = "watched"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("reward/total", "rayzero_reward_total"),
        ("rollout/tokens_per_s", "rayzero_rollout_tokens_per_s"),
        ("reward/correctness/gsm8k-hard.v2", "rayzero_reward_correctness_gsm8k_hard_v2"),
        ("reward/größe", "rayzero_reward_gr__e"),
    ],
)
def test_every_key_is_a_valid_metric_name(key: str, name: str) -> None:
    assert metric_name(key) == name


def test_descriptions_are_those_of_the_documentation() -> None:
    assert meanings()["reward/total"] == "mean weighted reward, what is trained on"
    assert meanings()["eval/pass_at_1"].startswith("share of sampled completions that are right")
    assert {"time/update_s", "rollout/staleness", "system/reward_queue", "optim/kl_k3"} <= meanings().keys()


def test_tracking_needs_no_metrics_agent() -> None:
    tracker = RayMetricsTracker("alone")
    tracker.log(0, {"eval/reward": 0.5})
    tracker.log(1, {"reward/total": float("nan"), "reward/timeouts": 0})
    tracker.close()


class Watched:
    """A training run on a cluster, and what can be read of it while it goes on."""

    def __init__(self, head: RayHead, folder: Path) -> None:
        self.address = head.address
        self._targets = head.temp / "prom_metrics_service_discovery.json"
        self._metrics = folder / RUN / "metrics.jsonl"

    def gauges(self) -> dict[str, float]:
        """Rayzero's metrics of this run, by their names there."""
        samples = [sample for family in self.families() for sample in family.samples]
        return {sample.name: sample.value for sample in samples if sample.labels.get("run") == RUN}

    def families(self) -> list[Any]:
        """All metrics of all addresses where Ray tells Prometheus to look, and somebody answers."""
        addresses = [address for group in json.loads(self._targets.read_text()) for address in group["targets"]]
        families: list[Any] = []
        for address in addresses:
            with suppress(OSError), urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
                families += text_string_to_metric_families(page.read().decode())
        return families

    def lines(self) -> dict[int, dict[str, float]]:
        """metrics.jsonl, by step."""
        text = self._metrics.read_text() if self._metrics.exists() else ""
        return {line["step"]: line for line in map(json.loads, text.splitlines())}

    def left_behind(self, last_step: int) -> dict[str, float]:
        """What the gauges must show after a step: of each key the value that was logged last."""
        lines = [line for step, line in self.lines().items() if step <= last_step]
        return {f"ray_{metric_name(key)}": value for line in lines for key, value in line.items()}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run in its steps after the second."""
    folder = tmp_path_factory.mktemp("runs")
    warm_start = ROOT / "tests" / "data" / "countdown-warm-start"
    overrides = [
        *SMALL,
        f'model={{"path"="{warm_start}","dtype"="float32"}}',
        *("warm_start.num_steps=0", "rollout.num_generators=1", "learner.num_ranks=1", "rewards.num_workers=2"),
        *("num_steps=1000", f"name={RUN}", f"runs_dir={folder}"),
    ]
    command = [sys.executable, "-m", "orchestrator.cli", "train", *overrides]
    # Ray's processes report every 2 s instead of every 10, and want no token even where an earlier cluster left one.
    environment = os.environ | {"RAY_metrics_report_interval_ms": "2000", "RAY_AUTH_MODE": "disabled"}
    with ExitStack() as started:
        temp = tempfile.TemporaryDirectory(prefix="rz", dir="/tmp", ignore_cleanup_errors=True)
        head = RayHead(Path(started.enter_context(temp)), environment)
        started.callback(head.close)
        output = started.enter_context((folder / "output").open("w"))
        environment["RAY_ADDRESS"] = address_of(head)
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        started.callback(process.wait, timeout=120)
        started.callback(process.terminate)
        run = Watched(head, folder)

        def is_under_way() -> bool:
            assert process.poll() is None, (folder / "output").read_text()
            return run.gauges().get("ray_rayzero_step", 0) >= 2

        waited_for(is_under_way)
        yield run


def address_of(head: RayHead) -> str:
    """Where drivers join, which `ray start` prints after its dashboard answers."""
    log = head.temp / "ray-start.log"
    return str(waited_for(lambda: log.read_text().partition("--address='")[2].partition("'")[0]))


def waited_for(attempt: Callable[[], Any]) -> Any:
    """The first result that is not false."""
    deadline = time.monotonic() + 240
    while not (result := attempt()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.3)
    return result


@pytest.mark.slow
def test_the_endpoint_has_every_number_of_the_newest_step(watched: Watched) -> None:
    def gauges_that_agree() -> dict[str, float]:  # a scrape may fall into the moment between two steps
        gauges = watched.gauges()
        expected = watched.left_behind(int(gauges.get("ray_rayzero_step", -1)))
        return gauges if expected and expected.items() <= gauges.items() else {}

    gauges = waited_for(gauges_that_agree)
    assert len(gauges) > 40
    assert 0 <= gauges["ray_rayzero_reward_total"] <= 2 and gauges["ray_rayzero_rollout_tokens_per_s"] > 10
    assert gauges["ray_rayzero_steps_total"] >= 2
    asked_for = ("reward/correctness", "eval/pass_at_1", "time/update_s", "rollout/staleness", "system/reward_queue")
    assert {f"ray_{metric_name(key)}" for key in asked_for} <= gauges.keys()


@pytest.mark.slow
def test_a_metric_says_what_it_means_and_whose_it_is(watched: Watched) -> None:
    families = {family.name: family for family in watched.families()}
    reward = families["ray_rayzero_reward_total"]
    assert reward.type == "gauge" and reward.documentation == meanings()["reward/total"]
    assert [sample.labels["run"] for sample in reward.samples] == [RUN]
    assert families["ray_rayzero_steps"].type == "counter"


@pytest.mark.slow
def test_actors_and_their_calls_have_names_that_say_who_they_are(watched: Watched) -> None:
    actors = list_actors(address=watched.address, filters=[("state", "=", "ALIVE")], detail=True)
    names = {actor.name: actor.class_name for actor in actors if str(actor.name).startswith(f"{RUN}/")}
    assert names == {
        f"{RUN}/generator-0": "Generator",
        f"{RUN}/learner-0": "LearnerRank",
        f"{RUN}/reward-0": "RewardWorker",
        f"{RUN}/reward-1": "RewardWorker",
    }
    calls = {task.name for task in list_tasks(address=watched.address, limit=1000)}
    assert {f"{RUN}/generator-0.generate", f"{RUN}/learner-0.update", "RewardWorker.mark"} <= calls

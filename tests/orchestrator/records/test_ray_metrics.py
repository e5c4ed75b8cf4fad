"""Names, descriptions and robustness of the metrics that Ray exports; test_submit_run.py reads them off a real job."""

import pytest

from orchestrator.records.trackers.ray_metrics import RayMetricsTracker, description, metric_name


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


def test_descriptions_are_the_meanings() -> None:
    assert description("reward/total") == "mean weighted reward, which is what the policy is trained on"
    assert description("eval/pass_at_1").startswith("share of sampled completions that are right")
    assert description("optim/kl_k3").startswith("KL(policy")
    assert description("custom/own") == "custom/own"


def test_tracking_needs_no_metrics_agent() -> None:
    tracker = RayMetricsTracker("alone")
    tracker.log(0, {"eval/reward": 0.5})
    tracker.log(1, {"reward/total": float("nan"), "reward/timeouts": 0})
    tracker.close()

"""Metrics of evaluations, of the text, of time, and of the actors."""

from __future__ import annotations

from orchestrator.records.meanings.metric import MetricMeaning as Metric
from orchestrator.records.meanings.metric import MetricSection
from rewards.parts.markers import AGREEMENT

EVAL = MetricSection(
    "eval",
    """Measured on the held-out prompts, in the recipe's own format. Figures of another format that
`evaluation.formats` names are under its name, such as `eval/natural/pass_at_1`.

An estimate has its uncertainty under the same key with `_ci95`: the distance to the farther end of
its 95% interval over prompts. Shares have Wilson's interval, which is not symmetric, and
`eval/reward` a normal one ([evaluation](evaluation.md)). Tasks whose answers are not right or wrong
have neither pass@k, nor greedy completions, nor lengths of right and wrong ones.""",
    (
        Metric("eval/reward", "reward",
               "mean weighted reward of the sampled completions, in the units of `rewards.weights`", "rises"),
        Metric("eval/pass_at_1", "0 to 1", "share of sampled completions that are right", "rises",
               "flat while `reward/correctness` rises: the policy learns the training prompts by heart"),
        Metric("eval/<estimate>_ci95", "as the estimate",
               "distance from the estimate to the farther end of its 95% interval"),
        Metric("eval/pass_at_<k>", "0 to 1",
               "chance that one of k completions is right (unbiased, Chen et al. 2021); each k of "
               "`evaluation.pass_at`, or else `evaluation.completions_per_prompt`", "rises",
               "flat for a large k while `eval/pass_at_1` rises: training only makes likelier what the policy could do "
               "before"),
        Metric("eval/greedy_pass_at_1", "0 to 1", "share of greedy completions that are right", "rises"),
        Metric("eval/format_rate", "0 to 1",
               "share of completions in the required format: the part `format` is 1 if the recipe gives it a weight, "
               "else `answer_tags`; absent if neither has a weight", "near 1"),
        Metric("eval/completion_tokens", "tokens", "mean length of the sampled completions"),
        Metric("eval/right_completion_tokens", "tokens",
               "mean length of right completions; absent while no completion is right"),
        Metric("eval/wrong_completion_tokens", "tokens", "mean length of wrong completions", "longer than right ones",
               "grows first when a policy begins to ramble"),
        Metric("eval/unmarked", "0 to 1",
               "share of completions that got no grade, because of a deadline or an error of a reward; they count as "
               "wrong", "0", "log.txt has the exception"),
        Metric("eval/truncated", "0 to 1", "share of completions cut off at `sampling.max_completion_tokens`",
               "below 0.05", "raise that limit"),
        Metric("eval/marker/<behaviour>", "0 to 1",
               "share of completions that show a behaviour, named as under marker/ below"),
        Metric("eval/<format>/<figure>", "as the figure",
               "any figure above, for the same problems in another format of `evaluation.formats`",
               "moves with the recipe's own format", "stays: the wording was learned, not the task"),
    ),
)  # fmt: skip

MARKER = MetricSection(
    "marker",
    """Shares of completions in whose text a behaviour was detected, defined in
[rewards](rewards.md#markers). The reward workers look for them; a completion whose last reward
function did not end is left out. Each has its precision and recall against hand-made labels of
real sentences. A marker shows that the words are there, not that they are true: measure whether
verdicts are right before claiming that verification emerged, and give these figures with the
claim.""",
    tuple(
        Metric(f"marker/{name}", "0 to 1", f"share of completions that {what}; {AGREEMENT[name]}")
        for name, what in {
            "verification": "say whether a result is what was wanted, or that they check one",
            "backtracking": "take something back, or turn to another approach",
            "step_by_step": "number or order their steps, or calculate on with a result",
            "shows_calculation": "write out an operation with its result, right or wrong",
            "exploration": "try something, or name another way",
        }.items()
    ),
)

TIME = MetricSection(
    "time",
    "",
    (
        Metric("time/rollout_s", "s", "sampling and grading", "most of the step"),
        Metric("time/reward_wait_s", "s",
               "the part of `time/rollout_s` in which rewards were missing after the last completion was sampled",
               "below 5% of the step", "raise `rewards.num_workers`"),
        Metric("time/grading/<function>_s", "s",
               "seconds that a reward function took over the step's completions, summed over workers", "",
               "where `time/reward_wait_s` is long, the largest is the slowest grader"),
        Metric("time/update_s", "s", "the learner's update"),
        Metric("time/score_again_s", "s",
               "one more forward pass after the update, if an evaluation is due: it shows, for the report, how the "
               "update changed each token's logprob", "a third of `time/update_s` or less",
               "set `evaluation.every_steps` higher; `tracking.save_rollouts = false` records no completions at all"),
        Metric("time/publish_s", "s", "new weights to every generator", "below 2 s on the default"),
        Metric("time/evaluation_s", "s", "the evaluation, if one was due; at step 0 the evaluation before training"),
        Metric("time/step_s", "s", "the whole step, without the checkpoint that is saved after it"),
        Metric("time/other_s", "s", "time outside all phases: orchestration, logging", "below 5% of the step"),
    ),
)  # fmt: skip

SYSTEM = MetricSection(
    "system",
    """The actors and what waits for them. These depend on timing, and differ between runs that learn
the same.""",
    (
        Metric("system/reward_queue", "count",
               "groups that the reward workers had not returned when the step was logged",
               "0 with `max_staleness = 0`; small otherwise",
               "grows: grading is slower than sampling; raise `rewards.num_workers`"),
        Metric("system/reward_worker_restarts", "count",
               "reward workers replaced, dead or silent, since this command began", "0",
               "rises steadily: log.txt names the worker; too little memory, most likely"),
        Metric("system/in_flight_groups", "count",
               "groups that generators were sampling, or that waited for one, when the step was logged",
               "0 with `max_staleness = 0`, else up to `max_staleness × prompts_per_step`"),
        Metric("system/generators", "count", "generators that sample with the current weights",
               "`rollout.num_generators`", "lower: one is starting again; log.txt says why"),
        Metric("system/generator_restarts", "count", "generators replaced, dead or hanging, since this command began",
               "0", "log.txt says what was seen of each"),
        Metric("system/learner_restarts", "count",
               "times that all learner ranks were replaced because one was lost, since this command began", "0",
               "log.txt says which rank and why; the host's memory, most likely"),
        Metric("system/generator_peak_gib", "GiB",
               "highest main memory of the largest generator since this command began, from its last heartbeat; this "
               "metric and the next two are also available for a run that died", "steady after the first steps",
               "grows step by step: the host's memory runs out; at the end of a run log.txt has each process's"),
        Metric("system/learner_peak_gib", "GiB",
               "the same for the largest learner rank, from each update; starts again when the ranks are replaced",
               "steady after the first steps", "grows: lower `learner.max_tokens_per_microbatch`"),
        Metric("system/reward_worker_peak_gib", "GiB",
               "the same for the largest reward worker with the processes that it started, from its last report",
               "steady after the first steps", "grows: a reward function keeps what it reads"),
    ),
)  # fmt: skip

"""Records of completions of several turns, and who reads them."""

from __future__ import annotations

import json

import numpy as np
import zstandard

from learner.logprob_record import LogprobRecord
from orchestrator.records.files.strict_json import to_json
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.rollout_records import rollout_records
from orchestrator.records.trackers.external import completion_rows
from orchestrator.report.page.completions import completion_json
from orchestrator.report.reading.digest import digest, shown_in
from orchestrator.report.reading.record_stream import groups_of
from orchestrator.report.reading.tokens import TokenTexts
from tests.support.groups import in_turns, scored_group

GROUP = in_turns(scored_group("a", [True], text=""), "3*4", "=12. Wait, that is wrong. Let me try again.", "ok")
NUM_TOKENS = len(GROUP.completions[0].text)


def written() -> dict:
    (record,) = rollout_records(1, GROUP, [0.5])
    return json.loads(to_json(record))


def test_a_record_says_which_tokens_are_the_policys() -> None:
    record = written()
    assert record["num_tokens"] == 5 and len(record["token_ids"]) == NUM_TOKENS
    assert record["turns"][1] == {
        "start": NUM_TOKENS - 2,
        "end": NUM_TOKENS,
        "text_start": NUM_TOKENS - 2,
        "text_end": NUM_TOKENS,
    }
    assert record["rollout_logprobs"] == [-1, -2, -3, *[None] * (NUM_TOKENS - 5), -4, -5]
    assert record["completion"].startswith("3*4=12. Wait")


def test_what_the_learner_recorded_stands_at_the_policys_tokens() -> None:
    gaps = np.array([0.5, 0.25, 0, -0.00001, 2], np.float16)
    (record,) = rollout_records(1, GROUP, [0.5], LogprobRecord(gaps, changes=np.full(5, np.nan, np.float16)))
    spoken = json.loads(to_json(record))
    assert spoken["logprob_gaps"] == [0.5, 0.25, 0, *[None] * (NUM_TOKENS - 5), 0, 2]
    assert "-0.0" not in to_json(record["logprob_gaps"])
    assert not {"logprob_changes", "token_advantages"} & {*record}


def test_a_record_of_one_turn_is_what_it_always_was() -> None:
    (record,) = rollout_records(1, scored_group("a", [True]), [0.5])
    assert not {"turns", "num_tokens"} & {*record}
    assert record["rollout_logprobs"] == [-0.5] * 3


def test_whoever_reads_it_counts_the_policys_tokens_and_words_alone(tmp_path) -> None:
    record = written()
    file = tmp_path / "step_000001.jsonl.zst"
    file.write_bytes(zstandard.compress(json.dumps(record).encode() + b"\n"))
    assert digest(1, groups_of(file)).sides["all"]["tokens"][3] == 5
    (row,) = completion_rows(file)
    assert row[4] == 5
    shown = completion_json(record, TokenTexts())
    assert shown["length"] == 5 and shown["turns"] == [[0, 3], [NUM_TOKENS - 2, NUM_TOKENS]]
    assert shown["logprobs"] == [100, 200, 300, *[-1] * (NUM_TOKENS - 5), 400, 500]
    assert rollout_metrics([GROUP])["rollout/sampled_tokens"] == 5


def test_a_behaviour_in_an_observation_is_not_the_policys() -> None:
    ungraded = written() | {"markers": None}
    assert list(shown_in(ungraded)) == []
    assert "backtracking" in shown_in({name: value for name, value in ungraded.items() if name != "turns"})

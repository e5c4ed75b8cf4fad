"""Texts that end a completion, on real vLLM and a policy that writes them."""

import os

import numpy as np
import pytest
from transformers import AutoTokenizer

from rollout.actor import environment
from rollout.config import RolloutConfig, SamplingConfig
from rollout.types.prompts import Prompt
from rollout.types.sampling import EngineSpec, SamplingRequest
from tests.support.chatml_tokenizer import tokenizer as chatml_tokenizer
from tests.support.paths import WARM_START

CONFIG = RolloutConfig(max_concurrent_completions=16)
MODEL = str(WARM_START)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def engine(tokenizer):
    os.environ.update(environment(CONFIG))
    from rollout.engine.engine import Engine

    spec = EngineSpec(MODEL, "float32", 256, load_weights=True, reads_text=True)
    started = Engine(spec, CONFIG, lambda ids: tokenizer.decode(ids.tolist(), skip_special_tokens=True))
    yield started
    started.close()


def completions(engine, tokenizer, **sampling):
    ids = np.array(tokenizer.encode("Numbers: 3 7 9\nTarget: 33\n<think>"), dtype=np.int32)
    prompt = Prompt("train/000000", ids, "", "countdown", {})
    (group,) = engine.generate(
        SamplingRequest((prompt,), SamplingConfig(max_completion_tokens=200, **sampling), 8, seed=0)
    )
    return group.completions


@pytest.mark.slow  # it imports vLLM
@pytest.mark.parametrize("special", [(), ("<answer>", "</answer>")])
def test_a_stop_text_is_found_where_it_is_a_special_token(special) -> None:
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    from rollout.engine.requests import sampling_params

    tokenizer = chatml_tokenizer(special=special)
    settings = sampling_params(SamplingConfig(stop=("</answer>",)), group_size=1, seed=0)
    prompt = tokenizer.encode("?")
    request = EngineCoreRequest("0", prompt, None, settings, None, 0.0, None, None, None)
    detokenizer = IncrementalDetokenizer.from_new_request(tokenizer, request)
    found = [detokenizer.update([token], False) for token in tokenizer.encode("<answer>7</answer>")]
    assert found == [None] * (len(found) - 1) + ["</answer>"]


@pytest.mark.slow
def test_a_stop_text_ends_a_completion_and_stays_in_it(engine, tokenizer) -> None:
    free = completions(engine, tokenizer)
    stopped = completions(engine, tokenizer, stop=("</answer>", " no\n"))
    ended = [completion for completion in stopped if completion.text.endswith(("</answer>", " no\n"))]
    assert len(ended) == len([completion for completion in stopped if completion.finish_reason == "stop"]) > 0
    for alone, completion in zip(free, stopped, strict=True):
        # The same tokens up to the stop text: it decides where a completion ends, not what it says.
        assert alone.token_ids[: completion.num_tokens].tolist() == completion.token_ids.tolist()
        assert completion.text.count(" no\n") + completion.text.count("</answer>") <= 1
        assert len(completion.rollout_logprobs) == completion.num_tokens
    assert tokenizer.eos_token_id not in ended[0].token_ids

"""What a completion's text is: all that the policy wrote, special tokens too, but for the ends of turns and padding."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from rewards.parts.format import strict
from rewards.tasks import countdown
from rollout.prompts.decoding import TagError, check_tags, completion_decoder
from tests.support.chatml_tokenizer import tokenizer

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
RIGHT = "<think>4 and 3 make 7.</think>\n<answer>4 + 3</answer>"


def decoded(of, text: str) -> str:
    return completion_decoder(of)(np.array(of.encode(text, add_special_tokens=False), dtype=np.int32))


@pytest.mark.parametrize("special", [(), TAGS], ids=["of letters", "special tokens"])
def test_tags_reach_the_graders_whatever_they_are_made_of(special) -> None:
    of = tokenizer(special=special)
    assert len(of.encode("<think>")) == (1 if special else 7)
    text = decoded(of, f"{RIGHT}<|im_end|><|pad|><|pad|>")
    assert text == RIGHT
    answer = {"numbers": [3, 4], "target": 7, "must_use_all": True}
    assert countdown.score(text, answer)["correctness"] == strict(text, answer) == 1.0


def test_every_token_that_stops_the_model_is_left_out(tmp_path) -> None:
    """Qwen and Llama models stop at several tokens, of which the tokenizer names one."""
    saved = tokenizer(special=("<|endoftext|>", "<|eom|>"))
    saved.save_pretrained(tmp_path)
    stops = [saved.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    of = AutoTokenizer.from_pretrained(tmp_path)
    assert decoded(of, "The answer is 72<|endoftext|>") == "The answer is 72"
    assert decoded(of, "The answer is 72<|eom|>") == "The answer is 72<|eom|>"  # the policy did write that


def test_a_tokenizer_that_keeps_the_tags_passes(tiny_model) -> None:
    for of in (tokenizer(), tokenizer(special=TAGS), AutoTokenizer.from_pretrained(tiny_model)):
        check_tags(of)


def test_a_tag_that_ends_turns_is_refused() -> None:
    of = tokenizer(special=TAGS)
    of.eos_token = "</answer>"
    with pytest.raises(TagError, match=r"'</answer>' is, or holds, an end or padding token.*sampling\.stop"):
        check_tags(of)


def test_a_tag_that_the_tokenizer_rewrites_is_refused() -> None:
    from tokenizers import normalizers

    of = tokenizer()
    of.backend_tokenizer.normalizer = normalizers.Replace("<", "")
    with pytest.raises(TagError, match=r"makes 'think>' of '<think>'.*prompts\.format = \"natural\""):
        check_tags(of)

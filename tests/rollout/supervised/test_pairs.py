"""Pairs of prompt and completion: read and checked line by line, tokenized, in a seeded order."""

import gzip
import json

import pytest

from rollout.prompts.config import PromptsConfig
from rollout.prompts.mixture import Mixture
from rollout.supervised.examples import PairExamples
from rollout.supervised.pairs import LengthLimit, PairError, encode_pairs, read_pairs
from tests.support.byte_tokenizer import Bytes
from tests.support.chatml_tokenizer import CHATML, THINKING, WITHOUT_THINKING, tokenizer

GOOD = '{"prompt": "1+1=", "completion": "2"}'


def file_of(tmp_path, *lines: str) -> str:
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "pairs.jsonl")


def test_pairs_are_read_by_line_and_more_columns_do_not_matter(tmp_path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    path = file_of(tmp_path, GOOD, "", json.dumps({"prompt": chat, "completion": "ho", "source": 7}), "")
    first, second = read_pairs(path)
    assert (first.prompt, first.completion, first.where) == ("1+1=", "2", f"{path}, line 1")
    assert (second.prompt, second.completion, second.where) == (chat, "ho", f"{path}, line 3")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is not an object"),
        ('{"completion": "2"}', "line 2 has no 'prompt': it has 'completion'"),
        ('{"promt": "1", "completion": "2"}', "line 2 has no 'prompt', but 'promt': rename it"),
        ('{"prompt": "1", "completions": "2"}', "line 2 has no 'completion', but 'completions': rename it"),
        ("{}", "line 2 has no 'prompt': it has no keys"),
        ('{"prompt": "1", "completion": " "}', "line 2: completion = ' ' must be text and not empty"),
        ('{"prompt": "1", "completion": 2}', "line 2: completion = 2 must be text"),
        ('{"prompt": "", "completion": "2"}', "line 2: prompt = '' must be text, or a list of messages"),
        ('{"prompt": [], "completion": "2"}', r"line 2: prompt = \[\] must be text, or a list of messages"),
        ('{"prompt": [{"content": "1"}], "completion": "2"}', "line 2: prompt = .* a list of messages"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, line, message) -> None:
    with pytest.raises(PairError, match=message):
        read_pairs(file_of(tmp_path, GOOD, line, GOOD))


def test_a_file_that_is_missing_empty_or_not_text_says_what_to_do(tmp_path) -> None:
    with pytest.raises(PairError, match="no such file"):
        read_pairs(str(tmp_path / "nothing"))
    with pytest.raises(PairError, match="Is a directory"):
        read_pairs(str(tmp_path))
    with pytest.raises(PairError, match=r"has no rows: .* A pair is \{\"prompt\""):
        read_pairs(file_of(tmp_path, "", "  "))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(PairError, match="not UTF-8"):
        read_pairs(str(tmp_path / "binary"))


def test_prompt_and_completion_are_tokenized_apart_and_end_with_eos(tmp_path) -> None:
    tokenizer = Bytes()
    tokenizer.chat_template = "yes"
    chat = json.dumps({"prompt": [{"role": "user", "content": "hi"}], "completion": "ho"})
    text, worded = encode_pairs(read_pairs(file_of(tmp_path, GOOD, chat)), tokenizer, [])
    assert bytes(text.prompt_ids.tolist()) == b"1+1=" and text.completion_ids.tolist() == [ord("2"), 0]
    assert bytes(worded.prompt_ids.tolist()) == b"<user>hi<assistant>"
    assert {array.dtype.name for array in (text.prompt_ids, text.completion_ids)} == {"int32"}


def test_what_the_tokenizer_cannot_do_is_told_with_the_line(tmp_path) -> None:
    chat = json.dumps({"prompt": [{"role": "user", "content": "hi"}], "completion": "ho"})
    pairs = read_pairs(file_of(tmp_path, GOOD, chat))
    with pytest.raises(PairError, match=r"line 2: prompt is a list of messages, but .* no chat template"):
        list(encode_pairs(pairs, Bytes(), []))
    endless = Bytes()
    endless.eos_token_id = None
    with pytest.raises(PairError, match="no eos token"):
        list(encode_pairs(pairs, endless, []))

    class Strict(Bytes):
        chat_template = "yes"

        def apply_chat_template(self, conversation, **kwargs):
            raise RuntimeError("roles must alternate")

    with pytest.raises(PairError, match="line 2: the chat template refuses its messages: roles must alternate"):
        list(encode_pairs(pairs, Strict(), []))


def test_a_pair_may_be_as_long_as_the_limit_and_no_longer(tmp_path) -> None:
    pairs = read_pairs(file_of(tmp_path, GOOD))
    assert list(encode_pairs(pairs, Bytes(), [LengthLimit(6, "a", "b")]))
    with pytest.raises(PairError, match=r"line 1 has 6 tokens, above the\.key = 5: raise it"):
        list(encode_pairs(pairs, Bytes(), [LengthLimit(9, "a", "b"), LengthLimit(5, "the.key", "raise it")]))


@pytest.fixture
def many(tmp_path) -> str:
    return file_of(tmp_path, *(json.dumps({"prompt": f"{n}", "completion": f"{n}"}) for n in range(7)))


def taught(examples: PairExamples, count: int) -> list[str]:
    return [bytes(example.prompt_ids.tolist()).decode() for example in examples.take(count)]


def test_every_epoch_has_every_pair_in_another_order(many) -> None:
    examples = PairExamples(many, Bytes(), [], seed=0)
    epochs = [taught(examples, 7) for _ in range(4)]
    assert all(sorted(epoch) == [str(n) for n in range(7)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert taught(PairExamples(many, Bytes(), [], seed=1), 28) != [text for epoch in epochs for text in epoch]


def test_a_resumed_order_goes_on_across_epochs(many) -> None:
    whole = taught(PairExamples(many, Bytes(), [], seed=0), 30)
    first = PairExamples(many, Bytes(), [], seed=0)
    assert taught(first, 12) == whole[:12]
    second = PairExamples(many, Bytes(), [], seed=0)
    second.restore(json.loads(json.dumps(first.state())))
    assert taught(second, 18) == whole[12:]


ASK = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("prompt", "template"),
    [(ASK, THINKING), (ASK, WITHOUT_THINKING), ("User: hi\nAssistant: <think>\n", CHATML)],
    ids=["open", "opened and closed", "text"],
)
@pytest.mark.parametrize("completion", ["<think>\nA greeting.</think>ho", "Hm. <think>A greeting.</think>ho"])
def test_thinking_is_not_opened_twice(tmp_path, prompt, template, completion) -> None:
    def encoded(completion: str):
        path = file_of(tmp_path, GOOD, json.dumps({"prompt": prompt, "completion": completion}))
        return list(encode_pairs(read_pairs(path), tokenizer(template), []))

    with pytest.raises(PairError, match=r"pairs\.jsonl, line 2: the completion opens <think>, which .* has opened at"):
        encoded(completion)
    assert len(encoded(completion.replace("<think>", ""))) == 2
    assert len(encoded("A greeting.</think>ho, the tag is called <think>")) == 2


def test_thinking_that_nobody_opened_is_opened_by_the_completion(tmp_path) -> None:
    asks = "Show your work in <think> </think> tags."
    lines = [
        {"prompt": prompt, "completion": "<think>1</think>2"} for prompt in (asks, [{"role": "user", "content": asks}])
    ]
    assert len(list(encode_pairs(read_pairs(file_of(tmp_path, *map(json.dumps, lines))), tokenizer(), []))) == 2


ROLES_OF_ITS_OWN = (
    "{% for message in messages %}{% if message.role in ('system', 'user', 'assistant') %}<|im_start|>"
    "{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endif %}{% endfor %}"
)
"""A chat template that leaves out unknown roles, as Qwen2.5's does, and makes any content a text, as Llama 3's does."""


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"role": "human", "content": "How?"}, "line 1: the chat template leaves out the human message: name the role"),
        ({"role": "user", "content": [{"type": "text", "text": "How?"}]}, "line 1: .* reads no list as content"),
        ({"role": "user", "content": None}, "line 1: prompt = .* must be text, or a list of messages .* with text"),
        ({"role": "user", "content": 7}, "line 1: prompt = .* must be text, or a list of messages .* with text"),
    ],
    ids=["role", "parts", "none", "number"],
)
def test_a_question_that_the_chat_template_loses_or_garbles_is_refused(tmp_path, message, error) -> None:
    def encoded(*messages: dict):
        path = file_of(tmp_path, json.dumps({"prompt": messages, "completion": "ho"}))
        return list(encode_pairs(read_pairs(path), tokenizer(ROLES_OF_ITS_OWN), []))

    assert encoded({"role": "user", "content": " hi\n"})
    with pytest.raises(PairError, match=error):
        encoded({"role": "user", "content": "hi"}, message)


def test_templates_may_read_parts_and_write_calls_and_results_their_own_way(tmp_path) -> None:
    reads_parts = (
        "{% for message in messages %}{{ message.role }}: {% if message.content is string %}"
        "{{ message.content | tojson }}{% elif message.content %}{{ message.content[0].text }}{% endif %}\n{% endfor %}"
    )
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "How much?\nSay it."}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "sum", "arguments": {}}}]},
        {"role": "tool", "content": "7\n8"},
    ]
    path = file_of(tmp_path, json.dumps({"prompt": messages, "completion": "ho"}))
    (pair,) = read_pairs(path)
    assert pair.asked == "How much?\nSay it.\n7\n8"
    assert len(list(encode_pairs([pair], tokenizer(reads_parts), []))) == 1


@pytest.fixture
def held_out(tmp_path):
    """Questions of which one is held out, by a recipe of two questions."""
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"question": f"How much is {n}?", "answer": "1"}) + "\n" for n in (2, 3)))
    prompts = PromptsConfig.model_validate({"task": "gsm8k", "num_held_out": 1, "gsm8k": {"source": str(file)}})
    mixture = Mixture(prompts)
    return mixture.questions, mixture.held_out[0].problem.fields["question"]


def test_pairs_that_ask_a_held_out_question_are_not_taught(tmp_path, held_out, caplog) -> None:
    questions, question = held_out
    shown = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"  {question.upper()} Think."}]
    lines = [{"prompt": prompt, "completion": "2"} for prompt in ("other", f"Q: {question}\nA:", shown)]
    path = file_of(tmp_path, *map(json.dumps, lines))
    examples = PairExamples(path, Bytes(), [], 0, questions)
    assert taught(examples, 3) == ["other"] * 3 and examples.num_left_out == 2
    assert f"{path}: 2 of 3 pairs ask a held-out question and are not taught: line 2, line 3" in caplog.text
    with pytest.raises(PairError, match=r"each of its 1 pairs asks a held-out question"):
        PairExamples(file_of(tmp_path, json.dumps(lines[1])), Bytes(), [], 0, questions)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pairs.jsonl", b"\xef\xbb\xbf" + GOOD.encode()),
        ("pairs.jsonl.gz", gzip.compress(GOOD.encode(), mtime=0)),
        ("PAIRS.JSONL", GOOD.encode() + b"\r\n"),
        ("pairs.json", f"[{GOOD}]".encode()),
        ("pairs", GOOD.encode()),
        ("pairs.csv", b"prompt,completion\n1+1=,2\n"),
    ],
)
def test_pairs_come_in_any_file_of_rows(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    (pair,) = read_pairs(str(tmp_path / name))
    assert (pair.prompt, pair.completion) == ("1+1=", "2")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "caf\xe9", "completion": "2"}', r"line 1 is not UTF-8 \(byte 0xe9 at position 16\): save"),
        (b'{"prompt": "\\ud83d", "completion": "2"}', r"line 1: column 'prompt' holds .ud83d, half of a character"),
        (b'{"prompt": "1", "completion": "2", "prompt": "3"}', "line 1: 'prompt' occurs twice"),
    ],
)
def test_text_that_no_tokenizer_reads_is_refused_with_its_line(tmp_path, line, message) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(line)
    with pytest.raises(PairError, match=message):
        read_pairs(str(tmp_path / "pairs.jsonl"))


def test_a_system_message_that_the_template_leaves_out_is_refused(tmp_path) -> None:
    class Forgetful(Bytes):
        chat_template = "yes"

        def apply_chat_template(self, conversation, **kwargs):
            return "".join(turn["content"] for turn in conversation if turn["role"] == "user")

    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    pairs = read_pairs(file_of(tmp_path, json.dumps({"prompt": chat, "completion": "ho"})))
    with pytest.raises(PairError, match="line 1: the chat template leaves out the system message: write its text"):
        list(encode_pairs(pairs, Forgetful(), []))

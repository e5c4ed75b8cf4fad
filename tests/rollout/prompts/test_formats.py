"""How questions are worded: exact texts, for chat and for base models, in every format."""

import json

import pytest

from orchestrator.batches import as_json, from_json
from orchestrator.config.recipe import load
from rewards.parts.format import strict
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from rollout.prompts.template import Template
from rollout.tasks import countdown
from rollout.tasks.base import Problem, WorkedExample, load_task
from tests.support.byte_tokenizer import Bytes
from tests.support.chatml_tokenizer import (
    ALTERNATING,
    CHATML,
    DEEPSEEK,
    FORGETFUL,
    THINKING,
    WITHOUT_THINKING,
    tokenizer,
)

R1_ZERO = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it.\n"
    "User: Make {target} out of {numbers}.\nAssistant: "
)
EXAMPLE = WorkedExample(
    fields={"numbers": "[2, 5]", "target": "7"}, completion=" 2 and 5 make 7.</think>\n<answer>2 + 5</answer>"
)
PROBLEM = countdown.problem([3, 7], 21, True)


def settings(**changes) -> PromptsConfig:
    words = {"template": "Make {target} out of {numbers}.", "natural_template": "How do {numbers} make {target}?"}
    return PromptsConfig(**{"example": EXAMPLE, "assistant_prefix": "Let me think.\n<think>", **words, **changes})


def prompt(config: PromptsConfig, format, of):
    return Template(config, of).prompt("train/000000", PROBLEM, format)


CHAT = [
    (
        "zero_shot",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nMake 21 out of [3, 7].<|im_end|>\n"
        "<|im_start|>assistant\nLet me think.\n<think>",
    ),
    (
        "one_shot",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nMake 7 out of [2, 5].<|im_end|>\n"
        "<|im_start|>assistant\nLet me think.\n<think> 2 and 5 make 7.</think>\n<answer>2 + 5</answer><|im_end|>\n"
        "<|im_start|>user\nMake 21 out of [3, 7].<|im_end|>\n<|im_start|>assistant\nLet me think.\n<think>",
    ),
    (
        "natural",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow do [3, 7] make 21?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
]
BASE = [
    ("zero_shot", "Make 21 out of [3, 7].Let me think.\n<think>"),
    (
        "one_shot",
        "Make 7 out of [2, 5].Let me think.\n<think> 2 and 5 make 7.</think>\n<answer>2 + 5</answer>\n\n"
        "Make 21 out of [3, 7].Let me think.\n<think>",
    ),
    ("natural", "How do [3, 7] make 21?"),
]


@pytest.mark.parametrize(("format", "text"), CHAT)
def test_chat_text(format, text) -> None:
    of = tokenizer()
    made = prompt(settings(system="Be brief."), format, of)
    assert made.text == text and of.decode(made.token_ids) == text
    turn = of.convert_tokens_to_ids("<|im_start|>")
    assert list(made.token_ids).count(turn) == text.count("<|im_start|>")  # one token each, not its letters


def test_the_conversation_that_a_chat_template_words_comes_with_the_prompt() -> None:
    asked = {"role": "user", "content": "Make 21 out of [3, 7]."}
    system = {"role": "system", "content": "Be brief."}
    assert prompt(settings(), "zero_shot", tokenizer()).messages == (asked,)
    of_system, example, answered, question = prompt(settings(system="Be brief."), "one_shot", tokenizer()).messages
    assert (of_system, question) == (system, asked)
    assert (example["role"], answered["role"]) == ("user", "assistant")
    assert answered["content"].endswith("<answer>2 + 5</answer>")
    assert prompt(settings(chat=False), "one_shot", Bytes()).messages == ()
    kept = from_json(json.loads(json.dumps(as_json(prompt(settings(), "zero_shot", tokenizer())))))
    assert [*kept.messages] == [asked]


@pytest.mark.parametrize(("format", "text"), BASE)
def test_base_text(format, text) -> None:
    of = tokenizer(None)
    made = prompt(settings(chat=False), format, of)
    assert made.text == text and of.decode(made.token_ids) == text


@pytest.mark.parametrize("chat", [True, False])
def test_rewards_learn_the_format_from_the_prompt(chat) -> None:
    of = tokenizer() if chat else tokenizer(None)
    for format in ("zero_shot", "one_shot"):
        made = prompt(settings(chat=chat), format, of)
        assert (made.format, made.assistant_prefix) == (format, "Let me think.\n<think>")
        assert made.answer == {"numbers": [3, 7], "target": 21, "must_use_all": True}
    natural = prompt(settings(chat=chat), "natural", of)
    assert natural.assistant_prefix == "" and natural.answer["extraction"] == "natural"
    assert "extraction" not in PROBLEM.answer


def test_the_r1_zero_wording_for_a_base_model() -> None:
    config = settings(chat=False, template=R1_ZERO, assistant_prefix="<think>")
    assert prompt(config, "zero_shot", tokenizer(None)).text == (
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it.\n"
        "User: Make 21 out of [3, 7].\nAssistant: <think>"
    )


def test_the_tasks_own_wording_and_example_are_used_where_the_recipe_has_none() -> None:
    config = PromptsConfig(chat=False, assistant_prefix="<think>", max_prompt_tokens=1000)
    zero, one, natural = (prompt(config, f, tokenizer(None)).text for f in ("zero_shot", "one_shot", "natural"))
    assert zero.startswith("Using the numbers [3, 7], create an equation that equals 21.") and zero.endswith("<think>")
    assert one.endswith("\n\n" + zero) and "<think>I look for two numbers" in one and one.count("<think>") == 4
    assert "<answer>" not in natural and "<think>" not in natural and "[3, 7]" in natural


@pytest.mark.parametrize("task", ["countdown", "period_count"])
def test_a_tasks_own_example_can_be_shown_with_every_field_and_is_right(task) -> None:
    from importlib import import_module

    module = load_task(task)
    fields = {name for group in module.fields(module.SETTINGS()) for name in group}
    assert fields == set(module.EXAMPLE.fields)
    answer = {"numbers": [19, 36, 55, 7], "target": 65} if task == "countdown" else {}
    parts = import_module(f"rewards.tasks.{task}").score(module.EXAMPLE.completion, answer)
    assert parts["correctness"] == 1.0 if task == "countdown" else parts["periods"] == 2


def test_a_chat_template_that_hides_the_examples_reasoning_is_refused() -> None:
    assert "<think>" in prompt(settings(), "zero_shot", tokenizer(FORGETFUL)).text
    with pytest.raises(ValueError, match=r"leaves out a part of the worked example.*set prompts\.chat = false"):
        prompt(settings(), "one_shot", tokenizer(FORGETFUL))


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        (CHATML, ""),
        (FORGETFUL, ""),
        (THINKING, "<think>\n"),
        (DEEPSEEK, "<think>\n"),
        (WITHOUT_THINKING, "<think>\n\n</think>\n\n"),
        (ALTERNATING, "<think>"),
    ],
    ids=["ChatML", "Qwen3", "Qwen3.5", "DeepSeek", "Qwen3 without thinking", "one turn"],
)
def test_what_a_chat_template_opens_belongs_to_the_assistants_turn(template, opening) -> None:
    of = tokenizer(template)
    for format in ("zero_shot", "natural"):
        made = prompt(settings(assistant_prefix=""), format, of)
        assert made.text.endswith(opening) and made.assistant_prefix == opening
    turn = f"{made.assistant_prefix}3 times 7.</think>\n<answer>3 * 7</answer>"
    assert strict(turn, {"target": 21}) == (1.0 if opening in ("<think>\n", "<think>") else 0.0)


@pytest.mark.parametrize("template", [THINKING, DEEPSEEK, WITHOUT_THINKING, ALTERNATING])
def test_reasoning_is_not_opened_twice(template) -> None:
    with pytest.raises(ValueError, match=r"begins the assistant's turn with '<think>.*opens <think> again: leave it"):
        Template(settings(), tokenizer(template))


def test_a_worked_example_begins_as_the_turn_that_is_asked_for() -> None:
    keeping = THINKING.replace(".split('</think>')[-1]", "")
    made = prompt(settings(assistant_prefix=""), "one_shot", tokenizer(keeping))
    assert "assistant\n<think>\n 2 and 5 make 7.</think>\n<answer>2 + 5</answer>" in made.text


def test_a_tokenizer_without_chat_template_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"set prompts\.chat = false"):
        Template(PromptsConfig(chat=True), tokenizer(None))


def test_a_prompt_that_is_too_long_is_refused_with_its_id_and_format() -> None:
    config = settings(chat=False, max_prompt_tokens=60)
    assert prompt(config, "zero_shot", Bytes()).text
    message = (
        r"prompt train/000000 has \d+ tokens in the format one_shot, above prompts\.max_prompt_tokens = 60: raise it"
    )
    with pytest.raises(ValueError, match=message):
        prompt(config, "one_shot", Bytes())


def test_one_shot_prompts_fade_out_over_the_first_steps() -> None:
    stream = PromptStream(settings(chat=False, one_shot_steps=4, num_held_out=2), Bytes())
    shares, metrics = [], []
    for _ in range(6):
        prompts = stream.take(300)
        assert all(("2 and 5 make 7" in p.text) == (p.format == "one_shot") for p in prompts)
        shares.append(sum(p.format == "one_shot" for p in prompts) / 300)
        metrics.append(stream.metrics()["curriculum/one_shot_share"])
        stream.observe([])
    assert metrics == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert (shares[0], shares[4], shares[5]) == (1.0, 0.0, 0.0)
    # Four standard deviations of a binomial share.
    for share, due in zip(shares[1:4], metrics[1:4], strict=True):
        assert abs(share - due) < 4 * (due * (1 - due) / 300) ** 0.5
    assert {p.format for p in stream.held_out()} == {"zero_shot"}
    assert {p.format for p in stream.held_out("natural")} == {"natural"}


def test_the_default_recipes_tokenizer_knows_every_format_of_its_own_words(tiny_model) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tiny_model)
    overrides = [
        'prompts.natural_template="Numbers: {numbers_spaced}\\nTarget: {target}\\n"',
        'prompts.example={fields={numbers_spaced="9 3 7",target="42"},'
        'completion="9-3=6: 7+6=13 no, 7*6=42 yes\\n</think><answer>7*(9-3)</answer>"}',
        "prompts.max_prompt_tokens=64",
    ]
    stream = PromptStream(load("countdown-tiny", overrides).prompts, words)
    one_shot, natural = stream.held_out("one_shot")[0], stream.held_out("natural")[0]
    numbers, target = natural.answer["numbers"], natural.answer["target"]
    question = f"Numbers: {' '.join(map(str, numbers))}\nTarget: {target}\n"
    assert natural.text == question
    assert one_shot.text == (
        "Numbers: 9 3 7\nTarget: 42\n<think>9-3=6: 7+6=13 no, 7*6=42 yes\n</think><answer>7*(9-3)</answer>\n\n"
        f"{question}<think>"
    )
    assert words.decode(one_shot.token_ids) == one_shot.text and words.decode(natural.token_ids) == question


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template": "{numbers} {goal}"}, r"template asks for the fields \['goal'\]: countdown has \['numbers', 'num"),
        ({"template": "{numbers}"}, r"template must show \{target\}, and \{numbers\} or \{numbers_spaced\}"),
        ({"natural_template": "{target}"}, r"natural_template must show"),
        ({"template": "{numbers} {target"}, r"template = '\{numbers\} \{target'.*not a field twice: \{\{"),
        ({"template": "{numbers} {target} }"}, r"Single '\}' encountered.*not a field twice"),
        ({"template": "{numbers.__class__} {target}"}, r"asks for the fields \['numbers.__class__'"),
        ({"template": "{numbers} {target:d}"}, r"template = '\{numbers\} \{target:d\}'.*write \{name\} alone"),
        ({"template": "{numbers} {target:{numbers}}"}, r"write \{name\} alone"),
        ({"example": {"fields": {"numbers": "[1]"}, "completion": "x"}}, r"example\.fields = .* lacks \['target'\]"),
        ({"chat": False, "system": "Be brief."}, r"system is set but chat = false.*put its text in template"),
        ({"format": "one_shot", "one_shot_steps": 5}, r'one_shot_steps = 5 with format = "one_shot": set format'),
        ({"format": "natural", "one_shot_steps": 5}, r'one_shot_steps = 5 with format = "natural"'),
    ],
)
def test_a_wrong_wording_names_key_value_and_fix(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_doubled_braces_are_text() -> None:
    config = settings(chat=False, template="{{{numbers}}} {target}", assistant_prefix="")
    assert prompt(config, "zero_shot", Bytes()).text == "{[3, 7]} 21"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}",
            r"\(No system",
        ),
        ("{% for message in messages if message.role != 'system' %}{{ message.content }}{% endfor %}", "left out"),
    ],
)
def test_a_chat_template_without_a_system_role_is_named_and_the_fix_works(template, reason) -> None:
    of = tokenizer(template + ("" if "for" in template else CHATML))
    with pytest.raises(ValueError, match=rf"prompts\.system is set, but .*{reason}.*leave prompts\.system empty"):
        prompt(settings(system="Be brief."), "zero_shot", of)
    assert "Be brief. Make 21" in prompt(settings(template="Be brief. Make {target} of {numbers}."), None, of).text


def test_an_example_without_a_field_of_the_template_is_named() -> None:
    asked = PromptsConfig(task="jsonl", chat=False, template="{question} {hint}")
    problem = Problem({"question": "How many?", "hint": "Count."}, {"answer": "1"}, "1")
    (fault,) = Template(asked, Bytes()).faults([problem], "one_shot")
    assert fault == "the template shows {hint}, which the worked example lacks: set prompts.example"

"""Questions of one's own: files of any columns, graded by any grader; what is missing is named."""

import datetime
import json
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.config.recipe import ConfigError, load
from rewards.tasks import countdown, exact_match, gsm8k, multiple_choice
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from rollout.rows.json_text import json_text
from rollout.tasks.jsonl import JsonlConfig, source
from tests.support.byte_tokenizer import Bytes
from tests.support.paths import SHARED_DATA

DATA = SHARED_DATA
CITIES = [
    {"q": f"Which city is number {n}?", "a": f"City {n}", "level": n % 3, "hints": {"first": "C", "last": str(n)}}
    for n in range(12)
]


def file_of(tmp_path: Path, rows: list[dict], name: str = "rows.jsonl") -> str:
    path = tmp_path / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def config(path: str, **settings) -> JsonlConfig:
    return JsonlConfig(source=path, **{"question_column": "q", "answer_column": "a", **settings})


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_a_file_of_any_columns_is_asked_and_graded_by_the_grader_it_names(tmp_path, name) -> None:
    settings = config(file_of(tmp_path, CITIES, name), difficulty_column="level")
    problems = source(settings, 3, 0)
    everything = [*problems.held_out, *(problems.train(index) for index in range(9))]
    assert sorted(problem.fields["question"] for problem in everything) == sorted(row["q"] for row in CITIES)
    assert problems.num_problems == 9
    for problem in everything:
        number = problem.answer["answer"].removeprefix("City ")
        assert problem.difficulty == str(int(number) % 3)
        assert exact_match.score(f"<answer>city {number}</answer>", problem.answer)["correctness"] == 1.0


def test_answers_and_questions_reach_grader_and_template_as_they_are_written(tmp_path) -> None:
    written = ['"2024-01-01"', '"007"', "7", "2.50", "2.0", "1e3", "123456789012345678901234567890"]
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"q": {text}, "a": {text}}}\n' for text in written))
    problems = source(config(str(tmp_path / "rows.jsonl"), key_column="a"), 1, 0)
    everything = [*problems.held_out, *(problems.train(index) for index in range(len(written) - 1))]
    plain = sorted(text.strip('"') for text in written)
    assert sorted(problem.fields["question"] for problem in everything) == plain
    for problem in everything:
        assert json_text(problem.answer["answer"]).strip('"') == problem.fields["question"]
        assert isinstance(problem.answer["answer"], float) == (problem.key in ("2.50", "2.0", "1e3"))
        right = f"<answer>{problem.fields['question']}</answer>"
        assert exact_match.score(right, problem.answer)["correctness"] == 1.0


def test_one_answer_may_be_a_list_where_others_are_not(tmp_path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "1?", "a": ["7", 7.50]}\n{"q": "2?", "a": "7.50"}\n')
    problems = source(config(str(tmp_path / "rows.jsonl")), 1, 0)
    for problem in (*problems.held_out, problems.train(0)):
        assert exact_match.score("<answer>7.50</answer>", problem.answer)["correctness"] == 1.0


def test_every_column_is_a_field_of_the_template(tmp_path) -> None:
    rows = [row | {"note": None if index % 2 else "ä"} for index, row in enumerate(CITIES)]
    prompts = PromptsConfig(
        task="jsonl",
        chat=False,
        num_held_out=1,
        template="{question}|{q}|{level}|{hints}|{note}",
        jsonl=config(file_of(tmp_path, rows)),
    )
    for prompt in PromptStream(prompts, Bytes()).take(12):
        question, again, level, hints, note = prompt.text.split("|")
        number = int(question.split()[-1][:-1])
        assert question == again and level == str(number % 3) and note == ("" if number % 2 else "ä")
        assert json.loads(hints) == {"first": "C", "last": str(number)}
        assert prompt.grader == "exact_match" and prompt.source == "jsonl"


def parquet_of(tmp_path: Path, **columns: list) -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


def test_dates_and_decimals_are_shown_as_they_are_written(tmp_path) -> None:
    days = [datetime.date(2024, 1, day) for day in (30, 31)]
    path = parquet_of(tmp_path, q=["a?", "b?"], a=days, price=[Decimal("2.50"), Decimal("3.00")])
    stream = PromptStream(asked_of(path, "{q} {a} costs {price}").model_copy(update={"num_held_out": 1}), Bytes())
    texts = [prompt.text for prompt in (*stream.held_out(), *stream.take(1))]
    assert sorted(texts) == ["a? 2024-01-30 costs 2.50", "b? 2024-01-31 costs 3.00"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"q": [b"a?", b"b?"], "a": ["1", "2"]}, "row 0: column 'q' holds bytes: save it as text"),
        ({"q": ["a?", "b?"], "a": [b"1", b"2"]}, "row 0: column 'a' holds bytes: save it as text"),
        ({"q": ["a?", "b?"], "a": ["1", "2"], "hint": [b"x", b"y"]}, "row 0: column 'hint' holds bytes: save it"),
        ({"q": ["a?", "b?"], "a": [float("nan")] * 2}, "row 0: column 'a' is empty; leave the row out"),
        ({"q": ["  ", "\n"], "a": ["1", "2"]}, "row 0: column 'q' is empty; leave the row out"),
    ],
)
def test_values_that_are_no_text_or_number_name_row_and_column(tmp_path, columns, message) -> None:
    hint = " {hint}" if "hint" in columns else ""
    with pytest.raises(ValueError, match=message):
        asked_of(parquet_of(tmp_path, **columns), "{q}" + hint).source(1, 0)


def test_bytes_that_nobody_asks_for_do_not_matter(tmp_path) -> None:
    path = parquet_of(tmp_path, q=["a?", "b?"], a=["1", "2"], image=[b"\x89PNG", b"\x89PNG"])
    assert asked_of(path, "{q}").source(1, 0).num_problems == 1


def test_a_template_must_show_the_question(tmp_path) -> None:
    with pytest.raises(
        ValueError, match=r"template must show \{question\} or \{q\}, or the question cannot be answered"
    ):
        PromptsConfig(task="jsonl", chat=False, template="{level}", jsonl=config(file_of(tmp_path, CITIES)))


CAPITALS = [
    {"country": f"Country {n}", "q": "What is the capital?", "a": f"City {n}", "id": n, "note": n % 2}
    for n in range(103)
]


def asked_of(path: str, template: str, **settings) -> PromptsConfig:
    return PromptsConfig(task="jsonl", chat=False, num_held_out=5, template=template, jsonl=config(path, **settings))


def test_rows_that_differ_in_another_shown_column_are_different_problems(tmp_path) -> None:
    path = file_of(tmp_path, [*CAPITALS, CAPITALS[0] | {"country": "  COUNTRY 0 ", "id": 200}])
    prompts = asked_of(path, "About {country}: {q}")
    problems = prompts.source(5, 0)
    assert problems.num_problems == 103 - 5
    everything = [*problems.held_out, *(problems.train(index) for index in range(98))]
    assert len({problem.fields["country"].strip().lower() for problem in everything}) == 103


def test_what_no_template_shows_tells_no_rows_apart(tmp_path) -> None:
    path = file_of(tmp_path, CAPITALS)
    assert asked_of(path, "{q} ({note})").source(1, 0).num_problems == 1
    with pytest.raises(ValueError, match=r"103 rows, 1 different problems, too few for prompts\.num_held_out = 5"):
        asked_of(path, "{q}").source(5, 0)
    with pytest.raises(ValueError, match="103 rows, 1 different problems"):
        asked_of(path, "About {country}: {q}").source(5, 0, by_shown=False)  # as runs of earlier versions go on
    shown_when_natural = asked_of(path, "{q}").model_copy(update={"natural_template": "About {country}: {q}"})
    assert shown_when_natural.source(5, 0).num_problems == 98


def test_a_key_alone_decides_where_one_is_named(tmp_path) -> None:
    path = file_of(tmp_path, [row | {"id": row["id"] % 10} for row in CAPITALS])
    assert asked_of(path, "About {country}: {q}", key_column="id").source(5, 0).num_problems == 5


def test_duplicate_ids_say_how_many_different_problems_there_are(tmp_path) -> None:
    path = file_of(tmp_path, [row | {"id": row["id"] % 2} for row in CAPITALS[:10]])
    with pytest.raises(ValueError, match=r"10 rows, 2 different problems, too few for prompts\.num_held_out = 2"):
        source(config(path, key_column="id"), 2, 0)


def test_merged_rows_are_counted_and_those_with_another_answer_named(tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    source(config(file_of(tmp_path, [*CITIES, CITIES[3], CITIES[4] | {"q": CITIES[4]["q"].upper()}])), 1, 0)
    (counted,) = caplog.records
    assert counted.levelname == "INFO" and counted.message.endswith("rows.jsonl: 14 rows, 12 different problems")
    caplog.clear()
    contradicting = [CITIES[n] | {"a": "no"} for n in range(7)]
    source(config(file_of(tmp_path, [*CITIES, *contradicting])), 1, 0)
    _, warned = caplog.records
    assert (
        warned.levelname == "WARNING" and "7 rows ask what another row asks and have another answer" in warned.message
    )
    assert "rows.jsonl, line 1 and line 13; " in warned.message and warned.message.endswith("line 5 and line 17; …")


def test_a_path_leads_into_nested_columns(tmp_path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {n} + 1?"}], "reward_model": {"ground_truth": str(n + 1)}}
        for n in range(5)
    ]
    settings = JsonlConfig(
        source=file_of(tmp_path, rows),
        question_column="prompt.0.content",
        answer_column="reward_model.ground_truth",
        reward="gsm8k",
    )
    problem = source(settings, 1, 0).train(0)
    n = int(problem.fields["question"].split()[2])
    assert problem.answer == {"answer": str(n + 1)} and settings.grader == "gsm8k"
    assert gsm8k.score(f"<answer>{n + 1}</answer>", problem.answer)["correctness"] == 1.0


def test_a_reward_that_reads_more_than_the_answer_gets_more_columns(tmp_path) -> None:
    rows = [{"q": f"Make {n + 7} of 3, 4, {n}.", "nums": [3, 4, n], "target": n + 7} for n in range(5)]
    settings = config(
        file_of(tmp_path, rows),
        answer_column="target",
        answer_columns={"numbers": "nums", "target": "target"},
        reward="countdown",
    )
    problem = source(settings, 1, 0).train(0)
    n = problem.answer["target"] - 7
    assert problem.answer == {"answer": n + 7, "numbers": [3, 4, n], "target": n + 7}
    assert countdown.score(f"<answer>3 + 4 + {n}</answer>", problem.answer)["correctness"] == 1.0


def test_held_out_problems_come_from_their_own_file_and_are_not_trained_on(tmp_path) -> None:
    own = file_of(tmp_path, CITIES)
    held_out = file_of(
        tmp_path, [CITIES[0] | {"q": "Which  CITY is number 0?"}, {"q": "New?", "a": "yes"}], "test.jsonl"
    )
    problems = source(config(own, held_out_source=held_out), 2, 0)
    assert {problem.fields["question"] for problem in problems.held_out} == {"Which  CITY is number 0?", "New?"}
    trained = {problems.train(index).fields["question"] for index in range(40)}
    assert trained == {row["q"] for row in CITIES[1:]}


def test_a_key_column_says_what_is_the_same_problem(tmp_path) -> None:
    rows = [{"q": f"Wording {n} of question {n // 2}", "a": "x", "id": n // 2} for n in range(8)]
    problems = source(config(file_of(tmp_path, rows), key_column="id"), 2, 0)
    held_out = {problem.key for problem in problems.held_out}
    assert problems.num_problems == 2 and not held_out & {problems.train(index).key for index in range(8)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"answer_column": "aa"},
            r"rows\.jsonl, line 1: no column 'aa'; did you mean 'a'\? there are 'q', 'a', 'level'",
        ),
        ({"question_column": "hints"}, r"line 1: column 'hints' is nested; name a part.*'hints\.first', 'hints\.last'"),
        ({"answer_column": "hints.middle"}, r"line 1: no column 'hints\.middle'; .*there are 'q'"),
        ({"answer_columns": {"options": "choices"}}, r"line 1: no column 'choices'; there are"),
        ({"answer_columns": {"answer": "a"}}, "set answer_column instead"),
    ],
)
def test_a_wrong_column_is_refused_with_row_column_and_what_there_is(tmp_path, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        source(config(file_of(tmp_path, CITIES), **changes), 1, 0)


def test_an_empty_answer_names_its_row(tmp_path) -> None:
    for empty in (None, ""):
        rows = [*CITIES[:4], CITIES[4] | {"a": empty}]
        problems = source(config(file_of(tmp_path, rows)), 1, 0)
        (fault,) = problems.faults
        assert fault.said.endswith("line 5: column 'a' is empty; leave the row out, or name another column")
        assert len(problems.as_read) == len(rows) - 1


def test_no_source_and_a_missing_file_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prompts\.jsonl\.source is not set"):
        source(JsonlConfig(), 1, 0)
    with pytest.raises(FileNotFoundError, match=r"prompts\.jsonl\.source = 'none\.jsonl': no such file"):
        source(JsonlConfig(source="none.jsonl"), 1, 0)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data of real problems is not here")
def test_real_data_sets_of_other_columns_need_settings_only() -> None:
    solutions = source(JsonlConfig(source=str(DATA / "gsm8k_train_1000.jsonl"), reward="gsm8k"), 100, 0)
    for problem in map(solutions.train, range(0, 900, 9)):
        final = problem.answer["answer"].split("####")[1]
        assert gsm8k.score(f"<answer>{final}</answer>", problem.answer)["correctness"] == 1.0
    choices = JsonlConfig(
        source=str(DATA / "aqua_dev.jsonl"),
        answer_column="correct",
        answer_columns={"options": "options"},
        reward="multiple_choice",
    )
    for problem in map(source(choices, 10, 0).train, range(100)):
        letter = problem.answer["answer"]
        wrong = "B" if letter == "A" else "A"
        assert multiple_choice.score(f"<answer>{letter}</answer>", problem.answer)["correctness"] == 1.0
        assert multiple_choice.score(f"<answer>{wrong}</answer>", problem.answer)["correctness"] == 0.0


def test_a_reward_that_there_is_not_is_refused_when_the_recipe_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"'gsm9k'.*did you mean 'gsm8k'"):
        load("jsonl-4090", ["prompts.jsonl.reward=gsm9k"])
    load("jsonl-4090", ["prompts.jsonl.reward=mine", "rewards.tasks.mine=my_rewards:score"])

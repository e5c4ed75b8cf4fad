"""The texts of tokens: together they are the completion, by the tokenizer that the run keeps."""

from pathlib import Path
from types import SimpleNamespace

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from orchestrator.report.page.completions import completion_json
from orchestrator.report.reading.recorded_run import read_run
from orchestrator.report.reading.tokens import TokenTexts, keep_tokenizer, token_texts
from tests.support.run_directories import written_run


def by_bytes() -> Tokenizer:
    """A tokenizer of two words and single bytes, as byte-level BPE has them."""
    vocabulary = {"<|end|>": 0, "a": 1, "Ġb": 2} | {letter: 3 + n for n, letter in enumerate("âĤ¬")}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def record(text: str, token_ids: list[int]) -> dict:
    return {
        "completion": text,
        "token_ids": token_ids,
        "rollout_logprobs": [-0.004, -1.0, None, -200.0][: len(token_ids)],
    }


def test_a_character_of_several_tokens_comes_with_its_last() -> None:
    assert TokenTexts(by_bytes()).of([1, 2, 3, 4, 5, 0]) == ["a", " b", "", "", "€", "<|end|>"]


def test_texts_that_are_the_completion_are_kept_as_their_lengths() -> None:
    made = completion_json(record("a b", [1, 2, 0]), TokenTexts(by_bytes()))
    assert (made["lengths"], made["rest"], made["logprobs"]) == ([1, 2, 7], "<|end|>", [0, 100, -1])
    made = completion_json(record("something else", [1, 2]), TokenTexts(by_bytes()))
    assert made["pieces"] == ["a", " b"] and "lengths" not in made


def test_without_a_tokenizer_tokens_are_numbered(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    assert token_texts(read_run(run)).of([7]) == ["⟨7⟩"]
    (run / "final" / "tokenizer.json").write_text("torn")
    assert token_texts(read_run(run)).of([7]) == ["⟨7⟩"]


def test_a_run_keeps_its_tokenizer(tmp_path: Path) -> None:
    run = written_run(tmp_path)
    keep_tokenizer(SimpleNamespace(), run)  # one that has no file
    assert not (run / "tokenizer.json").exists()
    keep_tokenizer(SimpleNamespace(backend_tokenizer=by_bytes()), run)
    assert token_texts(read_run(run)).of([1, 2]) == ["a", " b"]

"""Text as it is sampled: whole characters, and nothing lost."""

from hypothesis import example, given
from hypothesis import strategies as st

from rollout.engine.increments import increments


def decode(token_ids) -> str:
    """One token a byte."""
    return bytes(token_ids.tolist()).decode(errors="replace")


def as_sentencepiece(token_ids) -> str:
    """Tokens of which each begins with a space, which the first of a text loses."""
    return "".join(f" {token}" for token in token_ids).removeprefix(" ")


def test_characters_come_whole() -> None:
    batches = [[byte] for byte in "a×🎉 b".encode()]
    assert list(increments(batches, decode)) == ["a", "×", "🎉", " ", "b"]


def test_a_space_that_only_the_first_token_loses_is_kept() -> None:
    assert list(increments([[1], [2, 3], [4]], as_sentencepiece)) == ["1", " 2 3", " 4"]


def test_bytes_that_never_become_a_character_come_at_the_end() -> None:
    assert "".join(increments([[65], [0xF0], [0x9F]], decode)) == "A" + decode_all([0xF0, 0x9F])


def test_broken_text_is_not_held_back_forever() -> None:
    pieces = increments(([0xFF] for _ in range(1000)), decode)
    assert len(next(pieces)) <= 16


def decode_all(token_ids) -> str:
    import numpy as np

    return decode(np.array(token_ids))


@example("00\x8000ࠀ𐀀𐀀", [3, 4, 4, 5])  # no piece but the last ends with a character
@given(st.text(), st.lists(st.integers(1, 5), max_size=50))
def test_the_pieces_make_up_the_whole_text(text, sizes) -> None:
    data = list(text.encode())
    batches = []
    for size in sizes:
        batches.append(data[:size])
        data = data[size:]
    assert "".join(increments([*batches, data], decode)) == text


def test_special_tokens_without_text_make_no_pieces() -> None:
    assert list(increments([[65], [0], [0]], lambda ids: decode(ids).replace("\0", ""))) == ["A"]

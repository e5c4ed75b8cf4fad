"""A tokenizer for tests, without a model."""


class Bytes:
    """A tokenizer of one token a byte."""

    chat_template = None
    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def apply_chat_template(self, conversation, **kwargs):
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in conversation) + "<assistant>"

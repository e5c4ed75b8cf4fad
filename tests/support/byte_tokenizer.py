"""A tokenizer for tests, without a model."""


class Bytes:
    """A tokenizer of one token a byte."""

    chat_template = None
    eos_token_id = 0
    pad_token_id = None
    name_or_path = ""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: list[int], **_: object) -> str:
        return bytes(token_ids).decode()

    def apply_chat_template(self, conversation, **kwargs):
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in conversation) + "<assistant>"

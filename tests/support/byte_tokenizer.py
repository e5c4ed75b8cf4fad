"""A tokenizer for tests, without a model."""


class Bytes:
    """A tokenizer of one token a byte."""

    chat_template = None
    eos_token_id = 0
    pad_token_id = None
    name_or_path = ""

    def __call__(self, text: list[str], *, add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.encode(each) for each in text]}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, token_ids: list[int], **_: object) -> str:
        return bytes(token_ids).decode()

    def apply_chat_template(self, conversation, **kwargs):
        if isinstance(conversation[0], list):
            return [self.apply_chat_template(each, **kwargs) for each in conversation]
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in conversation) + "<assistant>"

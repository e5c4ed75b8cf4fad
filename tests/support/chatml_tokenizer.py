"""A real Hugging Face tokenizer for tests: one token a byte, with a ChatML template or without any."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = CHATML.replace("message.content", "message.content.split('</think>')[-1]")
"""A chat template that leaves out the reasoning of earlier turns, as Qwen3's does."""


def tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Return a tokenizer with `chat_template`; None: that of a base model."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<|im_end|>")
    fast.chat_template = chat_template
    return fast

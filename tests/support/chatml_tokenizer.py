"""A real Hugging Face tokenizer for tests: one token a byte, with a ChatML template or without any."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = CHATML.replace("message.content", "message.content.split('</think>')[-1]")
"""A chat template that leaves out the reasoning of earlier turns, as Qwen3's does."""
THINKING = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif").replace(
    "message.content", "message.content.split('</think>')[-1]"
)
"""A chat template that opens the reasoning of the turn it asks for, as those of QwQ and Qwen3.5 do."""
DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{% elif message.role == 'assistant' %}<｜Assistant｜>{{ message.content.split('</think>')[-1] }}<|im_end|>"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
"""That of the distillations of DeepSeek-R1."""
WITHOUT_THINKING = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif")
"""That of Qwen3 when it is told not to think."""
ONE_TURN_ONLY = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
ALTERNATING = ONE_TURN_ONLY + "Q: {{ messages[0].content }} A: <think>"
"""A chat template of one turn, whose header cannot be seen."""


def tokenizer(chat_template: str | None = CHATML, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Return a tokenizer with `chat_template`; None: that of a base model. `special` are more special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    built.decoder = decoders.ByteLevel()
    names = ("<|im_start|>", "<|im_end|>", "<|pad|>", *special)
    built.add_special_tokens([AddedToken(name, special=True) for name in names])
    fast = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<|im_end|>", pad_token="<|pad|>")
    fast.chat_template = chat_template
    return fast

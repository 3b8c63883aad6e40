"""Small tokenizers in folders, as Hugging Face has them."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCAB = 300
TEXT = "the quick brown fox jumps over the lazy dog, and the dog sleeps on. "
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% elif message['role'] == 'user' %}{{ message['content'] }}"
    "{% else %}{{ raise_exception('there is no role ' + message['role']) }}{% endif %}{% endfor %}"
)
SPECIAL = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]


def save_tokenizer(folder: Path, *, template: str | None = TEMPLATE, begins: bool = False) -> Path:
    """Bytes and some merges, VOCAB tokens at most; `begins`: puts <|begin|> before every text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    if begins:
        from tokenizers.processors import TemplateProcessing

        begin = ("<|begin|>", made.token_to_id("<|begin|>"))
        made.post_processor = TemplateProcessing(single="<|begin|> $A", special_tokens=[begin])
    names = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **names)  # type: ignore[no-untyped-call]
    if template is not None:
        fast.chat_template = template
    fast.save_pretrained(str(folder))
    return folder

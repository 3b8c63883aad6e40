"""Hugging Face tokenizers from a folder: text and conversations to token ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpdt.errors import DataError

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What marks the assistant's words in a chat template, as transformers looks for it."""
NO_LIMIT = 1 << 60


class Tokenizer:
    """Documents begin with the tokenizer's first token where it puts one, and end with its end-of-text token."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError for a folder without a tokenizer that transformers can read."""
        check_folder(folder)
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise DataError(f"transformers reads no tokenizer from {folder}: {error}", FOLDER_HINT) from error
        self._tokenizer.model_max_length = NO_LIMIT  # Sequences are cut by the plan.
        self._folder = folder
        first = self._tokenizer("a").input_ids[:1]
        self.prefix: list[int] = first if first == [self._tokenizer.bos_token_id] else []
        end = self._tokenizer.eos_token_id
        self.suffix: list[int] = [] if end is None else [int(end)]

    @property
    def num_tokens(self) -> int:
        return len(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, without what documents begin and end with."""
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False).input_ids
        return found

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of whole documents; none of an empty one."""
        return [[*self.prefix, *ids, *self.suffix] if ids else [] for ids in self.encode(texts)]

    def conversation(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> tuple[list[int], list[int]]:
        """Ids of a conversation by the chat template, and 1 where a token is the assistant's."""
        found = self._tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return list(found["input_ids"]), list(found["assistant_masks"])

    def check_template(self) -> None:
        """Raises DataError for a folder whose template cannot say which tokens are the assistant's."""
        template = self._tokenizer.chat_template
        if template is None:
            raise DataError(
                f"the tokenizer of {self._folder} has no chat template", "give one with chat_template.jinja"
            )
        if not isinstance(template, str):
            raise DataError(f"the tokenizer of {self._folder} has {len(template)} chat templates", "leave one of them")
        if GENERATION.search(template) is None:
            raise DataError(
                f"the chat template of {self._folder} does not say which words are the assistant's",
                "put {% generation %} and {% endgeneration %} around them in its chat_template.jinja",
            )


FOLDER_HINT = "give the folder of a Hugging Face tokenizer, with tokenizer.json and tokenizer_config.json"


def check_folder(folder: Path) -> None:
    """Raises DataError where there is none."""
    if not folder.is_dir():
        raise DataError(f"there is no tokenizer folder {folder}", FOLDER_HINT)


def tokenizer_digest(folder: Path) -> bytes:
    """Of the files that a tokenizer is made of: weights beside them do not matter."""
    check_folder(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and (
            path.suffix in (".json", ".txt", ".model", ".jinja") and ".safetensors." not in path.name
        ):
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    return digest.digest()


def check_vocabulary(num_tokens: int, vocab_size: int) -> None:
    """Raises DataError for a tokenizer with tokens that the model has no row for."""
    if num_tokens > vocab_size:
        raise DataError(
            f"the tokenizer has {num_tokens} tokens, the model {vocab_size}",
            "give the model's own tokenizer, or plan a model with that vocab_size",
        )

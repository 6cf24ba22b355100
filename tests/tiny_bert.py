"""A tiny model built here, and texts for it; imported by tests and by the programs they start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

WORDS = """
the oil price rose after talks on supply while grain exports fell and banks cut rates
""".split()  # noqa: SIM905


def make_texts(count: int) -> list[str]:
    """Distinct short texts of 3 to 33 words."""
    return [
        " ".join([f"n{i}", *(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(2 + i % 31))])
        for i in range(count)
    ]


def save_tiny_bert(folder: Path, words: Iterable[str] = WORDS, *, layers: int = 2) -> Path:
    """A BERT of ``layers`` blocks of width 32 with random weights that knows ``words``, saved as
    any model is."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    vocabulary = {
        w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({*words})])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    return folder

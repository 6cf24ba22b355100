"""Tiny models with random weights and tokenizers trained here, saved as any model is."""

from __future__ import annotations

from pathlib import Path

WORDS = """
the oil price rose after talks on supply while grain exports fell and banks cut rates
shares of the company gained as profit beat what analysts had expected this quarter
""".split()  # noqa: SIM905
LAYERS, WIDTH = 4, 32


def make_text(words: int, seed: int = 0) -> str:
    """A text of so many words, the same for the same seed."""
    return " ".join(WORDS[(seed * 7 + i * i + 3 * i) % len(WORDS)] for i in range(words))


def save_tokenizer(folder: Path, kind: str) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "llama": ["<unk>", "<s>", "</s>"],
    }[kind]
    unknown = "[UNK]" if kind == "bert" else "<unk>"
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([make_text(200, seed) for seed in range(20)], trainer)
    start = {"bert": "[CLS]", "roberta": "<s>", "llama": "<s>"}[kind]
    end = {"bert": " [SEP]", "roberta": " </s>", "llama": ""}[kind]
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A{end}", special_tokens=ids
    )
    names = {"bert": {"pad_token": "[PAD]"}, "roberta": {"pad_token": "<pad>"}, "llama": {}}[kind]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, model_max_length=64, **names
    ).save_pretrained(folder)


def make_model(kind: str, layers: int, width: int) -> object:
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        LlamaConfig,
        LlamaForCausalLM,
        RobertaConfig,
        RobertaModel,
    )

    torch.manual_seed(0)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "vocab_size": 400,
        # Much wider than usual, so that blocks and positions matter in the results.
        "initializer_range": 0.2,
    }
    if kind == "llama":
        # With its LM head, as such models are published; no padding token.
        config = LlamaConfig(
            **shape,
            num_key_value_heads=2,
            max_position_embeddings=128,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=None,
        )
        return LlamaForCausalLM(config)
    if kind == "roberta":
        config = RobertaConfig(
            **shape, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1
        )
        return RobertaModel(config)
    return BertModel(BertConfig(**shape, max_position_embeddings=128, pad_token_id=0))

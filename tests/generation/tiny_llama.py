"""A tiny untrained causal model built here; imported by tests and by the programs they start."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = [
    "the oil price rose after talks on supply while grain exports fell and banks cut rates",
    "shares of the company gained as profit beat what analysts had expected this quarter",
    "say which of these labels fits the text and answer with the label only",
    "Label: earn acq crude trade money-fx interest ship grain Text: Clues: Reasoning:",
]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if not loop.last or "
    "add_generation_prompt %}</s>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_tiny_llama(
    folder: Path,
    *,
    chat_template: str | None = None,
    context: int = 2048,
    layers: int = 2,
    width: int = 32,
    kind: str = "llama",
) -> Path:
    """A Llama (or ``gpt2``) with random weights and a byte-level BPE trained on ``TEXTS``, saved
    as any model is, with the file that says it is untrained."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    saved = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    if chat_template is not None:
        saved.chat_template = chat_template
    torch.manual_seed(0)
    model: LlamaForCausalLM | GPT2LMHeadModel
    if kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=400,
                n_embd=width,
                n_layer=layers,
                n_head=4,
                n_positions=context,
                bos_token_id=1,
                eos_token_id=2,
                initializer_range=0.3,
            )
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=400,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                bos_token_id=1,
                eos_token_id=2,
                # Much wider than usual, so that what stands before matters to what comes next.
                initializer_range=0.3,
            )
        )
    model.save_pretrained(folder)
    saved.save_pretrained(folder)
    (folder / "llmembed-untrained.json").write_text(
        json.dumps({"reason": "a tiny model with random weights, built for tests"})
    )
    return folder

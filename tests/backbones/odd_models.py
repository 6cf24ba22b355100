"""Tiny models that are laid out otherwise than most, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS, WIDTH = 3, 32
_SHAPE = {
    "vocab_size": 400,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    # Much wider than usual, so that blocks, positions and neighbours matter in the results.
    "initializer_range": 0.2,
}
_MAMBA = {"state_size": 8, "conv_kernel": 3, "expand": 2}
# Kind -> its model type and what it needs beside, or instead of, the common shape.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "xlnet": (
        "xlnet",
        {"d_model": WIDTH, "n_layer": LAYERS, "n_head": 4, "d_inner": 2 * WIDTH},
    ),
    "opt-350m": (
        "opt",
        {"word_embed_proj_dim": 16, "ffn_dim": 64, "do_layer_norm_before": False},
    ),
    "deberta-conv": (
        "deberta-v2",
        {
            "conv_kernel_size": 3,
            "conv_act": "gelu",
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
        },
    ),
    "convbert": ("convbert", {"embedding_size": WIDTH, "conv_kernel_size": 3, "head_ratio": 2}),
    "bigbird": (
        "big_bird",
        {"attention_type": "block_sparse", "block_size": 8, "num_random_blocks": 1},
    ),
    "gemma3n": (
        "gemma3n_text",
        {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size_per_layer_input": 400,
            "hidden_size_per_layer_input": 8,
            "intermediate_size": [64] * LAYERS,
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "laurel_rank": 4,
            "activation_sparsity_pattern": [0.0] * LAYERS,
            "sliding_window": 32,
        },
    ),
    "mamba": ("mamba", _MAMBA),
    "rwkv": ("rwkv", {"attention_hidden_size": WIDTH, "context_length": 128}),
    "fnet": ("fnet", {}),
}


def save_odd(kind: str, folder: Path) -> Path:
    """The model of ``kind`` in ``folder``, norms and biases moved away from 1 and 0."""
    import torch
    from tiny_models import save_tokenizer
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    name, more = KINDS[kind]
    # XLNet has no limit of its own and refuses to be told one.
    shape = {k: v for k, v in _SHAPE.items() if name != "xlnet" or not k.startswith("max_")}
    config = CONFIG_MAPPING[name](**{**shape, **more})
    torch.manual_seed(0)
    model: Any = AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    save_tokenizer(folder, "bert")
    return folder

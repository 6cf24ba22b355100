"""Whole models trained on labelled texts: what ``methods.encoder`` and ``methods.decoder`` share.

::

    config      what may be set, without torch
    rows        encoded texts and labels -> padded batches
    answer_rows prompts with their answers as tokens
    packing     rows one behind another, with no padding
    trainable   what the training loop asks of a model
    order       which rows make up which step: seeded, rows of like length together
    heads       an encoder with a linear head for each task
    causal      a causal model whose answer tokens alone bear loss; LoRA, over a quantised base too
    places      a model's name -> where its files are
    arguments   the Trainer's arguments, from ours
    trainer     the Hugging Face Trainer, taught to count, to evaluate and to keep the best
    worker      what each worker of ``Runtime.train`` runs
    reports     losses, validation and checkpoints, told as they come
    answering   a fine-tuned encoder: texts -> logits, here or on actors
    untrained   small Llama models with random weights, for tests and machines without a hub
    speed       tokens a second, model FLOP utilisation, peak memory

Who runs the workers is not known here: ``cluster`` does, with or without DeepSpeed.
"""

from __future__ import annotations

from llmembed.finetuning.config import FinetuneConfig, LoraSettings

__all__ = ["FinetuneConfig", "LoraSettings"]

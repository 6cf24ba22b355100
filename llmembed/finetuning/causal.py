"""A causal model trained to answer: the answer's tokens alone bear loss; LoRA where it is set, over
weights that may be quantised."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from llmembed.backbones import quantising
from llmembed.backbones.backbone import quiet_loading
from llmembed.backbones.folder_checks import loading
from llmembed.finetuning import packing
from llmembed.finetuning.config import FinetuneConfig, LoraSettings
from llmembed.finetuning.places import ADAPTER
from llmembed.finetuning.rows import NO_LABEL
from llmembed.finetuning.trainable import Kept

LABELS = "labels/answer"


class CausalAnswers(nn.Module):
    """``model``: a causal language model, with LoRA's layers inside where ``lora`` is set.
    ``merges``: what is written is one whole model; else adapters alone, and they are also all that
    a checkpoint holds."""

    accepts_loss_kwargs = False  # told to the Trainer: the loss is divided here
    chosen_by = "loss"
    losses = ("answer",)
    judged = ()
    measures: ClassVar[dict[str, str]] = {"answer": "exact"}
    _keys_to_ignore_on_save = None  # the Trainer asks for it where a checkpoint lacks a name

    def __init__(
        self, model: Any, lora: LoraSettings | None = None, *, merges: bool = True
    ) -> None:
        super().__init__()
        self.lora = lora
        self.merges = merges
        self.plain = model  # without LoRA the model itself
        self.weights: Mapping[str, float] = {}
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        if lora is not None:
            from peft import LoraConfig, get_peft_model

            targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
            self.plain = get_peft_model(
                model,
                LoraConfig(
                    r=lora.rank,
                    lora_alpha=lora.alpha,  # type: ignore[arg-type]
                    lora_dropout=lora.dropout,
                    target_modules=targets,
                    task_type="CAUSAL_LM",
                ),
            )

    @property
    def config(self) -> Any:
        """What the Trainer and DeepSpeed ask for the model's width."""
        return self.plain.config

    def state_dict(self, *args: Any, **settings: Any) -> dict[str, Any]:  # type: ignore[override]
        """Without what is frozen, where the base model is only referred to."""
        found: dict[str, Any] = super().state_dict(*args, **settings)
        return found if self.merges else {k: v for k, v in found.items() if ".lora_" in k}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Takes what ``state_dict`` gives, and what a checkpoint holds: of weights with two names
        (tied embeddings) one."""
        places = {name: value.data_ptr() for name, value in super().state_dict().items()}
        read = {places[name] for name in state_dict if name in places}
        told = super().load_state_dict(state_dict, False, assign)
        told.missing_keys[:] = [
            name
            for name in told.missing_keys
            if places[name] not in read and (self.merges or ".lora_" in name)
        ]
        if strict and (told.missing_keys or told.unexpected_keys):
            raise RuntimeError(
                f"missing weights: {told.missing_keys}; unexpected: {told.unexpected_keys}"
            )
        return told

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        if self.lora is not None:
            # Else nothing that LoRA's layers read has a gradient.
            self.plain.enable_input_require_grads()
        self.plain.activation_checkpointing_enable(**settings)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        counts: Tensor,
        position_ids: Tensor | None = None,
        row_bounds: Tensor | None = None,
        **labels: Tensor,
    ) -> dict[str, Any]:
        """``counts`` (1,): by how many answer tokens the summed loss is divided. ``row_bounds``:
        see ``packing``."""
        truth = labels[LABELS][:, 1:]  # what each position is to say next
        more: dict[str, Any] = {}
        bounds = None if row_bounds is None else packing.Bounds(row_bounds.tolist())
        if bounds is not None:
            more = {"position_ids": position_ids, "row_bounds": bounds}
        if self._keeps:
            # Only where some row has an answer: the vocabulary is many times the width.
            places = (truth != NO_LABEL).any(dim=0).nonzero().flatten()
            more["logits_to_keep"], truth = places, truth[:, places]
        logits = self.plain(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **more
        ).logits
        if bounds is not None:
            packing.check_heeded(bounds, self.config.get_text_config().num_hidden_layers)
        logits = (logits if self._keeps else logits[:, :-1]).float()
        total = nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            truth.reshape(-1),
            ignore_index=NO_LABEL,
            reduction="sum",
        )
        loss = total / counts[0].clamp(min=1)
        return {"loss": loss, "sums": total.detach()[None], "logits": (logits.detach(), truth)}

    def label_counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        return (batch[LABELS][:, 1:] != NO_LABEL).sum().float()[None]

    def tallies(self, logits: tuple[Tensor, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        """How many answers would be written exactly as they should, of how many, twice: float64
        (1, 3). Every token is the likeliest after the right ones before it."""
        found, truth = logits
        right = (found.argmax(dim=-1) == truth) | (truth == NO_LABEL)
        rows = float(len(truth))
        return torch.tensor([[float(right.all(dim=1).sum()), rows, rows]], dtype=torch.float64)

    def kept(self, logits: Any, batch: Mapping[str, Tensor]) -> Kept:
        """Nothing: tokens of an answer are not labels yet. The best is told by the loss."""
        return {}

    def values(self, kept: Sequence[Kept]) -> dict[str, float]:
        return {}

    def write(self, folder: Path, state: Mapping[str, Tensor], tokeniser: Any) -> None:
        """``folder`` as ``save_pretrained`` writes it, with the tokenizer; LoRA's own weights in
        ``adapter``, in peft's form, and nothing else where they are not merged."""
        own = {k.removeprefix("plain."): v for k, v in state.items()}
        model = self.plain
        with quiet_loading():
            if self.lora is not None:
                model.save_pretrained(folder / ADAPTER, state_dict=own)
            if self.lora is not None and self.merges:
                own = merged(own, self.lora)
                model = model.get_base_model()
            if self.merges:
                model.save_pretrained(folder, state_dict=own)
        tokeniser.save_pretrained(folder)


def merged(state: Mapping[str, Tensor], lora: LoraSettings) -> dict[str, Tensor]:
    """The base model's weights with the adapters added: W + (alpha / rank) · B · A."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        plain = name.removeprefix("base_model.model.")
        if ".base_layer." in plain:
            layer = name.removesuffix(".base_layer.weight")
            if name.endswith(".base_layer.weight"):
                a = state[f"{layer}.lora_A.default.weight"].float()
                b = state[f"{layer}.lora_B.default.weight"].float()
                added = (lora.alpha / lora.rank) * (b @ a)
                value = (value.float() + added).to(value.dtype)
            plain = plain.replace(".base_layer.", ".")
        found[plain] = value
    return found


def start(
    folder: str, revision: str | None, *, config: FinetuneConfig, dtype: torch.dtype
) -> CausalAnswers:
    """The model in ``folder``, ready to be trained. Raises ``ModelError``, and
    ``UnsupportedError`` where it can't be quantised."""
    from transformers import AutoModelForCausalLM

    automatic: Any = AutoModelForCausalLM
    more: dict[str, Any] = {}
    if config.dropout is not None:
        more["attention_dropout"] = config.dropout
    if config.quantise is not None:
        more |= quantising.loading(config.quantise, dtype, _device())
    what = "can't be loaded as a causal model from safetensors"
    with loading(folder, what), quiet_loading():
        model = automatic.from_pretrained(
            folder, revision=revision, dtype=dtype, use_safetensors=True, **more
        )
    if config.quantise is not None:
        quantising.settle(model, folder)
    if config.padding_free:
        packing.keep_rows_apart(model, folder)
    return CausalAnswers(model, config.lora, merges=config.merges)


def _device() -> torch.device:
    """This worker's own: quantised weights are made where they are used."""
    gpu = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")

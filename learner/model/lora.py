"""Low-rank adapters (arXiv:2106.09685) within a model, and the weights that model and adapters amount to.

peft takes a second to import: a run without adapters never does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from learner.config import LoraConfig

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLoraConfig
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

ADAPTER = "default"
"""peft's name of the only adapter."""
FINGERPRINT_ELEMENTS = 1024
"""Elements of each parameter, about, that go into a fingerprint."""


def add_adapters(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """Put adapters into ``model``, in its dtype, and freeze all else. They change nothing at first.

    Every rank draws the same ones.

    ``model`` keeps its class; an adapted ``q_proj.weight`` becomes ``q_proj.base_layer.weight``, beside
    ``q_proj.lora_A.default.weight`` and ``q_proj.lora_B.default.weight``. The caller's random state is untouched.

    Raises:
        ValueError: a name in ``config.target_modules`` is no linear layer of the model, or is its LM head.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft says int, and divides by the rank
        target_modules=_targets(model, config),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs too, and those are not forked here.
        torch.default_generator.manual_seed(0)
        return get_peft_model(model, peft_config, autocast_adapter_dtype=False)


def _targets(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """Return ``config.target_modules`` as names, each that of a linear layer or the end of one."""
    # Not the LM head: the policy multiplies by its weight itself, past any adapter.
    head = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    existing = sorted({name.rpartition(".")[2] for name in layers})
    if config.target_modules == "all-linear":
        return existing
    for target in config.target_modules:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            raise ValueError(
                f"model.lora.target_modules names {target!r}, which is not a linear layer of {model.name_or_path} that "
                f'can have an adapter: use names out of {existing}, or "all-linear"'
            )
    return sorted(config.target_modules)


def base_fingerprint(model: PreTrainedModel) -> str:
    """Return a hexadecimal digest of some elements of every parameter of ``model``, which must be whole.

    It tells a base from another one, and from the same one with adapters merged into it. Take it before adapters go in.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        # Spread over the whole parameter, in a view: nothing is copied but the chosen elements.
        chosen = parameter.detach().flatten()[:: max(1, parameter.numel() // FINGERPRINT_ELEMENTS)]
        digest.update(chosen.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def settings_of(adapters: PeftModel) -> dict[str, Any]:
    """Return the settings of ``LoraConfig`` that ``adapters`` were made from, ``all-linear`` as names, fit for JSON."""
    config = cast("PeftLoraConfig", adapters.peft_config[ADAPTER])
    return {"rank": config.r, "alpha": config.lora_alpha, "target_modules": sorted(config.target_modules or ())}


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter under its Hugging Face name, with the adapter that changes it, if one does."""

    name: str
    """As in the Hugging Face checkpoint."""
    parameter: nn.Parameter
    adapter: LoraLayer | None = None
    """Added to ``parameter``; None where nothing is."""

    @property
    def parts(self) -> list[nn.Parameter]:
        """The parameters that ``value`` is computed from; ZeRO 3 must have gathered them."""
        if self.adapter is None:
            return [self.parameter]
        return [self.parameter, *self.adapter.lora_A.parameters(), *self.adapter.lora_B.parameters()]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the parameter itself, or its sum with the adapter, added in float32 and rounded once to its dtype."""
        if self.adapter is None:
            return self.parameter.detach()
        base, down, up = (part.float() for part in self.parts)
        return torch.addmm(base, up, down, alpha=self.adapter.scaling[ADAPTER]).to(self.parameter.dtype)


def merged_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yield the parameters of ``model`` under the names they have without adapters, which are merged into them.

    A tied LM head comes once, as the embedding.
    """
    for name, parameter in model.named_parameters():
        layer, adapted, rest = name.rpartition(".base_layer.")
        if adapted:
            adapter = cast("LoraLayer", model.get_submodule(layer)) if rest == "weight" else None
            yield Weight(f"{layer}.{rest}", parameter, adapter)
        elif not _is_adapters(name):
            yield Weight(name, parameter)


def adapter_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yield the parameters of the adapters alone, under their names in ``model``."""
    for name, parameter in model.named_parameters():
        if _is_adapters(name):
            yield Weight(name, parameter)


def _is_adapters(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name

"""Low-rank adapters (arXiv:2106.09685) in a model, and the model's weights with adapters merged into them.

peft takes a second to import, so it is imported only for a run with adapters.
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
"""Approximate number of elements of each parameter that a fingerprint uses."""


def add_adapters(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """Add adapters to ``model``, in its dtype, and freeze all other weights.

    New adapters do not change the model's output, and are the same on every rank. ``model`` keeps its class; an adapted
    ``q_proj.weight`` becomes ``q_proj.base_layer.weight``, beside ``q_proj.lora_A.default.weight`` and
    ``q_proj.lora_B.default.weight``. The caller's random state does not change.

    Raises:
        ValueError: a name in ``config.target_modules`` is not a linear layer of the model, or is its LM head.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft declares int, but divides by the rank
        target_modules=_targets(model, config),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the GPUs, whose random state is not restored here.
        torch.default_generator.manual_seed(0)
        return get_peft_model(model, peft_config, autocast_adapter_dtype=False)


def _targets(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """Return ``config.target_modules`` as a list; each entry is a linear layer's name or the end of one."""
    # Not the LM head: the policy multiplies by its weight directly, so an adapter would have no effect.
    head = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    existing = sorted({name.rpartition(".")[2] for name in layers})
    if not existing:
        raise ValueError(
            f"model.lora is set, but {model.name_or_path} is a {type(model).__name__} without linear layers that can "
            "have an adapter: leave model.lora unset, or use another model"
        )
    if config.target_modules == "all-linear":
        return existing
    for target in config.target_modules:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            raise ValueError(
                f"model.lora.target_modules names {target!r}, which is not a linear layer of {model.name_or_path} that "
                f'can have an adapter: use some of {existing}, or "all-linear"'
            )
    return sorted(config.target_modules)


def base_fingerprint(model: PreTrainedModel) -> str:
    """Return a hexadecimal digest of some elements of every parameter of ``model``, which must not be partitioned.

    It differs between base models, and also after adapters are merged into one. Call it before adapters are added.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        # A strided view over the whole parameter: only the chosen elements are copied.
        chosen = parameter.detach().flatten()[:: max(1, parameter.numel() // FINGERPRINT_ELEMENTS)]
        digest.update(chosen.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def settings_of(adapters: PeftModel) -> dict[str, Any]:
    """Return the ``LoraConfig`` settings of ``adapters`` for JSON, with ``all-linear`` as a list of names."""
    config = cast("PeftLoraConfig", adapters.peft_config[ADAPTER])
    return {"rank": config.r, "alpha": config.lora_alpha, "target_modules": sorted(config.target_modules or ())}


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter or buffer under its Hugging Face name, with its adapter if it has one."""

    name: str
    """Name in the Hugging Face checkpoint."""
    parameter: Tensor
    adapter: LoraLayer | None = None
    """The adapter that is added to ``parameter``, or None."""

    @property
    def parts(self) -> list[Tensor]:
        """The parameters that ``value`` is computed from; ZeRO 3 must have gathered them."""
        if self.adapter is None:
            return [self.parameter]
        return [self.parameter, *self.adapter.lora_A.parameters(), *self.adapter.lora_B.parameters()]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the parameter, or its sum with the adapter, computed in float32 and rounded once to its dtype."""
        if self.adapter is None:
            return self.parameter.detach()
        base, down, up = (part.float() for part in self.parts)
        return torch.addmm(base, up, down, alpha=self.adapter.scaling[ADAPTER]).to(self.parameter.dtype)


def merged_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yield the parameters of ``model`` with adapters merged into them, under their names without adapters.

    A tied LM head is yielded once, as the embedding. Last come the buffers that a checkpoint contains, such as the
    biases with which some models choose experts.
    """
    for name, parameter in model.named_parameters():
        layer, adapted, rest = name.rpartition(".base_layer.")
        if adapted:
            adapter = cast("LoraLayer", model.get_submodule(layer)) if rest == "weight" else None
            yield Weight(f"{layer}.{rest}", parameter, adapter)
        elif not _is_adapter(name):
            yield Weight(name, parameter)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in model.state_dict().items():
        if name not in parameters:
            yield Weight(name, tensor)


def adapter_weights(model: PreTrainedModel) -> Iterator[Weight]:
    """Yield only the parameters of the adapters, under their names in ``model``."""
    for name, parameter in model.named_parameters():
        if _is_adapter(name):
            yield Weight(name, parameter)


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name

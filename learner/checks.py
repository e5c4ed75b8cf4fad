"""Check settings of learner and model that are valid alone but wrong together."""

from __future__ import annotations

from learner.config import LearnerConfig, ModelConfig


def check_together(learner: LearnerConfig, model: ModelConfig) -> None:
    """Raise ValueError if settings of learner and model contradict each other."""
    algorithm = learner.algorithm
    if model.teacher is not None and algorithm.kl_beta == 0:
        raise ValueError(
            f"model.teacher is {model.teacher!r} with learner.algorithm.kl_beta 0, so the teacher is not used: set "
            'learner.algorithm.preset = "distill", or a kl_beta beside your rewards, such as 0.1'
        )
    if model.teacher is not None and algorithm.reference == "base":
        raise ValueError(
            'learner.algorithm.reference is "base" with model.teacher, which is another model: set it to "auto"'
        )
    if model.teacher is None and not algorithm.learns_from_rewards:
        raise ValueError(
            'learner.algorithm.surrogate is "none" (preset distill) without model.teacher: a policy cannot learn from '
            "its own initial weights; set model.teacher to a better model, such as runs/<name>/final"
        )
    if algorithm.reference == "base" and model.lora is None:
        raise ValueError(
            'learner.algorithm.reference is "base" without model.lora: only LoRA leaves the base weights unchanged; '
            'set learner.algorithm.reference = "copy", or set model.lora'
        )
    if model.dtype == "bfloat16" and learner.zero_stage == 0:
        raise ValueError(
            "learner.zero_stage is 0 with model.dtype bfloat16: DeepSpeed then computes other updates than in the "
            "other stages; set learner.zero_stage=1, which costs nothing on one rank, or model.dtype=float32"
        )
    if model.dtype == "float32" and model.attention == "flash_attention_2":
        raise ValueError(
            "model.attention is flash_attention_2 with model.dtype float32, which its kernels do not support: set "
            "model.attention=sdpa or model.dtype=bfloat16"
        )

"""What tests of several packages share."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")


# A slow machine is no failure.
settings.register_profile("rayzero", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rayzero")


ENGINES_ON_CORES = ("tests/e2e/", "tests/rollout/engine/test_engine")
"""Tests that start vLLM's engines, several at once, on cores."""


def wants_gpus(config) -> bool:
    """Return whether the tests of tests/gpu are asked for by name."""
    return any("gpu" in Path(argument.partition("::")[0]).parts for argument in config.args)


def pytest_configure(config) -> None:
    """Hide GPUs from all tests but those of tests/gpu: the others prove what runs on cores, as exactly as cores do."""
    if shutil.which("nvidia-smi") and not wants_gpus(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_sessionfinish(session, exitstatus) -> None:
    """Let `make test` go on where there is no GPU, and so no test of one."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and wants_gpus(session.config):
        session.exitstatus = pytest.ExitCode.OK


def pytest_collection_modifyitems(config, items) -> None:
    """GPU tests run where a GPU is, and are deselected, not skipped, where none is and no stand-in is asked for."""
    import torch

    from orchestrator.doctor.libraries import VLLM, installed_vllms

    if installed_vllms() == [VLLM["gpu"]]:
        reason = "the installed vLLM is built for CUDA and has no kernels for cores: tests/gpu has what a GPU can run"
        for item in items:
            if item.path.relative_to(config.rootpath).as_posix().startswith(ENGINES_ON_CORES):
                item.add_marker(pytest.mark.skip(reason=reason))
    if torch.cuda.is_available() or os.environ.get("RAYZERO_GPU_STAND_INS"):
        return
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=gpu)
    items[:] = [item for item in items if item not in gpu]


def pytest_terminal_summary(terminalreporter) -> None:
    """Name the command that runs what was left out."""
    if "not long" in terminalreporter.config.option.markexpr:
        terminalreporter.write_line("Long runs and more cases were left out: `make test-all` runs them too.")


@pytest.fixture(autouse=True)
def no_log_file_outlives_its_test() -> Iterator[None]:
    """A command logs to its run's folder until its process ends, but the folder ends with the test."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in [each for each in logging.getLogger().handlers if each not in before]:
        logging.getLogger().removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The policy of countdown-tiny, untrained."""
    from learner.model.build import build_model
    from orchestrator.config.recipe import load

    folder = tmp_path_factory.mktemp("model") / "tiny"
    build = load("countdown-tiny").model.build
    assert build is not None
    build_model(build, 0, folder)
    return folder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory) -> Path:
    """SmolLM2-135M-Instruct, converted once into a cache of its own."""
    from orchestrator.base_model import local_model
    from tests.support.pretrained import SMOLLM2, gguf_file

    gguf_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYZERO_CACHE", str(tmp_path_factory.mktemp("pretrained")))
        return Path(local_model(SMOLLM2))


@pytest.fixture(scope="module")
def ray_here() -> None:
    """Have one Ray cluster of two cores in this process, which files of tests share: a start takes seconds.

    Its workers find what the tests import. A file that needs a cluster of its own ends this one before.
    """
    import ray

    from tests.support.paths import ROOT, SUPPORT

    if not ray.is_initialized():
        with pytest.MonkeyPatch.context() as patch:
            # Workers inherit the environment that Ray is started in, not this process's sys.path.
            patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (SUPPORT, ROOT))))
            ray.init(
                "local",
                num_cpus=2,
                _node_ip_address="127.0.0.1",
                include_dashboard=False,
                object_store_memory=500 * 2**20,
                log_to_driver=False,
            )

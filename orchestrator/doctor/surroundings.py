"""Variables, the hub, tracking, and the sandbox for code that a model writes. Secrets are looked for, never shown."""

from __future__ import annotations

import netrc
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.doctor.finding import Finding, broken, ok, warning
from orchestrator.doctor.machine import Space
from orchestrator.doctor.pins import Distribution

HUB = "https://huggingface.co"
TRUE = {"1", "ON", "YES", "TRUE"}


def check_variables(environment: Mapping[str, str], kind: Distribution) -> list[Finding]:
    """Variables that runs have come to grief with."""
    found = [*gpu_variables(environment)] if kind == "gpu" else []
    proxies = sorted(name for name in environment if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
    if proxies and not any(covers_loopback(environment.get(name, "")) for name in ("no_proxy", "NO_PROXY")):
        fix = 'export no_proxy="127.0.0.1,localhost,$no_proxy"'
        expected = "no_proxy with 127.0.0.1: job submission would ask the proxy for Ray's dashboard"
        found.append(warning("proxy", f"{', '.join(proxies)} without an exception for this machine", expected, fix))
    if others := sorted(name for name in environment if name.startswith("VLLM_")):
        fix = f"unset {' '.join(others)}, unless you mean them: Rayzero sets what it needs itself, others reach every generator"
        found.append(warning("vLLM's variables", f"set: {', '.join(others)}", "none", fix))
    return found or [ok("variables", "none that are known to do harm")]


def gpu_variables(environment: Mapping[str, str]) -> list[Finding]:
    found = []
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if "expandable_segments:true" in environment.get(name, "").lower():
            expected = "without expandable_segments, which CUDA IPC cannot share: publishing weights on one GPU fails"
            found.append(broken(name, environment[name], expected, f"unset {name}"))
    if environment.get("CUDA_LAUNCH_BLOCKING") == "1":
        name = "CUDA_LAUNCH_BLOCKING"
        found.append(warning(name, "1", "not set: every kernel is waited for", f"unset {name}"))
    return found


def covers_loopback(value: str) -> bool:
    return bool({"127.0.0.1", "*", "127.0.0.0/8"} & {entry.strip() for entry in value.split(",")})


def check_hub_folder(folder: Path, disk: Space) -> Finding:
    """HF_HOME: where models and data sets of the hub are kept."""
    if not disk.writable:
        fix = "export HF_HOME=/a/folder/that/you/own"
        return warning("hub folder", f"{folder} cannot be written", "a folder for downloads", fix)
    return ok("hub folder", str(folder))


def head(url: str) -> str:
    """Why the hub cannot be used; empty when it answers. Goes through proxies, as downloads do."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError as error:
        return "" if error.code in (404, 405) else f"answered {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", "") or error)[:200]
    return ""


def check_hub(environment: Mapping[str, str], ask: Callable[[str], str] = head) -> Finding:
    """Whether models and data sets can be downloaded. The default recipe needs none."""
    if environment.get("HF_HUB_OFFLINE", "").upper() in TRUE:
        return ok("hub", "offline by HF_HUB_OFFLINE: only what was downloaded before can be used")
    url = environment.get("HF_ENDPOINT") or HUB
    if why := ask(url):
        fix = (
            "countdown-tiny needs no hub; for the others check network and proxy, name a mirror in HF_ENDPOINT, or copy the "
            "model here, give its folder as model.path and set HF_HUB_OFFLINE=1"
        )
        return warning("hub", f"{url}: {why}", "an answer within 5 s", fix)
    return ok("hub", f"{url} answers")


def check_login(environment: Mapping[str, str], hub_folder: Path, home: Path) -> list[Finding]:
    """Whether there are credentials for the hub and for Weights & Biases. Their values are not read into a finding."""
    token = bool(environment.get("HF_TOKEN")) or (hub_folder / "token").is_file()
    hub = "token present" if token else "no token; only gated models need one (hf auth login, or HF_TOKEN)"
    if environment.get("WANDB_MODE") in ("offline", "disabled"):
        wandb = f"WANDB_MODE is {environment['WANDB_MODE']}"
    elif environment.get("WANDB_API_KEY") or in_netrc("api.wandb.ai", home):
        wandb = "login present"
    else:
        wandb = "no login; only tracking.wandb=true needs one (wandb login, or WANDB_MODE=offline)"
    return [ok("hub login", hub), ok("wandb login", wandb)]


def in_netrc(host: str, home: Path) -> bool:
    try:
        return netrc.netrc(str(home / ".netrc")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def hub_folder(environment: Mapping[str, str]) -> Path:
    """HF_HOME, as huggingface_hub finds it."""
    cache = Path(environment.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(environment.get("HF_HOME") or cache / "huggingface").expanduser()


def check_sandbox(protections: Callable[[], Mapping[str, tuple[str, ...]]]) -> Finding:
    """What protects this machine from code that a model writes; only the task `code` runs any."""
    fix = (
        "only the task code needs it: allow user namespaces, or Landlock and seccomp; with Docker, "
        "--security-opt seccomp=unconfined"
    )
    try:
        found = protections()
    except (RuntimeError, OSError) as error:
        return warning("sandbox", str(error)[:300], "a box that starts", fix)
    bare = [what for what, steps in found.items() if not steps]
    if bare:
        return warning("sandbox", f"nothing protects {', '.join(bare)}", "network, files and processes protected", fix)
    return ok("sandbox", "; ".join(f"{what} by {', '.join(steps)}" for what, steps in found.items()))

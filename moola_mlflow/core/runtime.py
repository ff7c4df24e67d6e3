"""Threads, allocator, device, precision and seeds: the machine that a training runs on.

``prepare_environment`` must run before torch is imported, so this module does not import torch at its top.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moola_mlflow.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from moola_mlflow.core.config.training import RuntimeConfig

PACKAGES = ("torch", "mlflow", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "optuna")


def prepare_environment(threads: int = 0, tuned: bool = True) -> None:
    """Set the OpenMP variables that only take effect before torch is imported.

    OpenMP workers that spin stall a shared machine, so they wait passively, unless the user wants plain PyTorch. Values
    that the user has set stay.
    """
    if tuned:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # cuBLAS is deterministic only with a fixed workspace; harmless elsewhere.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # With MLflow's defaults a call to a dead server blocks for four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Files travel through the server. MLflow 3.17 would ask the server's bucket itself, which may be out of reach.
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def is_tuned(config: RuntimeConfig) -> bool:
    """Return whether this project may tune threads, allocator and precision. Otherwise PyTorch stays as installed."""
    return config.tune == "on"


def configure_allocator(config: RuntimeConfig) -> str:
    """Tune the allocator unless ``runtime.tune`` is off. Return the result, for a tag of the run."""
    if not is_tuned(config):
        return "as it comes"
    return "tuned" if tune_allocator() else "not glibc"


def configure_threads(config: RuntimeConfig) -> int:
    """Set and return the number of torch's threads: that of the configuration, or all cores for plain PyTorch."""
    return set_threads(config.threads or (0 if is_tuned(config) else allowed_cores()))


def tune_allocator() -> bool:
    """Keep freed memory in the process. Return whether the allocator accepted that.

    PyTorch on the CPU allocates and frees megabytes in each step. glibc returns them to the kernel at once, and then
    every page faults again: a third of the time of an LSTM step, as measured. Other allocators ignore the setting.
    """
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # One arena for all threads: the heaps of other arenas end at 64 MiB and go back to the kernel.
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20), (M_ARENA_MAX, 1))
    taken = [mallopt(name, value) for name, value in settings]
    return all(taken)


def process_rank() -> int:
    """Return this process's rank among those that ``torchrun`` started, 0 without ``torchrun``."""
    return int(os.environ.get("RANK") or 0)


def num_processes() -> int:
    """Return how many processes ``torchrun`` started for this command on all machines, 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_launched() -> bool:
    """Return whether ``mlflow run`` started this process and made a run for it."""
    return "MLFLOW_RUN_ID" in os.environ


def set_threads(threads: int = 0) -> int:
    """Set torch's intra-op threads (0 = one) and return their number.

    The steps of an LSTM are small: two threads must meet hundreds of times in a window. On a shared machine this costs
    more than the second core gives (docs/explanation/performance.md). So training splits its batches over cores.
    """
    import torch

    torch.set_num_threads(threads or 1)
    return torch.get_num_threads()


def allowed_cores() -> int:
    """Return the number of cores for training: OMP_NUM_THREADS if it is set, as in workers, or all usable cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or usable_cores()


def usable_cores() -> int:
    """Return the number of cores that this process may run on. In a container it may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def may_have_gpu() -> bool:
    """Return whether ``auto`` may find a GPU, without the second that the import of torch takes."""
    return sys.platform != "linux" or any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))


def pick_device(name: str) -> torch.device:
    """Return the torch device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises: UserError for a device that this machine lacks, or that several processes cannot share.
    """
    import torch

    several = num_processes() > 1
    if several and (name == "mps" or ":" in name):
        raise UserError(
            f"runtime.device='{name}' is one device, and {num_processes()} processes train together; allowed: auto, "
            "cpu, cuda; give --device cuda, and each process takes the GPU of its own number"
        )
    there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())] * torch.cuda.is_available()
    there += ["mps"] * (torch.backends.mps.is_available() and not several)
    if name == "auto":
        return own_device(torch.device("cuda" if "cuda:0" in there else "mps" if "mps" in there else "cpu"))
    if name not in there and not (name == "cuda" and "cuda:0" in there):
        raise UserError(f"runtime.device='{name}' is not on this machine; there is: {', '.join(there)} (or auto)")
    return own_device(torch.device(name))


def own_device(device: torch.device) -> torch.device:
    """Return the GPU of this process, one of several that ``torchrun`` started without a number of a GPU.

    Raises: UserError if there are more processes than GPUs.
    """
    import torch

    number = os.environ.get("LOCAL_RANK")
    if device.type != "cuda" or device.index is not None or number is None:
        return device
    if int(number) >= torch.cuda.device_count():
        raise UserError(
            f"process {number} of this machine has no GPU of its own: torch sees {torch.cuda.device_count()}; start at "
            "most so many with --nproc-per-node, or give --device cpu"
        )
    torch.cuda.set_device(int(number))
    return torch.device("cuda", int(number))


def pick_precision(wanted: str, device: torch.device, tuned: bool = True) -> str:
    """Return ``bf16``, ``fp16`` or ``fp32`` for the wanted precision on a device.

    ``auto`` depends on the hardware. For plain PyTorch it is fp32.
    """
    import torch

    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise UserError("runtime.precision='fp16' needs a GPU; allowed on the CPU: auto, bf16, fp32")
        if wanted == "bf16" and device.type == "cpu" and not cpu_runs_bf16():
            raise UserError("runtime.precision='bf16' needs a processor with AVX-512; allowed on this one: auto, fp32")
        return wanted
    if not tuned:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device.type == "cpu" and cpu_has_bf16():
        return "bf16"
    return "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 matrices in hardware. Other CPUs emulate bf16, which is slower."""
    flags = _cpu_flags()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def cpu_runs_bf16() -> bool:
    """Return whether the CPU runs an LSTM in bf16 at all: on x86 oneDNN (torch 2.13) needs AVX-512 for it."""
    flags = _cpu_flags()
    return not flags or "avx512bw" in flags


def _cpu_flags() -> str:
    """Return the line of flags of an x86 processor on Linux; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            return next((line for line in f if line.startswith("flags")), "")
    except OSError:
        return ""


# Purposes of seeds, so that no two streams share one.
ORDER, DRAWS, EVALUATION, BASELINE_FIT, LEAK, PICTURES, DROPOUT, MIRROR = range(8)


def seeded_generator(*seeds: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator seeded from several numbers, so that streams of one seed differ by purpose.

    Give the same number of numbers everywhere, because trailing zeros do not count.
    """
    import torch

    return torch.Generator(device).manual_seed(mixed_seed(*seeds))


def mixed_seed(*seeds: int) -> int:
    """Return 64 bits made from several numbers."""
    import numpy as np

    state = np.random.SeedSequence(list(seeds)).generate_state(2, np.uint32)
    return int(state[0]) << 32 | int(state[1])


def environment_text() -> str:
    """Return as text what a result may depend on: Python, platform, number of processors, versions of packages."""
    lines = [f"python {sys.version.split()[0]}", f"platform {platform.platform()}", f"cores {usable_cores()}"]
    lines += [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    return "\n".join(lines) + "\n"

"""The device that an encoder runs on and its precision. A GPU that was requested and is absent is an error."""

from __future__ import annotations

import torch

from tgq.errors import DeviceError


def choose_device(wanted: str = "auto") -> torch.device:
    """The device named by `wanted`: 'cpu', 'cuda' (the first), 'cuda:<index>', or 'auto' (a GPU if any).

    Raises:
        DeviceError: `wanted` is no device name, this process sees no GPU of that index, or the GPU does not work with the
            installed torch.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f"unknown device '{wanted}'", "choose auto, cpu, cuda or cuda:<index>")
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(
            f"{wanted} was requested but torch {torch.__version__} is built for CPU only",
            "install a CUDA build of torch, or set the device to cpu",
        )
    count = torch.cuda.device_count()
    device = torch.device("cuda", int(index or 0))
    if device.index >= count:
        raise DeviceError(
            f"{wanted} was requested but this process sees {count} GPUs",
            "check the driver, CUDA_VISIBLE_DEVICES and the cluster's GPUs, or set the device to cpu",
        )
    try:
        # A GPU can be listed although another process holds it or this torch build does not support it.
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        name, reason = torch.cuda.get_device_name(device), " ".join(str(error).split())[:160]
        raise DeviceError(
            f"{wanted} ({name}) cannot run a computation: {reason}",
            "stop other processes that use this GPU, or install a torch build that supports it",
        ) from None
    return device


def choose_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The precision named by `wanted`: 'float32', 'bfloat16', or 'auto'.

    'auto' is bfloat16 on a GPU that supports it natively and float32 on everything else. On a CPU bfloat16 has to be
    requested by name, because few CPUs run faster with it.

    Raises:
        DeviceError: `wanted` is no precision, or it is bfloat16 and the GPU only emulates it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return torch.bfloat16 if native else torch.float32
    if wanted not in ("float32", "bfloat16"):
        raise DeviceError(f"unknown dtype '{wanted}'", "choose auto, float32 or bfloat16")
    if wanted == "bfloat16" and device.type == "cuda" and not native:
        raise DeviceError(f"{torch.cuda.get_device_name(device)} has no native bfloat16", "set dtype to float32")
    return getattr(torch, wanted)

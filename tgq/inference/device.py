"""Which device an encoder runs on, and in which precision. A GPU asked for and absent is an error."""

from __future__ import annotations

import torch

from tgq.errors import DeviceError


def choose_device(wanted: str = "auto") -> torch.device:
    """The device named by `wanted`: 'cpu', 'cuda' (the first), 'cuda:<index>', or 'auto' (a GPU if any).

    Raises:
        DeviceError: a GPU was named and this process sees none of that index, or it does not work with this
            torch.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    kind, _, index = wanted.partition(":")
    if kind != "cuda" or (index and not index.isdigit()):
        raise DeviceError(f"device '{wanted}'", "choose auto, cpu, cuda or cuda:<index>")
    if torch.version.cuda is None and torch.version.hip is None:
        raise DeviceError(
            f"{wanted} was asked for and torch {torch.__version__} is built for CPU only",
            "install a CUDA build of torch, or set the device to cpu",
        )
    count = torch.cuda.device_count()
    device = torch.device("cuda", int(index or 0))
    if device.index >= count:
        raise DeviceError(
            f"{wanted} was asked for and this process sees {count} GPUs",
            "check the driver, CUDA_VISIBLE_DEVICES and the cluster's GPUs, or set the device to cpu",
        )
    try:
        torch.zeros(1, device=device).add_(
            1
        ).item()  # a GPU can be listed and yet be taken, or too old for this build
    except RuntimeError as error:
        name, said = torch.cuda.get_device_name(device), " ".join(str(error).split())[:160]
        raise DeviceError(
            f"{wanted} ({name}) does not compute: {said}",
            "free it, or install a torch built for it",
        ) from None
    return device


def choose_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """float32 or bfloat16. 'auto' is bfloat16 where a GPU computes in it natively, and float32 elsewhere.

    On a CPU bfloat16 must be asked for: few gain by it.

    Raises:
        DeviceError: bfloat16 was named and the GPU only emulates it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return torch.bfloat16 if native else torch.float32
    if wanted not in ("float32", "bfloat16"):
        raise DeviceError(f"dtype '{wanted}'", "choose auto, float32 or bfloat16")
    if wanted == "bfloat16" and device.type == "cuda" and not native:
        raise DeviceError(f"{torch.cuda.get_device_name(device)} has no bfloat16", "set dtype to float32")
    return getattr(torch, wanted)

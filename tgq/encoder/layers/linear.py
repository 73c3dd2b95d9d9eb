"""Linear maps that run in oneDNN on a CPU.

torch multiplies float32 matrices with MKL, which on AMD processors does not use AVX-512: 105 GFLOP/s on a core where oneDNN has 235, and 100
against 190 with the backward pass. torch takes oneDNN for convolutions, and a linear map is a 1 x 1 convolution whose pixels are the rows.
The results differ in the last bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_ROWS = 256  # with fewer rows oneDNN's arrangement of the weights takes as long as it saves
LEAST_VALUES = 2**15  # torch keeps smaller inputs from oneDNN


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x `[..., I]`, weight `[O, I]` and bias `[O]` to `[..., O]`."""
    rows, inputs = x.shape[:-1], x.shape[-1]
    is_small = rows.numel() < LEAST_ROWS or x.numel() < LEAST_VALUES
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling() or is_small:
        return F.linear(x, weight, bias)
    pixels = x.reshape(1, -1, 1, inputs).permute(0, 3, 1, 2)  # channels last, so nothing is copied
    # torch prefers its own 1 x 1 convolution with one thread, but not a dilated one; the dilation of a kernel of one pixel has no effect
    out = F.conv2d(pixels, weight[:, :, None, None], bias, dilation=2)
    return out.permute(0, 2, 3, 1).reshape(*rows, -1)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_linear(model: nn.Module) -> None:
    """Replace every `nn.Linear` of a model by a `Linear` with the same weights."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            made = Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            made.weight, made.bias = module.weight, module.bias
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, made.train(module.training))

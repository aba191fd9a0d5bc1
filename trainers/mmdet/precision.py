"""Training in bfloat16 on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn


class BFloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 where torch holds that to be safe.

    mmengine's own wrapper refuses to work without a GPU. It also scales the loss, which bfloat16,
    with the range of float32, has no need of: a scaler would skip the steps of a loss that is NaN.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield

"""What a computation asks of the machine: memory that it holds, calls, and waits for the host."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still alive, and the operators.

    Attributes:
        peak: the most bytes alive at once.
        largest: the most entries of one tensor.
        calls: operators called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.largest = self.calls = self._alive = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        # What came from outside is not counted, also where an operator returns it.
        given = {id(tensor.untyped_storage()) for tensor in _tensors((args, kwargs or {}))}
        out = func(*args, **(kwargs or {}))
        self.calls += 1
        for tensor in _tensors(out):
            self.largest = max(self.largest, tensor.numel())
            storage = tensor.untyped_storage()
            if id(storage) not in given and id(storage) not in self._known:
                self._watch(storage)
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def forget(_: Any) -> None:
            del self._known[key]
            self._alive -= size

        self._known[key] = weakref.ref(storage, forget)
        self._alive += size
        self.peak = max(self.peak, self._alive)


class Copies(TorchDispatchMode):
    """Names the operators that carry data between devices, for each of which a GPU has to wait.

    The `meta` device stands for the GPU: it has shapes and no data, so reading a value there, as
    `nonzero`, `item` and `if tensor` do, is an error by itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        # A number of the host that is no more than an argument goes along with the call.
        of_data = [t for t in _tensors((args, kwargs or {})) if t.ndim > 0]
        if len({t.device for t in (*of_data, *_tensors(out))}) > 1:
            self.found.append(str(func))
        return out

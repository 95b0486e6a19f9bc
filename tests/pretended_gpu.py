"""A GPU that is pretended: its tensors are the CPU's, and whatever would mix them with tensors of the CPU raises.

Every number is computed, so that all of cictl runs as on CUDA: what is put on the device, with a number or without, is noted by
its memory, and ``device`` and ``is_cuda`` say so. What CUDA itself would compute differently, or refuse, is not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, META = torch.device("cpu"), torch.device("meta")
_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}


class _Where:
    """On which device the memory of each tensor is pretended to be."""

    def __init__(self, current: torch.device) -> None:
        self.current = current
        self._known: dict[int, tuple[StorageWeakRef, torch.device]] = {}  # a weak reference keeps the address from coming again

    def of(self, tensor: Tensor) -> torch.device | None:
        """None for what nobody has asked for: what the library makes for itself in a backward pass."""
        if tensor.layout != torch.strided or tensor.is_meta:
            return None
        known = self._known.get(tensor.untyped_storage()._cdata)
        return known[1] if known else None

    def put(self, result: Any, device: torch.device, *, moved: bool = False) -> Any:
        """Note where the tensors of ``result`` are, unless it is known already and they are not ``moved``."""
        for tensor in _tensors(result):
            if tensor.layout == torch.strided and not tensor.is_meta:
                storage = tensor.untyped_storage()
                if moved or storage._cdata not in self._known:
                    self._known[storage._cdata] = (StorageWeakRef(storage), device)
        return result

    def grouped(self, lists: list[list[Tensor | None]], with_indices: bool = False) -> dict[Any, Any]:
        """What optimizers ask the library for: each row of ``lists`` with those whose first is on the same device."""
        groups: dict[Any, Any] = {}
        for index, first in enumerate(lists[0]):
            assert isinstance(first, Tensor)
            own, indices = groups.setdefault((self.of(first) or CPU, first.dtype), ([[] for _ in lists], []))
            for column, tensors in zip(own, lists, strict=True):
                column += tensors[index : index + 1]  # a list may be empty
            indices.append(index)
        return groups

    def whole(self, device: Any) -> torch.device:
        """``device`` with a number, as a tensor has it."""
        device = torch.device(device)
        return self.current if device.type == "cuda" and device.index is None else device


class _Operations(TorchDispatchMode):
    """Notes where results are, and refuses operations on tensors of two devices."""

    def __init__(self, where: _Where) -> None:
        super().__init__()
        self.where = where

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        given = [(tensor, self.where.of(tensor)) for tensor in _tensors((arguments, options))]
        result = function(*arguments, **options)
        if function is torch.ops.aten.copy_.default:
            return result
        devices = {device for tensor, device in given if device and not (device == CPU and self._may_stay(function, tensor))}
        if len(devices) > 1:
            raise RuntimeError(f"{function}: tensors on {' and '.join(sorted(map(str, devices)))}")
        return self.where.put(result, devices.pop()) if devices else result

    def _may_stay(self, function: Any, tensor: Tensor) -> bool:
        """What CUDA takes from the CPU: a number, and an index of its tensors."""
        if function in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default):
            return not tensor.is_floating_point()
        return tensor.dim() == 0 and "_fused" not in str(function) and "cat" not in str(function)


class _Calls(TorchFunctionMode):
    """Notes what is put where, and says it when asked."""

    def __init__(self, where: _Where) -> None:
        super().__init__()
        self.where = where

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options, where = dict(options or {}), self.where
        for tensor in _tensors((arguments, options)):
            where.put(tensor, CPU)  # unless it is known: what comes from a file is on the CPU
        first = arguments[0] if arguments else None
        if function == torch.Tensor.device.__get__:
            return where.of(first) or function(first)
        if function == torch.Tensor.is_cuda.__get__:
            return (where.of(first) or CPU).type == "cuda"
        if function in _NUMPY and where.of(first) != CPU:
            raise TypeError("can't convert a tensor of the GPU to numpy")
        if function is torch.Tensor.pin_memory:
            return where.put(first.clone(), CPU, moved=True)
        if function is torch.Tensor.backward:
            with self:  # what is computed again in it asks too
                return torch.autograd.backward(first)
        if function in (torch.Tensor.to, torch.Tensor.cpu):
            return self._to(first, function, arguments[1:], options)
        if options.get("device") is not None and where.whole(options["device"]).type == "cuda":
            device = where.whole(options.pop("device"))
            return where.put(function(*arguments, **options, device=CPU), device, moved=True)
        result = function(*arguments, **options)
        return result if _tensors((arguments, options)) else where.put(result, CPU)

    def _to(self, tensor: Tensor, function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        if function is torch.Tensor.cpu:
            device, dtype = CPU, None
        elif arguments and isinstance(arguments[0], Tensor):
            device, dtype = self.where.of(arguments[0]), arguments[0].dtype
        else:
            known = {"device", "dtype", "non_blocking"}
            device, dtype, _, _ = torch._C._nn._parse_to(*arguments, **{k: v for k, v in options.items() if k in known})
        before = self.where.of(tensor)
        target = before if device is None else self.where.whole(device)
        if target == META:
            return tensor.to(META, dtype)
        changed = tensor.to(dtype or tensor.dtype)
        if target == before:
            return changed
        return self.where.put(changed.clone(), target or CPU, moved=True)


@contextmanager
def pretended_gpus(monkeypatch: pytest.MonkeyPatch, count: int = 1, *, bf16: bool = True) -> Iterator[_Where]:
    """``count`` GPUs, of 24 GB each."""
    where = _Where(torch.device("cuda:0"))
    said: dict[str, Any] = {
        "is_available": lambda: True, "device_count": lambda: count, "current_device": lambda: where.current.index,
        "set_device": lambda device: setattr(where, "current", where.whole(device)), "synchronize": lambda device=None: None,
        "empty_cache": lambda: None, "is_bf16_supported": lambda including_emulation=True: bf16,
        "mem_get_info": lambda device=None: (20 * 2**30, 24 * 2**30), "get_device_name": lambda device=None: "Pretended",
        "memory_allocated": lambda device=None: 2**30, "max_memory_allocated": lambda device=None: 2**31,
        "memory_reserved": lambda device=None: 2**30,
    }  # fmt: skip
    for name, answer in said.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda: SimpleNamespace(is_capturing=lambda: False))
    # Hooks of a function of one's own are called where no mode is, so that what checkpoint compares says another device.
    monkeypatch.setitem(checkpoint._allowed_determinism_checks_to_fns, "default", lambda tensor: (tensor.shape, tensor.dtype))
    monkeypatch.setattr(torch._C, "_group_tensors_by_device_and_dtype", where.grouped)
    with _Operations(where), _Calls(where):
        yield where


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

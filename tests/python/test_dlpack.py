"""Tensors that come by DLPack: torch's if it is there, and a small one of our own in any case."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import pyccl


class Tensor:
    """numpy's memory behind DLPack alone, as libraries without the buffer protocol have it."""

    def __init__(self, array: np.ndarray[Any, Any], *, versioned: bool = True) -> None:
        self.array = array
        self._versioned = versioned

    def __dlpack__(self, **options: Any) -> Any:
        if options and not self._versioned:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2"])
def test_tensors_are_taken_without_a_copy(
    alone: pyccl.Communicator, dtype: str, versioned: bool
) -> None:
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    out = np.zeros_like(x)
    alone.all_reduce(Tensor(x, versioned=versioned), out=Tensor(out, versioned=versioned))
    np.testing.assert_array_equal(out, x)


def test_the_tensor_is_given_back(alone: pyccl.Communicator) -> None:
    x = np.ones(4)
    capsule_holder = Tensor(x)
    alone.all_reduce(capsule_holder)
    del capsule_holder
    # numpy refuses to resize an array that somebody else still refers to.
    x.resize(8)


def test_a_capsule_can_be_used_once() -> None:
    capsule = np.ones(3).__dlpack__()
    pyccl._core.DlpackMemory(capsule)
    with pytest.raises(ValueError, match="was used before"):
        pyccl._core.DlpackMemory(capsule)


def test_an_alien_capsule_is_refused() -> None:
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    with pytest.raises(ValueError, match="no tensor"):
        pyccl._core.DlpackMemory(new_capsule(1, b"something", None))


def test_read_only_and_strided_tensors_are_refused(alone: pyccl.Communicator) -> None:
    x = np.ones(3)
    x.flags.writeable = False
    with pytest.raises(pyccl.InvalidArgumentError, match="x is read-only"):
        alone.all_reduce(Tensor(x))
    with pytest.raises(pyccl.InvalidArgumentError, match=r"x .*not contiguous"):
        alone.all_reduce(Tensor(np.ones((4, 4))[:, :2]))
    with pytest.raises(pyccl.InvalidTypeError, match=r"x\[0\] holds c128; supported are"):
        alone.all_reduce([Tensor(np.ones(2, complex))])


def test_bfloat16_of_numpy(alone: pyccl.Communicator) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = np.array([1.5, -2.0], bfloat16)
    out = np.zeros(2, bfloat16)
    alone.all_reduce(x, out=out, weight=2.0)
    assert out.astype(float).tolist() == [3.0, -4.0]
    with pytest.raises(pyccl.InvalidTypeError, match="out holds u16, but x holds bf16"):
        alone.all_reduce(x, out=np.zeros(2, np.uint16))


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "int64"])
def test_torch_tensors(alone: pyccl.Communicator, name: str) -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    out = torch.zeros_like(x)
    alone.all_reduce(x, out=out)
    assert torch.equal(x, out)
    with pytest.raises(pyccl.InvalidArgumentError, match="not contiguous"):
        alone.all_reduce(x.T)


def test_torch_parameters_say_what_to_do(alone: pyccl.Communicator) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(pyccl.InvalidArgumentError, match=r"x can't be taken by DLPack: .*detach"):
        alone.all_reduce(torch.ones(3, requires_grad=True))

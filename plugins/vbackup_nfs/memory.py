"""Addresses of Python's memory for C functions, without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_ssize_t, c_void_p, py_object

_SIMPLE = 0


class _View(Structure):
    """``Py_buffer``, part of Python's stable ABI since 3.11."""

    _fields_ = [
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", c_ssize_t),
        ("itemsize", c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_char_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    ]


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (py_object, POINTER(_View), c_int)
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (POINTER(_View),)
_release_buffer.restype = None
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = (c_void_p, c_ssize_t)
_new_bytes.restype = py_object
_address_of_bytes = ctypes.pythonapi.PyBytes_AsString
_address_of_bytes.argtypes = (py_object,)
_address_of_bytes.restype = c_void_p


@contextmanager
def address_of(data: memoryview) -> Iterator[int]:
    """Give the address of contiguous bytes, to be read only; they stay where they are meanwhile."""
    view = _View()
    _get_buffer(data, byref(view), _SIMPLE)
    try:
        yield view.buf or 0
    finally:
        _release_buffer(byref(view))


def new_bytes(size: int) -> tuple[bytes, int]:
    """Return bytes that are not filled yet, and their address: fill them before anybody else sees them."""
    data: bytes = _new_bytes(None, size)
    return data, _address_of_bytes(data)

"""The functions of LightGBM's C API that its Python package does not offer; nothing else here reaches into it."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import lightgbm as lgb
from lightgbm.basic import _LIB, _safe_call

_ALIASES_BYTES = 2**20

_Sizes = ctypes.POINTER(ctypes.c_int32)
_Reduce = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int32)
# Blocks to be reduced: input, its size, size of an element, starts and lengths of the blocks, their number, output,
# its size, and a pointer to the function that reduces.
_ReduceScatter = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_int,
    _Sizes,
    _Sizes,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.POINTER(_Reduce),
)
_Allgather = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_int32, _Sizes, _Sizes, ctypes.c_int, ctypes.c_void_p, ctypes.c_int32
)


@lru_cache(maxsize=1)
def parameter_aliases() -> Mapping[str, tuple[str, ...]]:
    """Return every parameter that LightGBM has, with its other names."""
    length, text = ctypes.c_int64(0), ctypes.create_string_buffer(_ALIASES_BYTES)
    _safe_call(_LIB.LGBM_DumpParamAliases(ctypes.c_int64(_ALIASES_BYTES), ctypes.byref(length), text))
    return {name: tuple(aliases) for name, aliases in json.loads(text.value.decode()).items()}


class NetworkFunctions:
    """LightGBM's network in the calling thread, carried by two functions. A context manager; leaving frees it.

    Args:
        world_size: Number of machines, 2 or more.
        rank: Of this one.
        reduce_scatter: The first function, with the arguments of the C API. It must not raise.
        allgather: The second one.
    """

    def __init__(
        self, world_size: int, rank: int, reduce_scatter: Callable[..., None], allgather: Callable[..., None]
    ) -> None:
        self._world = (ctypes.c_int(world_size), ctypes.c_int(rank))
        # LightGBM keeps the addresses alone, so somebody must keep the functions.
        self._functions = (_ReduceScatter(reduce_scatter), _Allgather(allgather))

    def __enter__(self) -> None:
        # Each thread has its own level of messages; reading parameters sets it.
        quiet = b"verbosity=-1"
        _safe_call(_LIB.LGBM_DatasetUpdateParamChecking(quiet, quiet))
        addresses = [ctypes.cast(function, ctypes.c_void_p) for function in self._functions]
        _safe_call(_LIB.LGBM_NetworkInitWithFunctions(*self._world, *addresses))

    def __exit__(self, *_: object) -> None:
        _safe_call(_LIB.LGBM_NetworkFree())


def parallel_levels() -> int | None:
    """Return how deep threads may nest that OpenMP starts for the calling thread; None where it does not say."""
    ask = getattr(_LIB, "omp_get_max_active_levels", None)
    return None if ask is None else int(ask())


def set_parallel_levels(levels: int) -> None:
    """Let OpenMP nest threads so deep for the calling thread; with 0, LightGBM computes in it alone.

    Before OpenMP 5.0 this holds for the whole process.
    """
    _LIB.omp_set_max_active_levels(ctypes.c_int(levels))


def merge_models(booster: lgb.Booster, earlier: lgb.Booster) -> None:
    """Put the trees of an earlier model before those of a booster that is trained on from it."""
    _safe_call(_LIB.LGBM_BoosterMerge(handle_of(booster), handle_of(earlier)))


def handle_of(owner: Any) -> Any:
    """Return the C API's handle of a booster."""
    return owner._handle


__all__ = ["NetworkFunctions", "merge_models", "parallel_levels", "parameter_aliases", "set_parallel_levels"]

"""A checkpoint as files in memory, planned by `torch.distributed.checkpoint`; no pickle, no collective.

The storage that PyTorch brings pickles its metadata, and its savers wait for all ranks. Here the metadata is JSON,
tensors are loaded with `weights_only=True`, and each worker writes a part of its own without a word to the others: so
nothing hangs if they do not all save. The metadata of the parts add up to that of the whole.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import (
    DefaultLoadPlanner,
    DefaultSavePlanner,
    create_default_global_save_plan,
)
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, SavePlan, WriteItemType

from shardfit.errors import ArtifactCorruptError

_FORMAT = 1
_DATA, _METADATA = "tensors.bin", "metadata.json"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the bytes of one item are."""

    file: str
    start: int
    stop: int


class _PartPlanner(DefaultSavePlanner):
    """Plans what one worker writes: worker 0 everything that it has, the others their shards of tensors."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def create_local_plan(self) -> SavePlan:
        plan = super().create_local_plan()
        if self._rank:
            plan = replace(plan, items=[item for item in plan.items if item.type == WriteItemType.SHARD])
        return plan

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        # Without the check that the plans cover the tensors, which one part does not.
        self.global_plan, self.metadata = create_default_global_save_plan(all_plans)
        return self.global_plan, self.metadata


class _PlainLoadPlanner(DefaultLoadPlanner):
    """Loads values beside tensors, such as learning rates, without a pickle."""

    def load_bytes(self, read_item: Any, value: io.BytesIO) -> None:
        torch.load(value, weights_only=True)  # Raises where it holds more than plain values.
        value.seek(0)
        super().load_bytes(read_item, value)


def write_part(state: dict[str, Any], rank: int) -> dict[str, bytes]:
    """Return the files of one worker's part of a checkpoint.

    Args:
        state: Tensors and plain values, nested; tensors may be sharded.
        rank: Of the worker; worker 0 writes what is not sharded.
    """
    planner = _PartPlanner(rank)
    planner.set_up_planner(state, is_coordinator=rank == 0)
    plans, metadata = planner.create_global_plan([planner.create_local_plan()])
    data, places, folder = io.BytesIO(), [], f"part-{rank}"
    for item in planner.finish_plan(plans[0]).items:
        start = data.tell()
        value: Any = planner.resolve_data(item)
        if item.type == WriteItemType.BYTE_IO:
            data.write(value.getbuffer())
        else:
            torch.save(_compact(value), data)
        offset = None if item.index.offset is None else list(item.index.offset)
        places.append([item.index.fqn, offset, f"{folder}/{_DATA}", start, data.tell()])
    items = {name: _describe(item) for name, item in metadata.state_dict_metadata.items()}
    described = json.dumps({"format": _FORMAT, "items": items, "places": places})
    return {f"{folder}/{_DATA}": data.getvalue(), f"{folder}/{_METADATA}": described.encode()}


def read_parts(state: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """Load a checkpoint into `state`, from the parts of all the workers that wrote it, however many there were.

    Args:
        state: As the state that was saved; tensors may be sharded in another way.
        files: Name -> content, of all parts together.

    Raises:
        ArtifactCorruptError: The metadata of a part is torn, or of another format.
        RuntimeError: Something in `state` is not in the checkpoint.
        ValueError: A tensor has another size.
    """
    places: dict[MetadataIndex, _Place] = {}
    metadata = Metadata(_merged(files, places))
    planner = _PlainLoadPlanner()
    planner.set_up_planner(state, metadata, is_coordinator=True)
    (plan,) = planner.create_global_plan([planner.create_local_plan()])
    for item in planner.finish_plan(plan).items:
        place = places[item.storage_index]
        content = io.BytesIO(files[place.file][place.start : place.stop])
        if item.type == LoadItemType.BYTE_IO:
            planner.load_bytes(item, content)
            continue
        stored = torch.load(content, map_location="cpu", weights_only=True)
        for dimension, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
            stored = stored.narrow(dimension, start, length)
        target = planner.resolve_tensor(item).detach()
        target.copy_(stored)
        planner.commit_tensor(item, target)


def _merged(files: Mapping[str, bytes], places: dict[MetadataIndex, _Place]) -> dict[str, Any]:
    """Return what the parts hold together, and note in `places` where."""
    items: dict[str, Any] = {}
    for name, content in sorted(files.items()):
        if not name.endswith(f"/{_METADATA}"):
            continue
        try:
            part = json.loads(content)
            if part["format"] != _FORMAT:
                raise ValueError(f"it has format {part['format']!r}, this version reads {_FORMAT}")
            for key, described in part["items"].items():
                _merge(items, key, described)
            for key, offset, file, start, stop in part["places"]:
                places[MetadataIndex(key, offset)] = _Place(file, start, stop)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactCorruptError(f"reading {name!r} of a checkpoint", f"it is torn: {error!r}") from error
    return items


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    # What is saved is the whole storage, which views of it share.
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


def _describe(item: Any) -> Any:
    if isinstance(item, BytesStorageMetadata):
        return None
    return {
        "dtype": str(item.properties.dtype).removeprefix("torch."),
        "size": list(item.size),
        "chunks": [[list(chunk.offsets), list(chunk.sizes)] for chunk in item.chunks],
    }


def _merge(items: dict[str, Any], name: str, described: Any) -> None:
    if described is None:
        items[name] = BytesStorageMetadata()
        return
    properties = TensorProperties(dtype=getattr(torch, described["dtype"]))
    item = items.setdefault(name, TensorStorageMetadata(properties, torch.Size(described["size"]), []))
    known = {chunk.offsets for chunk in item.chunks}
    for offsets, sizes in described["chunks"]:
        # A tensor that is replicated over some of the workers comes once from each.
        if torch.Size(offsets) not in known:
            item.chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))

"""What to train, on what, how: one frozen value, from keyword arguments or from a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, field_validator

from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import InvalidJobError
from shardfit.job.callables import load_callables
from shardfit.job.problems import invalid_job
from shardfit.names import is_stage_name
from shardfit.plain_values import plain_value
from shardfit.redaction import redact, redact_options
from shardfit.trainer import TRAIN

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


def _path(value: Any) -> Any:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("a path, or a list of paths, is needed")
    return value


class _DataTable(BaseModel):
    model_config = _STRICT

    path: Annotated[Any, BeforeValidator(_path)]
    format: str | None = None
    options: dict[str, Any] = {}


def _names(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class _ColumnsTable(BaseModel):
    model_config = _STRICT

    features: _Names = ()
    label: _Names = ()
    weight: str | None = None
    group: str | None = None
    base_margin: _Names = ()
    categorical: _Names = ()


_TABLES: Mapping[str, type[BaseModel]] = {"data": _DataTable, "evals": _DataTable, "columns": _ColumnsTable}


def _connector(value: Any) -> Any:
    if isinstance(value, Mapping):
        table = _DataTable.model_validate(dict(value))
        return DataConnector(table.path, table.format, table.options)
    if value is None or isinstance(value, (bool, int, float)):
        raise ValueError("a path, a table or a DataConnector is needed")
    return DataConnector.of(value)


def _roles(value: Any) -> Any:
    if isinstance(value, ColumnRoles):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"a table with the keys {', '.join(_ColumnsTable.model_fields)} is needed")
    table = _ColumnsTable.model_validate(dict(value))
    return ColumnRoles(**{name: getattr(table, name) for name in _ColumnsTable.model_fields})


def _whole(value: Any) -> Any:
    # NumPy's integers are no int, and a bool is one.
    return int(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _off(value: Any) -> Any:
    # TOML has no null.
    return None if value == 0 and not isinstance(value, bool) else value


_Connector = Annotated[InstanceOf[DataConnector], BeforeValidator(_connector)]
_Roles = Annotated[InstanceOf[ColumnRoles], BeforeValidator(_roles)]
_Whole = Annotated[int, BeforeValidator(_whole)]


class Job(BaseModel):
    """What to train, on what, how.

    Args:
        trainer: Name of a trainer, for example `xgboost`.
        data: The training data: a connector, or a path, URL, table or mapping with `path`, `format` and `options`.
        evals: Name -> evaluation data, as for `data`; `train` is taken.
        columns: The part that each column plays; a mapping with the fields of `ColumnRoles` will do, and a single
            name where a tuple is wanted.
        params: The trainer's parameters.
        workers: Number of workers, or -1 for all that are useful.
        cpus_per_worker: CPUs of each worker, or -1 for all of a node divided by its workers.
        use_gpu: True, False, or None to decide from the cluster.
        engine: `inline` for this process, `ray` for a cluster, `auto` for the cluster if one is there.
        sharding: Name of a sharding strategy; `auto` keeps groups together where there is a group column, and divides
            by rows otherwise.
        scaling: Name of a scaling policy.
        stage: Location of an artifact store: a path, a URL, or a name such as `DB.SCHEMA.STAGE`; None for the user's
            own on this machine.
        seed: 0 to 2**31 - 1.
        resume_from: Identifier of the checkpoint to go on from, in the same stage.
        checkpoint_every_rounds: Keep a checkpoint after every so many rounds; None or 0 for never.
        checkpoint_every_seconds: Keep one after so many seconds without, seldomer where making them would take
            more than a fiftieth of the time; None or 0 for never.
        max_attempts: How often to try in all when workers are lost, 1 or more.
        memory_check: What to do where the memory plan needs more than a worker has: `refuse`, `warn` or `off`.
        keep_bins: Whether workers keep what they have binned on their local disk, for an attempt after a loss: `auto`
            what took a second or more to bin, `always`, or `never`.

    Raises:
        InvalidJobError: A key is unknown or has a value that cannot be used; names the key, the value, and for
            unknown keys the nearest name.
    """

    model_config = _STRICT

    trainer: str = Field(min_length=1)
    data: _Connector
    evals: dict[str, _Connector] = {}
    columns: _Roles = ColumnRoles()
    params: dict[str, Any] = {}
    workers: _Whole = -1
    cpus_per_worker: _Whole = -1
    use_gpu: bool | None = None
    engine: Literal["auto", "inline", "ray"] = "auto"
    sharding: str = Field("auto", min_length=1)
    scaling: str = Field("default", min_length=1)
    stage: Annotated[str | None, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, Path) else v)] = None
    seed: _Whole = Field(0, ge=0, lt=2**31)
    resume_from: str | None = None
    checkpoint_every_rounds: Annotated[int | None, Field(ge=1), BeforeValidator(_off), BeforeValidator(_whole)] = None
    checkpoint_every_seconds: Annotated[float | None, Field(gt=0), BeforeValidator(_off)] = 10.0
    max_attempts: _Whole = Field(3, ge=1)
    memory_check: Literal["refuse", "warn", "off"] = "refuse"
    keep_bins: Literal["auto", "always", "never"] = "auto"

    # Hidden from type checkers, which know the keywords from the fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise invalid_job(error, Job, _TABLES) from None

    @field_validator("workers", "cpus_per_worker")
    @classmethod
    def _check_count(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError("1 or more is needed, or -1 for all")
        return value

    @field_validator("evals")
    @classmethod
    def _check_evals(cls, value: dict[str, DataConnector]) -> dict[str, DataConnector]:
        if TRAIN in value or "" in value:
            raise ValueError(f"an evaluation set needs a name other than {TRAIN!r}")
        return value

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], allow_code: bool = False) -> Job:
        """Return the job that a TOML file describes.

        Its keys are the fields of a job; `[data]`, `[evals.NAME]`, `[columns]` and `[params]` are tables. Relative
        paths of data and of the stage start from the file's folder. Values of `[params]` such as
        `"python:package.module:function"` stand for that function.

        Args:
            path: The file.
            allow_code: Whether functions may be imported and run.

        Raises:
            InvalidJobError: The file cannot be read or is no TOML; a key is unknown or has a wrong value; code is
                named and not allowed.
        """
        path = Path(path)
        asked = f"reading the job {os.fspath(path)!r}"
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InvalidJobError(asked, f"{error.strerror or error}", "Pass the path of a TOML file.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidJobError(asked, f"it is no valid TOML: {redact(str(error))}") from error
        try:
            _resolve_paths(content, path.resolve().parent)
            if isinstance(content.get("params"), dict):
                content["params"] = load_callables(content["params"], "params", allow_code)
            return cls(**content)
        except InvalidJobError as error:
            raise InvalidJobError(f"{asked}, {error.asked}", error.found, error.advice) from error

    def describe(self) -> dict[str, Any]:
        """Return the job as plain values that JSON can hold, secrets redacted."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        fields["data"] = self.data.describe()
        fields["evals"] = {name: connector.describe() for name, connector in self.evals.items()}
        fields["columns"] = asdict(self.columns)
        described = plain_value({**fields, "params": redact_options(self.params)})
        described["stage"] = None if self.stage is None else redact(self.stage)
        return dict(described)


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    if "data" in content:
        content["data"] = _resolve_data(content["data"], folder)
    evals = content.get("evals")
    if isinstance(evals, dict):
        content["evals"] = {name: _resolve_data(table, folder) for name, table in evals.items()}
    if isinstance(content.get("stage"), str) and not is_stage_name(content["stage"]):
        content["stage"] = _resolve(content["stage"], folder)


def _resolve_data(data: Any, folder: Path) -> Any:
    if isinstance(data, dict) and "path" in data:
        return {**data, "path": _resolve(data["path"], folder)}
    return _resolve(data, folder)


def _resolve(path: Any, folder: Path) -> Any:
    if isinstance(path, list):
        return [_resolve(item, folder) for item in path]
    if not isinstance(path, str) or not path or "://" in path or path.startswith("@"):
        return path
    return os.fspath(folder / Path(path).expanduser())

"""Every error that shardfit raises on purpose, drawn as a tree by who must act.

```
ShardfitError
├── InvalidArgumentError (ValueError)         the caller: an argument, a job key, a parameter
│   ├── InvalidJobError
│   ├── UnknownParameterError
│   └── UnknownNameError (LookupError)        a name that no plugin provides
├── DataError (ValueError)                    the owner of the data
│   ├── SourceNotFoundError (FileNotFoundError)
│   ├── UnreadableSourceError (OSError)       a corrupt footer or page, no permission
│   ├── EmptyDataError                        no rows
│   ├── SchemaMismatchError                   files that disagree
│   ├── UnknownColumnError (LookupError)
│   ├── UnsupportedTypeError (TypeError)
│   ├── InvalidValueError                     a null label, an infinity, a negative weight
│   ├── BrokenGroupError                      a group in two places
│   └── ChangedDataError                      altered between planning and reading
├── PlanError (ValueError)                    the author of a sharding strategy or scaling policy
├── CoverageError (RuntimeError)              rows lost or repeated: never the user's fault
├── InfeasibleRequestError (RuntimeError)     more than the cluster has
├── CacheError (OSError)                      whoever keeps a worker's disk: full, over its budget, cleaned away
├── PluginError (RuntimeError)                the author or installer of a plugin
│   └── DuplicateNameError (ValueError)
├── WorkerError (RuntimeError)                code that raised on a worker
├── WorkerLostError (ConnectionError)         a worker that died; the run may be tried again
├── RunCancelledError (RuntimeError)
└── ArtifactError (OSError)                   whoever keeps the store
    ├── ArtifactNotFoundError (FileNotFoundError)
    ├── ArtifactExistsError (FileExistsError)
    ├── ArtifactCorruptError
    └── StaleAttemptError                     a worker of an older attempt came back
```
"""

from __future__ import annotations

from typing import Any, Literal, Self

LossCause = Literal["", "killed", "crashed", "exited", "out of memory", "node gone", "frozen", "silent", "stalled"]


class ShardfitError(Exception):
    """Base of every error that shardfit raises on purpose.

    Args:
        asked: What was being done or asked for, for example `"reading 'a.parquet', row group 3"`.
        found: What was found instead, with values shown by `repr`. Empty only where a library brings an error from
            another process as one text, as PyTorch's DataLoader does: `asked` is then all there is.
        advice: What to do about it.
    """

    def __init__(self, asked: str, found: str = "", advice: str = "") -> None:
        Exception.__init__(self, asked, found, advice)
        self.asked = asked
        self.found = found
        self.advice = advice

    def __str__(self) -> str:
        message = f"{self.asked}: {self.found}" if self.found else self.asked
        return f"{message}. {self.advice}" if self.advice else message

    def __reduce__(self) -> tuple[type[ShardfitError], tuple[str, str, str], dict[str, Any]]:
        # OSError keeps two of three arguments, which would lose the advice on the way from a worker; the attributes
        # bring the notes along.
        return (type(self), (self.asked, self.found, self.advice), self.__dict__)


class InvalidArgumentError(ShardfitError, ValueError):
    """An argument has a value that cannot be used."""


class InvalidJobError(InvalidArgumentError):
    """A job, or a key of a job file, cannot be used."""


class UnknownParameterError(InvalidArgumentError):
    """A trainer parameter does not exist; the nearest name is suggested."""


class UnknownNameError(InvalidArgumentError, LookupError):
    """No plugin provides the name; what exists and what to install is listed."""


class DataError(ShardfitError, ValueError):
    """The data cannot be trained on as it is."""


class SourceNotFoundError(DataError, FileNotFoundError):
    """A path, glob or URL leads to no file."""


class UnreadableSourceError(DataError, OSError):
    """A file exists and cannot be read: corrupt, cut short, or not permitted."""


class EmptyDataError(DataError):
    """The dataset has no rows."""


class SchemaMismatchError(DataError):
    """Two files of one dataset disagree about a column."""


class UnknownColumnError(DataError, LookupError):
    """A column was asked for by a name that the dataset does not have, or has twice."""


class UnsupportedTypeError(DataError, TypeError):
    """A column's type has no rule in the cast policy."""


class InvalidValueError(DataError):
    """A column holds values that its role forbids."""


class BrokenGroupError(DataError):
    """Rows of one group stand in two places of the global row order."""


class ChangedDataError(DataError):
    """A fragment changed between planning and reading."""


class PlanError(ShardfitError, ValueError):
    """A shard plan or a worker layout breaks its own rules."""


class CoverageError(ShardfitError, RuntimeError):
    """The rows handed to the library are not exactly the rows that were planned."""


class InfeasibleRequestError(ShardfitError, RuntimeError):
    """The request can never be met by the cluster as it is."""


class CacheError(ShardfitError, OSError):
    """A worker's cache on the local disk cannot be used: the disk is full, a budget used up, or the folder removed."""


class PluginError(ShardfitError, RuntimeError):
    """A plugin cannot be loaded or breaks its contract."""


class DuplicateNameError(PluginError, ValueError):
    """Two plugins claim the same name."""


class WorkerError(ShardfitError, RuntimeError):
    """Code raised on a worker; the message carries rank, node and the remote traceback."""


class WorkerLostError(ShardfitError, ConnectionError):
    """A worker died or its node went away; says which one and why, as far as known.

    Trainers raise it on a worker whose library says that its peers are gone: of several failures it is the last that
    is reported, since whatever ended the peer explains it.

    Attributes:
        rank: Of the worker; -1 where it is not known.
        node: Name of its node; empty where it is not known.
        cause: One of `LossCause`; empty where it is not known.
        pid: Of its process; 0 where it is not known.
        phase: What it was doing; empty where it is not known.
        exit_code: Of its process, where it is known.
        signal: Name of the signal that ended it, where it is known.
        log: Last lines of its log.
    """

    rank: int = -1
    node: str = ""
    cause: LossCause = ""
    pid: int = 0
    phase: str = ""
    exit_code: int | None = None
    signal: str = ""
    log: tuple[str, ...] = ()

    def at(self, rank: int, node: str) -> Self:
        """Return the error itself, which now says where.

        Args:
            rank: Of the worker.
            node: Name of its node.
        """
        self.rank, self.node = rank, node
        return self

    def because(
        self,
        cause: LossCause,
        pid: int = 0,
        phase: str = "",
        exit_code: int | None = None,
        signal: str = "",
        log: tuple[str, ...] = (),
    ) -> Self:
        """Return the error itself, which now says why; see the attributes."""
        self.cause, self.pid, self.phase = cause, pid, phase
        self.exit_code, self.signal, self.log = exit_code, signal, log
        return self


class RunCancelledError(ShardfitError, RuntimeError):
    """The run was asked to stop before it ended."""


class ArtifactError(ShardfitError, OSError):
    """An artifact store cannot do what was asked."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """No whole artifact stands under the identifier."""


class ArtifactExistsError(ArtifactError, FileExistsError):
    """Another artifact with other content is already published under the identifier."""


class ArtifactCorruptError(ArtifactError):
    """A stored file is torn or altered, or a manifest names what may not be named."""


class StaleAttemptError(ArtifactError):
    """A worker of an older attempt tried to publish."""

"""How CSV files are written: the options of `DataConnector.from_csv`, and what they mean to pyarrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from shardfit.errors import InvalidArgumentError, UnknownParameterError

# The longest row that can be read, and what is decoded at a time.
PARSE_BYTES = 8 << 20
_STORAGE_OPTIONS = frozenset({"storage_options", "filesystem"})


@dataclass(frozen=True)
class CsvOptions:
    """How the files of one CSV dataset are written. Plain values only.

    Args:
        delimiter: One ASCII character between values.
        quote_char: One ASCII character around values that hold delimiters, quotes or newlines; None for none.
        escape_char: One character that takes the meaning of the next one, or None. Such files are not divided.
        header: Whether the first row holds the column names. Without it, and without `column_names`: `f0`, `f1`, ...
        column_names: Names of all columns, for files without a header.
        column_types: Column -> Arrow type or its alias, such as `"float32"`. Others are inferred from samples of the
            files; a column without a value in the samples counts as float64.
        skip_rows: Lines to leave out before the header.
        encoding: Of the text. UTF-16 and UTF-32 are not divided.
        null_values: Text that means null, in columns of any type; None for the usual, such as nothing and `NA`.
        true_values: Text that means true; None for the usual.
        false_values: Text that means false; None for the usual.
        decimal_point: One character.
        timestamp_parsers: `strptime` formats, or `"ISO8601"`.
        block_bytes: About the size of a fragment.
    """

    delimiter: str = ","
    quote_char: str | None = '"'
    escape_char: str | None = None
    header: bool = True
    column_names: tuple[str, ...] = ()
    column_types: Mapping[str, Any] = field(default_factory=dict)
    skip_rows: int = 0
    encoding: str = "utf8"
    null_values: tuple[str, ...] | None = None
    true_values: tuple[str, ...] | None = None
    false_values: tuple[str, ...] | None = None
    decimal_point: str = "."
    timestamp_parsers: tuple[str, ...] = ()
    block_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        for name in ("delimiter", "decimal_point"):
            _check(name, getattr(self, name), _is_ascii_character(getattr(self, name)), "one ASCII character")
        for name in ("quote_char", "escape_char"):
            value = getattr(self, name)
            _check(name, value, value is None or _is_ascii_character(value), "one ASCII character or None")
        _check("skip_rows", self.skip_rows, isinstance(self.skip_rows, int) and self.skip_rows >= 0, "0 or more")
        _check("block_bytes", self.block_bytes, isinstance(self.block_bytes, int) and self.block_bytes > 0, "positive")
        for column, kind in self.column_types.items():
            _arrow_type(column, kind)

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any], **defaults: Any) -> CsvOptions:
        """Return the options of a mapping; storage options in it are left out.

        Args:
            options: As the user gave them; lists count as tuples.
            **defaults: For what is not in `options`.

        Raises:
            UnknownParameterError: A key is no option; suggests the nearest.
            InvalidArgumentError: A value cannot be used.
        """
        names = [option.name for option in fields(cls)]
        given = {key: value for key, value in options.items() if key not in _STORAGE_OPTIONS}
        for key in given:
            if key not in names:
                near = get_close_matches(key, names, n=1)
                raise UnknownParameterError(
                    "reading the options of a CSV dataset",
                    f"found {key!r}",
                    f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(names)}.",
                )
        frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return cls(**{**defaults, **frozen})

    @property
    def has_header(self) -> bool:
        """Whether a row of each file holds the names."""
        return self.header and not self.column_names

    @property
    def divisible(self) -> bool:
        """Whether the bytes of a file show where its rows start."""
        wide = self.encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32"))
        return self.escape_char is None and not wide

    def types(self) -> dict[str, pa.DataType]:
        """Return the types that the user fixed."""
        return {column: _arrow_type(column, kind) for column, kind in self.column_types.items()}

    def parse_options(self, newlines_in_values: bool) -> pacsv.ParseOptions:
        """Return what pyarrow needs to find values."""
        return pacsv.ParseOptions(
            delimiter=self.delimiter,
            quote_char=self.quote_char or False,
            escape_char=self.escape_char or False,
            newlines_in_values=newlines_in_values,
        )

    def read_options(self, names: Sequence[str] | None, whole_file: bool) -> pacsv.ReadOptions:
        """Return what pyarrow needs to find rows.

        Args:
            names: Names of the columns; None to take them from the header, or to number them.
            whole_file: Whether the bytes start where the file does, with lines to skip and a header.
        """
        return pacsv.ReadOptions(
            block_size=PARSE_BYTES,
            encoding=self.encoding,
            skip_rows=self.skip_rows if whole_file else 0,
            column_names=list(names) if names is not None else None,
            autogenerate_column_names=names is None and not self.has_header,
        )

    def convert_options(
        self, types: Mapping[str, pa.DataType], columns: Sequence[str] | None = None
    ) -> pacsv.ConvertOptions:
        """Return what pyarrow needs to turn text into values of `types`; only `columns` of them, where given."""
        lists = {
            name: list(value)
            for name in ("null_values", "true_values", "false_values")
            if (value := getattr(self, name)) is not None
        }
        return pacsv.ConvertOptions(
            column_types=dict(types),
            include_columns=list(columns) if columns is not None else None,
            strings_can_be_null=True,
            decimal_point=self.decimal_point,
            timestamp_parsers=_timestamp_parsers(self.timestamp_parsers),
            **lists,
        )


def _timestamp_parsers(formats: Sequence[str]) -> list[Any] | None:
    return [pacsv.ISO8601 if text == "ISO8601" else text for text in formats] or None


def _is_ascii_character(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1 and value.isascii()


def _check(name: str, value: Any, good: bool, wanted: str) -> None:
    if not good:
        raise InvalidArgumentError(f"reading the CSV option {name!r}", f"found {value!r}", f"It must be {wanted}.")


def _arrow_type(column: str, kind: Any) -> pa.DataType:
    if isinstance(kind, pa.DataType):
        return kind
    try:
        return pa.type_for_alias(kind)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(
            f"reading the CSV option 'column_types' for {column!r}",
            f"found {kind!r}",
            "Use an Arrow type or its alias.",
        ) from error

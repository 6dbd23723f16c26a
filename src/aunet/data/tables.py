"""Parquet files and Hugging Face datasets: documents as rows of a table."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from aunet.data.blocks import (
    MIB,
    Block,
    Document,
    Format,
    document_of_row,
    document_of_value,
    no_field,
    one_line,
    open_file,
    open_unchanged,
)
from aunet.data.problems import Problems
from aunet.errors import AUNetError, MissingExtra

SAMPLE = 32 * MIB
"""Bytes of text of a row group from which the size of parquet files is estimated."""


class Parquet(Format):
    """`.parquet`: one row, one document, in a column of strings or bytes; a block is a row group."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The row groups that have rows."""
        arrow, parquet = _pyarrow()
        with open_file(path) as file:
            try:
                reader = parquet.ParquetFile(file)
                names = list(reader.schema_arrow.names)
                metadata = reader.metadata
            except (arrow.ArrowException, OSError) as error:
                problems.add("corrupt file", path, f"not a readable parquet file ({_damage(error)})")
                return []
        if field not in names:
            problems.add("no text field", path, no_field(field, names, "file", "columns"))
            return []
        if metadata.num_rows == 0:
            problems.add("empty file", path, "empty file")
        return [
            Block("parquet", path, group, group + 1, _encoded_bytes(metadata, group, field), size)
            for group in range(metadata.num_row_groups)
            if metadata.row_group(group).num_rows
        ]

    def expansion(self, paths: Sequence[str], field: str) -> float:
        """Bytes of text per encoded byte: a dictionary holds a text that comes again only once."""
        arrow, parquet = _pyarrow()
        text = encoded = 0.0
        for path in paths:
            with open_file(path) as file:
                try:
                    reader = parquet.ParquetFile(file, buffer_size=MIB)
                    if field in reader.schema_arrow.names and reader.metadata.num_rows:
                        more, of = _sample(arrow, reader, field)
                        text, encoded = text + more, encoded + of
                except (arrow.ArrowException, OSError) as error:
                    _damage(error)  # `blocks` or `read` count it
        return text / encoded if text and encoded else 1.0

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is a number of rows in the row group."""
        arrow, parquet = _pyarrow()
        with open_unchanged(block) as file:
            before = number = 0
            try:
                reader = parquet.ParquetFile(file)
                before = sum(reader.metadata.row_group(i).num_rows for i in range(block.start))
                for column in _columns(reader, block.start, field):
                    if number + len(column) <= position:
                        number += len(column)
                        continue
                    for value in _as_bytes(arrow, column).to_pylist():
                        number += 1
                        if number <= position:
                            continue
                        where = f"{block.path}:{before + number}"
                        if document := document_of_value(value, field, problems, where):
                            yield number, document
            except (arrow.ArrowException, OSError) as error:
                problems.add(
                    "corrupt file", f"{block.path}:{before + number + 1}", f"{_damage(error)}; read up to here"
                )


class HubShard(Format):
    """`hf:NAME[:CONFIG][@SPLIT]`: a streamed Hugging Face dataset (split train if not given); a block is a shard."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The shards."""
        dataset = _hub_dataset(path)
        shards = int(dataset.num_shards)
        return [Block("hf", path, i, shards, self._bytes(dataset) / shards, size) for i in range(shards)]

    @staticmethod
    def _bytes(dataset: Any) -> float:
        """Bytes of the split as the hub states them; NaN where it doesn't."""
        splits = dataset.info.splits or {}
        known = splits[dataset.split].num_bytes if dataset.split in splits else dataset.info.dataset_size
        return float(known) if known else float("nan")

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is a number of rows of the shard."""
        number = position
        try:
            shard = _hub_dataset(block.path).shard(num_shards=block.stop, index=block.start)
            for row in shard.skip(position) if position else shard:
                number += 1
                where = f"{block.path} shard {block.start}:{number}"
                if document := document_of_row(row, field, problems, where, "row"):
                    yield number, document
        except (AUNetError, MemoryError):
            raise
        except Exception as error:  # the readers behind a hub dataset raise whatever they like
            raise AUNetError(f"{block.path} shard {block.start}:{number + 1}: {one_line(error)}") from error


def _damage(error: Exception) -> str:
    """What Arrow says of a damaged file; raises what is not the file's: words of the disk or the network, which have a
    number, and that memory is short.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
        raise error
    return one_line(error)


def _encoded_bytes(metadata: Any, group: int, field: str) -> int:
    """Of a column in a row group, before compression; 0 for one that is nested, which holds no text."""
    columns = map(metadata.row_group(group).column, range(metadata.num_columns))
    return next((column.total_uncompressed_size for column in columns if column.path_in_schema == field), 0)


def _columns(reader: Any, group: int, field: str) -> Iterator[Any]:
    """The column of a row group, in pieces of a few rows."""
    # Threads of Arrow don't survive a fork, and a worker is one core anyway.
    for batch in reader.iter_batches(256, row_groups=[group], columns=[field], use_threads=False):
        yield batch.column(batch.schema.names.index(field))  # the prefix of another name selects that too


def _sample(arrow: Any, reader: Any, field: str) -> tuple[float, float]:
    """Bytes of text and encoded bytes of the first row group with rows; of a large one, what its beginning gives."""
    metadata = reader.metadata
    group = next(i for i in range(metadata.num_row_groups) if metadata.row_group(i).num_rows)
    text = rows = 0
    for column in _columns(reader, group, field):
        text += sum(len(value) for value in _as_bytes(arrow, column).to_pylist() if isinstance(value, bytes))
        rows += len(column)
        if text >= SAMPLE:
            break
    return text * metadata.row_group(group).num_rows / max(rows, 1), _encoded_bytes(metadata, group, field)


def _as_bytes(arrow: Any, column: Any) -> Any:
    """A column of strings as bytes: other writers leave some in it that are not UTF-8, which Arrow does not decode."""
    kinds = arrow.types
    kind = column.type.value_type if kinds.is_dictionary(column.type) else column.type
    text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    return column.cast(arrow.large_binary()) if text else column


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data", "reading .parquet files") from None
    return pyarrow, pyarrow.parquet


@lru_cache(maxsize=8)
def _hub_dataset(path: str) -> Any:
    """The streaming dataset of `hf:NAME[:CONFIG][@SPLIT]`; AUNetError with the first line of what went wrong."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "data", "reading hf: sources") from None
    name, _, split = path.removeprefix("hf:").partition("@")
    name, _, config = name.partition(":")
    try:
        return datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
    except Exception as error:  # network, names, splits: each has its own class
        raise AUNetError(f"{path}: {one_line(error)}") from None

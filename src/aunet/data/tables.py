"""Parquet files and Hugging Face datasets: documents as rows of a table."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from aunet.data.blocks import (
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


class Parquet(Format):
    """`.parquet`: one row, one document, in a column of strings or bytes; a block is a row group."""

    def blocks(self, path: str, size: int, block_bytes: int, field: str, problems: Problems) -> list[Block]:
        """The row groups that have rows."""
        arrow, parquet = _pyarrow()
        try:
            with open_file(path) as file:
                reader = parquet.ParquetFile(file)
                names = list(reader.schema_arrow.names)
                metadata = reader.metadata
        except (arrow.ArrowException, OSError) as error:
            problems.add("corrupt file", path, f"not a readable parquet file ({one_line(error)})")
            return []
        if field not in names:
            problems.add("no text field", path, no_field(field, names, "file", "columns"))
            return []
        if metadata.num_rows == 0:
            problems.add("empty file", path, "empty file")
        leaf = next(
            (i for i in range(metadata.num_columns) if metadata.schema.column(i).path.split(".")[0] == field), 0
        )
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        return [
            Block("parquet", path, i, i + 1, group.column(leaf).total_uncompressed_size, size)
            for i, group in enumerate(groups)
            if group.num_rows
        ]

    def read(self, block: Block, position: int, field: str, problems: Problems) -> Iterator[Document]:
        """A position is a number of rows in the row group."""
        arrow, parquet = _pyarrow()
        with open_unchanged(block) as file:
            before = number = 0
            try:
                reader = parquet.ParquetFile(file)
                before = sum(reader.metadata.row_group(i).num_rows for i in range(block.start))
                # Threads of Arrow don't survive a fork, and a worker is one core anyway.
                for batch in reader.iter_batches(256, row_groups=[block.start], columns=[field], use_threads=False):
                    if number + len(batch) <= position:
                        number += len(batch)
                        continue
                    for value in _as_bytes(arrow, batch.column(0)).to_pylist():
                        number += 1
                        if number <= position:
                            continue
                        where = f"{block.path}:{before + number}"
                        if document := document_of_value(value, field, problems, where):
                            yield number, document
            except (arrow.ArrowException, OSError) as error:
                problems.add(
                    "corrupt file", f"{block.path}:{before + number + 1}", f"{one_line(error)}; read up to here"
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
        except AUNetError:
            raise
        except Exception as error:  # the readers behind a hub dataset raise whatever they like
            raise AUNetError(f"{block.path} shard {block.start}:{number + 1}: {one_line(error)}") from error


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

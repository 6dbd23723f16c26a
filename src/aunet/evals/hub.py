"""Datasets of the hub, for machines that are online."""

from typing import Any

from aunet.errors import AUNetError, MissingExtra


def hub_rows(name: str, split: str, config: str | None = None) -> list[dict[str, Any]]:
    """The rows of a split; AUNetError in one line where the hub cannot give them."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "data", f"reading {name} from the hub") from None
    try:
        return [dict(row) for row in datasets.load_dataset(name, config, split=split)]
    except Exception as error:  # the hub, the network and the files each have their own
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise AUNetError(f"{name} cannot be read from the hub ({reason}); give local files with --data-dir") from None

"""The database that the workers of a sweep share."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from aunet.config import RunConfig
from aunet.errors import AUNetError, ConfigError
from aunet.scaling.points import optuna
from aunet.scaling.records import difference, filled

SQLITE = "sqlite:///"
POSTGRES = "postgresql://"
ATTEMPTS = 5
DATA_HASH = "data_hash"
"""Of an identity: what stands in the files, by their names in a record. An earlier version left it out."""


def open_study(url: str, name: str, identity: Mapping[str, Any], stale_after: int, on_stale: Any) -> Any:
    """The study of this name, made if it is new; ConfigError if it belongs to a search of another identity.

    A trial whose worker has been silent for `stale_after` seconds is failed, and `on_stale(study, trial)` called.
    """
    with _storage_errors(url):
        _refuse_memory(url)
        storage = _open_storage(url, stale_after, on_stale)
        if url.startswith("sqlite"):
            _serialise(storage.engine)
        _beat_again(storage)
        study = optuna().create_study(study_name=name, storage=storage, load_if_exists=True)
    there = study.user_attrs.get("sweep")
    if there is not None and (change := difference(_of_today(there, identity), dict(identity))):
        raise ConfigError(f"--study: {name} is another search: {change}; restore it or name another")
    study.set_user_attr("sweep", dict(identity))
    return study


def _of_today(there: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity that an earlier version left, with the settings that it did not have yet at their defaults."""
    sections = filled({name: there[name] for name in RunConfig.model_fields if name in there})
    known = {
        name: {key: value for key, value in values.items() if key in identity.get(name, {})}
        for name, values in sections.items()
    }
    sections = {name: {**there[name], **values} for name, values in known.items()}
    return {DATA_HASH: identity.get(DATA_HASH), **there, **sections}


def _refuse_memory(url: str) -> None:
    """Every thread would have a database of its own there, and nobody could go on."""
    from sqlalchemy.engine import make_url

    parsed = make_url(url)
    if parsed.drivername.startswith("sqlite") and parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"--storage: {url} is kept nowhere; write {SQLITE}FILE")


def _open_storage(url: str, stale_after: int, on_stale: Any) -> Any:
    """The database; its tables are made by whoever is first."""
    from sqlalchemy.exc import DBAPIError

    for attempt in range(ATTEMPTS):
        try:
            return optuna().storages.RDBStorage(
                # Which driver is meant by the plain name depends on the version of SQLAlchemy.
                url.replace(POSTGRES, "postgresql+psycopg://", 1) if url.startswith(POSTGRES) else url,
                heartbeat_interval=max(1, stale_after // 4),
                grace_period=stale_after,
                heartbeat_stale_trial_callback=on_stale,
            )
        except DBAPIError:
            # Another worker may be making the tables in this moment; then they are there the next time.
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(1.0)
    raise AssertionError


def _serialise(engine: Any) -> None:
    """Let every transaction of SQLite lock the file from its beginning, so that two workers can't take one trial."""
    from sqlalchemy import event

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself
        connection.execute("PRAGMA busy_timeout = 60000")

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)


def _beat_again(storage: Any) -> None:
    """A heartbeat that fails is one that is missed: a database that comes back in time has lost no worker.

    Otherwise the thread of heartbeats would end with a traceback, and another worker take the point.
    """
    beat = storage.record_heartbeat

    def try_to_beat(trial_id: int) -> None:
        with suppress(*_errors()):
            beat(trial_id)

    storage.record_heartbeat = try_to_beat


def _errors() -> tuple[type[Exception], ...]:
    """What a database that cannot be reached raises, in optuna's wrapping or without it."""
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError, optuna().exceptions.StorageInternalError


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """What drivers raise differs with each; a password in the URL is not shown."""
    try:
        yield
    except (AUNetError, KeyboardInterrupt):
        raise
    except ImportError as error:
        if url.startswith(POSTGRES):
            raise ConfigError("--storage: PostgreSQL needs its driver; pip install 'aunet[postgres]'") from None
        raise ConfigError(f"--storage: {url.partition(':')[0]} needs its driver: {error.__cause__ or error}") from None
    except Exception as error:
        cause = _cause(error)
        if url.count("@") > 1:
            cause = "it has more than one @; in a user or a password write %40"
        raise ConfigError(f"--storage: {_shown(url)} cannot be used: {cause}") from None


@contextmanager
def storage_lost(url: str) -> Iterator[None]:
    """AUNetError for a database that is gone in the middle of a search, or has lost what it held."""
    try:
        yield
    except _errors() as error:
        raise AUNetError(
            f"--storage: {_shown(url)} was lost: {_cause(error)}; runs and records are kept, and the same command "
            "goes on when it is back"
        ) from None


def _shown(url: str) -> str:
    """Up to the last @: one inside the password is a mistake, of which drivers show what stands behind it."""
    return re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url)


def _cause(error: Exception) -> str:
    """What the driver says, whoever has wrapped it."""
    return (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]

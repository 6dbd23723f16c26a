"""The process of a server: its socket, its signals, its end."""

import asyncio
import signal
import socket

import uvicorn

from aunet.errors import AUNetError, ConfigError
from aunet.infer.engine import Engine
from aunet.language_model import LanguageModel, require_bytes
from aunet.serve.app import create_app
from aunet.serve.settings import Settings
from aunet.serve.worker import Worker

GRACE = 5.0
"""Seconds that connections have to take their last bytes after the answers have been cut off."""


def run_server(model: LanguageModel, name: str, host: str, port: int, settings: Settings) -> None:
    """Serve a model until SIGTERM or SIGINT; AUNetError where nobody can listen, or if the engine has failed."""
    require_bytes(model.config, "serve")
    with _listen(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        print(f"serving {name} at http://{shown}:{listener.getsockname()[1]}", flush=True)
        app = create_app(Engine(model.session(), settings.slots, settings.prompt_cache), name, settings)
        config = uvicorn.Config(
            app,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=round(settings.drain_seconds + GRACE),
        )
        server = _Server(config, app.state.worker, settings.drain_seconds)
        # Uvicorn sends itself a signal that it has caught once more when it is done, and there it is no news: exit 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        server.run(sockets=[listener])
    if app.state.worker.status == "failed":
        raise AUNetError("the engine has failed; see above")


class _Server(uvicorn.Server):
    """Lets running answers end by themselves for a while, then ends them."""

    def __init__(self, config: uvicorn.Config, worker: Worker, drain_seconds: float) -> None:
        super().__init__(config)
        self._worker, self._drain = worker, drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once after a signal; returns when every connection has ended."""
        self._worker.refuse()
        asyncio.get_running_loop().call_later(self._drain, self._worker.cut)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise ConfigError(f"--port: {port} is not from 0 (any free port) to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AUNetError(f"--host, --port: cannot listen at {host}, port {port} ({reason})") from None

"""A server of one model: OpenAI's HTTP interface, the playground page, metrics.

settings   limits and keys                 run        the process: socket, signals, graceful end
worker     the thread that owns the engine app        routes
schemas    what comes in and goes out      completions, chat, logprobs, inspection   one endpoint's work each
errors     every error as one JSON shape   gate, metrics, assets, description        around the endpoints
replicas   the same application behind Ray Serve
"""

from aunet.errors import MissingExtra

try:
    import fastapi as _fastapi  # noqa: F401
    import prometheus_client as _prometheus_client  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise MissingExtra(str(error.name), "serve", "aunet serve") from None

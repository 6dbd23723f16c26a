"""The application: routes, and what stands around them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

import aunet
from aunet.errors import ConfigError
from aunet.infer.engine import Engine
from aunet.serve.assets import browser_routes
from aunet.serve.chat import ChatShape, chat_order
from aunet.serve.completions import CompletionShape, completion_order
from aunet.serve.description import state_limits
from aunet.serve.errors import APIError, ErrorBody, invalid, of_http, of_validation
from aunet.serve.gate import Gate
from aunet.serve.generation import answer
from aunet.serve.inspection import inspect
from aunet.serve.metrics import Measured, Metrics
from aunet.serve.patience import Gone, Patience
from aunet.serve.schemas import (
    Chat,
    ChatChunk,
    ChatRequest,
    Completion,
    CompletionRequest,
    Health,
    Inspection,
    InspectRequest,
    Model,
    ModelFacts,
    ModelList,
)
from aunet.serve.settings import Settings
from aunet.serve.worker import Worker

DESCRIPTION = "One byte-level language model behind OpenAI's interface; a token is a byte."
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "A request that cannot be answered"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    429: {"model": ErrorBody, "description": "All places are taken; Retry-After says for how many seconds"},
    "5XX": {"model": ErrorBody, "description": "The server has failed"},
    503: {"model": ErrorBody, "description": "The server is stopping"},
    504: {"model": ErrorBody, "description": "The answer was not finished in time"},
}
KEY = HTTPBearer(auto_error=False, description="the key with which the server was started")
"""For the description; the gate checks it."""


def create_app(engine: Engine, name: str, settings: Settings) -> FastAPI:
    """The application of one model, which is called `name`. Its engine's thread lives as long as it does."""
    worker = Worker(engine, settings.queue)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        try:
            yield
        finally:
            worker.cut()
            worker.join(settings.drain_seconds)

    app = FastAPI(
        title="aunet",
        version=aunet.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        # Two schemas for a model that comes in and goes out would only double the description.
        separate_input_output_schemas=False,
    )
    metrics = Metrics(worker)
    app.state.worker = worker
    app.include_router(_api(worker, name, settings, metrics))
    app.include_router(_operations(worker, metrics))
    app.include_router(browser_routes(app))
    app.add_middleware(
        Gate, api_key=settings.api_key, max_body_bytes=settings.max_body_bytes, max_seconds=settings.max_seconds
    )
    app.add_middleware(Measured, metrics=metrics)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            state_limits(describe(), name, settings)
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_exception_handler(Exception, _answer)
    for kind in (APIError, ConfigError, Gone, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    return app


def _api(worker: Worker, name: str, settings: Settings, metrics: Metrics) -> APIRouter:
    """Everything under /v1."""
    splitter = worker.session.splitter
    router = APIRouter(prefix="/v1", dependencies=[Security(KEY)] if settings.api_key else [], responses=ERRORS)
    model = Model(
        id=name,
        created=int(time.time()),
        aunet=ModelFacts(
            splitter=splitter.rule,
            stages=splitter.depth + 1,
            max_prompt_bytes=settings.max_prompt_bytes,
            max_new_bytes=settings.max_new_bytes,
            max_scored_bytes=settings.max_scored_bytes,
        ),
    )

    def check(asked: str | None) -> None:
        if asked not in (None, name):
            raise APIError(404, f"model: no {asked!r} here; this server has {name!r}", "model_not_found", "model")

    @router.post("/completions", responses=_streamed(Completion))
    async def completions(body: CompletionRequest, http: Request) -> Response:
        """Continue a text, or each of a list."""
        check(body.model)
        order = completion_order(body, settings)
        shape = await CompletionShape.create(name, splitter, order.requests)
        return await answer(order, shape, worker, Patience.of(http), settings, metrics)

    @router.post("/chat/completions", responses=_streamed(Chat, ChatChunk))
    async def chat_completions(body: ChatRequest, http: Request) -> Response:
        """Answer a conversation, by a plain template."""
        check(body.model)
        order, shape = chat_order(body, settings), ChatShape(name, bool(body.logprobs))
        return await answer(order, shape, worker, Patience.of(http), settings, metrics)

    @router.post("/inspect", response_model=Inspection)
    async def inspect_text(body: InspectRequest, http: Request) -> Response:
        """Look at a text as the model reads it."""
        return await inspect(body, worker, Patience.of(http), settings)

    @router.get("/models")
    async def models() -> ModelList:
        """The model of this server."""
        return ModelList(data=[model])

    @router.get("/models/{model_id:path}")
    async def one_model(model_id: Annotated[str, Path(max_length=256)]) -> Model:
        """The same by its name."""
        check(model_id)
        return model

    return router


def _operations(worker: Worker, metrics: Metrics) -> APIRouter:
    """What keeps an eye on a server."""
    router = APIRouter()

    @router.head("/health", include_in_schema=False)
    @router.get("/health", responses={503: {"model": Health, "description": "No request is answered"}})
    async def health() -> Health:
        """Whether requests are answered."""
        found = Health(status=worker.status)
        return found if worker.status == "ok" else JSONResponse(found.model_dump(), 503)  # type: ignore[return-value]

    @router.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Counters in the format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _streamed(whole: type[Any], piece: type[Any] | None = None) -> dict[int | str, dict[str, Any]]:
    """The success of an endpoint that can stream."""
    name = (piece or whole).__name__
    events = {
        "type": "object",
        "description": "an event",
        "properties": {"data": {"type": "string", "description": f"a {name}, an error, or [DONE] at the end"}},
        "required": ["data"],
    }
    return {200: {"model": whole, "content": {"text/event-stream": {"schema": events}}}}


async def _answer(request: Request, error: Exception) -> Response:
    """Any error in the one shape."""
    match error:
        case APIError():
            return error.response()
        case Gone():
            return Response(status_code=499)  # nobody reads it
        case ConfigError():
            return invalid(str(error)).response()
        case RequestValidationError():
            return of_validation(error.errors()).response()
        case HTTPException():
            return of_http(error).response()
    return APIError(500, "the server has failed; its log says why", "internal_error").response()

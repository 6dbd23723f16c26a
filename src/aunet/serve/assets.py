"""What a browser is shown: the playground, and a description of the interface. Nothing is loaded from elsewhere."""

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from aunet.serve.description import reference
from aunet.serve.page import POLICY, PageFile, files

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def browser_routes(app: FastAPI) -> APIRouter:
    """The playground at `/`, and `/docs` from the description at `/openapi.json`."""
    found = files()
    router = APIRouter(include_in_schema=False)

    def send(path: str) -> Response:
        file: PageFile = found[path]
        return Response(file.content, media_type=file.media_type, headers=HEADERS)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def playground() -> Response:
        return send("/")

    @router.get("/page/{name}")
    async def page_file(name: str) -> Response:
        path = f"/page/{name}"
        if path not in found:
            raise HTTPException(404)
        return send(path)

    @router.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(reference(app.openapi()), headers=HEADERS)

    return router

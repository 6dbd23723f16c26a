"""What a browser is shown: the playground, and a description of the interface. Nothing is loaded from elsewhere."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

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

    @router.get("/")
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


def reference(description: Mapping[str, Any]) -> str:
    """An OpenAPI description as a page without scripts."""
    info = description["info"]
    operations = "".join(
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(_words(operation))}</p>"
        f"{_fold('Request', operation.get('requestBody') or operation.get('parameters'))}"
        f"{_fold('Responses', operation['responses'])}</section>"
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<section id="{escape(name)}">{_fold(name, schema)}</section>'
        for name, schema in description["components"]["schemas"].items()
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])}</title><link rel="icon" href="page/icon.svg">'
        '<link rel="stylesheet" href="page/theme.css"></head>'
        f"<body><header><h1>{escape(info['title'])} {escape(info['version'])}</h1></header><main>"
        f'<p>{escape(info["description"])} The same as <a href="openapi.json">OpenAPI</a>.</p>'
        f"{operations}<h2>Schemas</h2>{schemas}</main></body></html>"
    )


def _words(operation: Mapping[str, Any]) -> str:
    return f"{operation.get('summary', '')}. {operation.get('description', '')}".strip()


def _fold(title: str, content: Any) -> str:
    if not content:
        return ""
    text = escape(json.dumps(content, indent=2, ensure_ascii=False))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"

"""What the server says about itself: OpenAPI with the limits of this very server, and a page of it."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from aunet.serve.settings import Settings
from aunet.splitting import RULES


def state_limits(description: dict[str, Any], name: str, settings: Settings) -> None:
    """Write into an OpenAPI description what the schemas can't know: it depends on the model and on the settings."""
    schemas = description["components"]["schemas"]
    for request in ("CompletionRequest", "ChatRequest"):
        properties = schemas[request]["properties"]
        properties["model"] = {**properties["model"], "anyOf": [{"const": name}, {"type": "null"}]}
        for field in ("max_tokens", "max_completion_tokens"):
            for form in properties.get(field, {}).get("anyOf", ()):
                if form["type"] == "integer":
                    form["maximum"] = settings.max_new_bytes
    # Lengths are limited in bytes, of which a character has one at least.
    for form in schemas["CompletionRequest"]["properties"]["prompt"]["anyOf"]:
        form["maxLength" if form["type"] == "string" else "maxItems"] = settings.max_prompt_bytes
    inspection = schemas["InspectRequest"]["properties"]
    inspection["text"]["maxLength"] = settings.max_scored_bytes
    rule = "|".join(form.pattern for form in RULES).replace(r"\d", "[0-9]")
    inspection["splitter"]["anyOf"][0]["pattern"] = rf"^(({rule})(\+({rule})){{0,3}})?$"


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

"""`/docs`: the OpenAPI document as one page of plain HTML; it needs no script and no other host."""

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.api.static_files import REVALIDATED, StaticFile, StaticFiles

router = APIRouter(include_in_schema=False)

_POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'none'"
_STYLE = b"""
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, h2, h3 { font-family: ui-monospace, monospace }
h2, h3 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top;
border-bottom: 1px solid #8884; padding: .25rem .75rem .25rem 0 } th { font-weight: 600 }
:root { color-scheme: light dark }
"""


_files = StaticFiles({"docs.css": _STYLE})


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs(request: Request) -> Response:
    """The page for people; machines read /openapi.json."""
    state = request.app.state
    if getattr(state, "docs_page", None) is None:
        state.docs_page = StaticFile.of("docs.html", render(request.app.openapi()).encode())
    headers = {"Content-Security-Policy": _POLICY}
    answer: Response = state.docs_page.answer(request, REVALIDATED, headers)
    return answer


@router.api_route("/docs/{name}", methods=["GET", "HEAD"])
async def docs_file(request: Request) -> Response:
    """What the page names."""
    return _files.answer(request, request.path_params["name"])


def render(described: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = described["info"]
    title = escape(f"{info['title']} {info['version']}")
    style = _files["docs.css"].hashed_name
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{title}</title><link rel="stylesheet" href="docs/{style}">',
        f"</head><body><h1>{title}</h1>",
        f"<p>{escape(info.get('description', ''))} ",
        'For machines: <a href="/openapi.json">openapi.json</a>.</p>',
        *_credentials(described["components"].get("securitySchemes", {})),
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts += _schema(name, schema)
    return "".join([*parts, "</body></html>"])


def _credentials(schemes: dict[str, Any]) -> Iterator[str]:
    for name, scheme in schemes.items():
        said = escape(scheme.get("description", ""))
        yield f"<p><code>Authorization: Bearer</code> {escape(name)}: {said}</p>"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('summary', ''))}. "
    yield f"{escape(operation.get('description', ''))}</p><table>"
    if "security" in operation:
        names = " or ".join(name for one in operation["security"] for name in one)
        yield _row("credential", escape(names))
    for one in operation.get("parameters", []):
        said = f"{escape(one['in'])}, {escape(one.get('description', ''))}"
        yield _row(f"<code>{escape(one['name'])}</code>", said)
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _row("body", f"{_type(content['schema'])} as {escape(kind)}")
    for status, one in operation["responses"].items():
        kinds = [_type(content.get("schema", {})) for content in one.get("content", {}).values()]
        yield _row(escape(status), f"{escape(one['description'])} {' '.join(kinds)}")
    yield "</table>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    said = escape(schema.get("description", ""))
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{said}</p>'
    required = schema.get("required", [])
    yield "<table>"
    for field, one in schema.get("properties", {}).items():
        needed = "required" if field in required else ""
        yield _row(f"<code>{escape(field)}</code>", f"{_type(one)}{_limits(one)} {needed}")
    yield "</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(_type(one) for one in options)
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    said = schema.get("const", schema.get("format", schema.get("type", "anything")))
    return escape(str(said))


def _limits(schema: dict[str, Any]) -> str:
    names = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")
    found = [f"{name} {escape(str(schema[name]))}" for name in names if name in schema]
    if schema.get("default") is not None:
        found.append(f"default {escape(str(schema['default']))}")
    return f" ({', '.join(found)})" if found else ""


def _row(head: str, text: str) -> str:
    return f"<tr><th>{head}</th><td>{text}</td></tr>"

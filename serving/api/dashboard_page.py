"""`/dashboard`: one page of key figures. The page itself is nobody's secret; every figure on it is
asked for with an admin key, which the page keeps in its tab. In the demo the shop's own server asks
instead, so that no key stands in the page."""

from functools import lru_cache

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from serving.api.problems import ApiProblem
from serving.api.static_files import StaticFiles, web_folder

router = APIRouter(include_in_schema=False)

API = "/v1"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@lru_cache
def files(api: str, shop: str) -> StaticFiles | None:
    """The page as it asks `api`; None where it is not part of the installation."""
    folder = web_folder("dashboard")
    return None if folder is None else StaticFiles.of_page(folder, api=api, shop=shop)


@router.api_route("/dashboard", methods=["GET", "HEAD"])
async def dashboard() -> Response:
    """To the page, from whose folder its files are named."""
    return RedirectResponse("/dashboard/")


@router.api_route("/dashboard/{name:path}", methods=["GET", "HEAD"])
async def page(request: Request, name: str) -> Response:
    """The page and what it names."""
    held = files(*getattr(request.app.state, "dashboard", (API, "")))
    if held is None:
        raise ApiProblem(404, "The dashboard is not part of this installation.")
    return held.answer(request, name or "index.html", _HEADERS)

"""The addresses of the page and of its data. What they answer is decided by the desk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.requests import ClientDisconnect

from moola_mlflow.annotate.decisions import RefusedDecision
from moola_mlflow.annotate.desk import DecidedAlready, Desk, NothingToUndo

PAGE = Path(__file__).parent / "page"
TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}
PLACEHOLDER = "<!doctype html><html lang=en><title>annotate</title><p>The page is not in this package.</p></html>"
ALREADY = "this window was decided already, maybe in another tab"


def build_app(desk: Desk, finish: Callable[[], dict[str, Any]]) -> FastAPI:
    """Return the app of a desk. ``finish`` ends the session and returns what was reached."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    async def page() -> Response:
        file = PAGE / "annotate.html"
        return FileResponse(file, media_type="text/html") if file.is_file() else HTMLResponse(PLACEHOLDER)

    @app.get("/page/{name}")
    async def page_file(name: str) -> Response:
        file = _page_file(name)
        if file is None:
            return JSONResponse({"error": "no such file of the page"}, 404)
        return FileResponse(file, media_type=TYPES[file.suffix])

    @app.get("/api/session")
    async def session() -> Response:
        return JSONResponse(desk.session())

    @app.get("/api/window")
    async def window() -> Response:
        return JSONResponse(desk.window())

    @app.get("/api/progress")
    async def progress() -> Response:
        return JSONResponse(desk.progress())

    @app.get("/api/context")
    async def context(request: Request) -> Response:
        asked = request.query_params
        try:
            before, after = (_count(asked.get(name, "0"), name) for name in ("before", "after"))
            return JSONResponse(desk.context(asked.get("ticket", ""), before, after))
        except RefusedDecision as e:
            return JSONResponse(e.said, 422)
        except DecidedAlready:
            return JSONResponse({"error": ALREADY, "window": desk.window()}, 409)

    @app.post("/api/decision")
    async def decision(request: Request) -> Response:
        try:
            return JSONResponse(desk.decide(await _body(request)))
        except RefusedDecision as e:
            return JSONResponse(e.said, 422)
        except DecidedAlready:
            return JSONResponse({"error": ALREADY, "window": desk.window()}, 409)
        except OSError as e:
            error = f"the decision could not be kept: {e}; free space on the disk and decide again"
            return JSONResponse({"error": error}, 507)

    @app.post("/api/undo")
    async def undo() -> Response:
        try:
            return JSONResponse(desk.undo())
        except NothingToUndo:
            return JSONResponse({"error": "there is nothing to undo", "window": desk.window()}, 409)

    @app.post("/api/finish")
    async def finished() -> Response:
        return JSONResponse(finish())

    return app


def _page_file(name: str) -> Path | None:
    """Return a file of the page, or the charting library that the package plotly carries."""
    if name == "plotly.min.js":
        import plotly

        file = Path(plotly.__file__).parent / "package_data" / name
    elif re.fullmatch(r"[a-z][a-z0-9_-]*\.(css|js|html|svg)", name):
        file = PAGE / name
    else:
        return None
    return file if file.is_file() else None


async def _body(request: Request) -> Any:
    """Return the JSON of a request. Raises: RefusedDecision."""
    try:
        raw = await request.body()
    except ClientDisconnect:  # it has gone, or took too long: nobody hears the answer
        raise RefusedDecision("the body did not come whole", "a part of it", "a JSON object") from None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise RefusedDecision("the body is no JSON", f"{len(raw)} bytes", "a JSON object") from None


def _count(text: str, name: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text):
        raise RefusedDecision(f"{name} is no number of bars", text, "a whole number from 0 on")
    return int(text)

"""Who may talk to the server: pages that it served itself, on this machine.

A page of another site cannot send anything that changes state (``Origin``), cannot
reach the server under a name of its own (``Host``), and cannot show or embed what it
serves.
Where the server listens for other machines, a random token is needed as well.
"""

import hmac
import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Refuses what does not come from the server's own page.

    Args:
        app: what answers the rest.
        host: what the server listens on.
        token: has to be in the address or in the cookie that it leads to; empty: none.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str = ""):
        self._app, self._token = app, token
        self._hosts = _LOCAL | {host.lower()}
        self._any_host = is_every_address(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or hands it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope) or self._greeting(scope)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._any_host and _name(host) not in self._hosts:
            return _refuse(400, f"host {host[:80]!r} is not this server")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if origin != f"http://{host}" and (changes or origin is not None):
            return _refuse(403, "only this server's own page may ask for that")
        if self._token and not self._is_known(scope, headers):
            return _refuse(403, "open the whole address that the server has printed")
        return None

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        name = _cookie(scope)
        kept = cookies[name].value if name in cookies else ""
        return any(
            hmac.compare_digest(one.encode(), self._token.encode())
            for one in (given[0], kept)
        )

    def _greeting(self, scope: Scope) -> Response | None:
        """Turns the token of the address into a cookie: the page does not show it."""
        if not self._token or scope["path"] != "/" or not scope["query_string"]:
            return None
        answer = RedirectResponse("/", 303)
        name = _cookie(scope)
        answer.set_cookie(name, self._token, httponly=True, samesite="strict")
        return answer


def make_token(host: str) -> str:
    """A random token where others than this machine can reach the server, else none."""
    return "" if host.lower() in _LOCAL else secrets.token_urlsafe(24)


def _cookie(scope: Scope) -> str:
    """A name of its own for each server on a machine: cookies know no ports."""
    port = scope["server"][1] if scope.get("server") else 0
    return f"siamrpn_app_{port}"


def is_every_address(host: str) -> bool:
    """Whether a host, as ``0.0.0.0``, stands for all addresses of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _refuse(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)


def _name(host: str) -> str:
    """The host of a ``Host`` header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return send_with_headers

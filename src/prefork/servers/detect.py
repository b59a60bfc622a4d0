"""Is it ASGI or WSGI? Found by the shape of the application, never by calling it.

In order: what says so itself (a coroutine function is ASGI, and no WSGI callable is one); then the
parameters it takes: three are `scope, receive, send`, two are `environ, start_response`. Wrappers are
looked through: partials, decorators that keep `__wrapped__`, instances with `__call__`.

What is refused with a reason rather than guessed: ASGI 2 (`app(scope)` returning a callable), a class
that is not instantiated, a factory, and anything whose parameters do not tell.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final, Literal

from prefork.errors import ConfigError

Interface = Literal["asgi", "wsgi"]

_ASK: Final = "say which with --interface asgi or --interface wsgi (interface= in a program)"
_WSGI_NAMES: Final = ({"environ", "env", "wsgi_environ"}, {"start_response", "start_resp", "start"})


def interface_of(app: Any) -> Interface:
    """Tell "asgi" from "wsgi". Raises `ConfigError` if `app` is neither, or does not tell. Pure."""
    if not callable(app):
        raise ConfigError(f"the application {_name(app)} is not callable")
    if inspect.isclass(app):
        return _of_class(app)
    # What inspect can see through by itself (partials, functions) goes as it is; instances by their call.
    target = app if isinstance(app, functools.partial) or inspect.isroutine(app) else app.__call__
    is_coroutine_function = inspect.iscoroutinefunction(target)
    names = _parameters(target)
    if is_coroutine_function and names is None:
        return "asgi"
    if names is None:
        raise ConfigError(f"cannot tell whether {_name(app)} is ASGI or WSGI: {_ASK}")
    if len(names) == 3:
        return "asgi"
    if len(names) == 2 and not is_coroutine_function:
        return "wsgi"
    _refuse_asgi2(app, names)
    if not names:
        raise ConfigError(f"{_name(app)} takes no arguments: if it makes the application, use --factory")
    raise ConfigError(f"cannot tell whether {_name(app)} is ASGI or WSGI: {_ASK}")


def _of_class(app: type) -> Interface:
    """Classes that are applications themselves: an instance is made for each request, as PEP 3333 shows."""
    names = _parameters(app)
    _refuse_asgi2(app, names)
    if names is not None and len(names) == 2 and _is_wsgi_pair(names) and hasattr(app, "__iter__"):
        return "wsgi"
    if names is not None and len(names) == 3 and hasattr(app, "__await__"):
        return "asgi"
    raise ConfigError(f"{_name(app)} is a class, not an application: make an instance, or use --factory")


def _is_wsgi_pair(names: list[str]) -> bool:
    return names[0].lstrip("_") in _WSGI_NAMES[0] or names[1].lstrip("_") in _WSGI_NAMES[1]


def _refuse_asgi2(app: Any, names: list[str] | None) -> None:
    if names == ["scope"]:
        raise ConfigError(
            f"{_name(app)} looks like ASGI 2 (it takes a scope and returns a callable), which is out of "
            "use: wrap it with asgiref.compatibility.guarantee_single_callable"
        )


def _parameters(target: Any) -> list[str] | None:
    """Names of what must be given by position; None if that cannot be known."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in signature.parameters.values()):
        return None
    return [
        name
        for name, each in signature.parameters.items()
        if each.kind in by_position and each.default is inspect.Parameter.empty
    ]


def _name(app: Any) -> str:
    name = getattr(app, "__qualname__", None) or type(app).__qualname__
    module = getattr(app, "__module__", None) or type(app).__module__
    return f"{module}.{name}"

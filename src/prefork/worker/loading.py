"""From `MODULE:ATTR` to the application. Runs in the zygote (or an executed worker), never in the master.

What is wrong with the words (no such module, no such attribute, not callable) is told in one line. What the
application's own code raises is told with its traceback.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path, PurePath
from typing import Any

from prefork.errors import ApplicationError, ConfigError


def split_target(target: str) -> tuple[str, str]:
    """`"pkg.mod:make.app"` into module and attribute path. Raises ConfigError. Any process."""
    module, colon, attribute = target.partition(":")
    names = [*module.split("."), *attribute.split(".")]
    if not colon or module.endswith(".py") or not all(name.isidentifier() for name in names):
        hint = ""
        if module.endswith(".py") or "/" in module:
            stem = PurePath(target.partition(":")[0]).stem
            hint = f": name the module, not its file: {stem}:app"
        raise ConfigError(f"application must be MODULE:ATTR, such as main:app, not {target!r}{hint}")
    return module, attribute


def load(target: str, app_dir: str, *, is_factory: bool) -> Any:
    """Import the application that `target` names.

    Args:
        target: MODULE:ATTR; the attribute may be dotted.
        app_dir: put first on the import path.
        is_factory: the attribute is called, without arguments, and gives the application.

    Raises:
        ApplicationError: it is not there, is not callable, or its own code raised (then with the traceback).
    """
    module_name, attribute = split_target(target)
    folder = str(Path(app_dir).absolute())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    app = _find(_import(module_name, folder), module_name, attribute)
    if is_factory:
        if not callable(app):
            raise ApplicationError(
                f"{target} is {type(app).__name__} and cannot be called: is --factory meant?"
            )
        app = _own_code(f"the factory {target}", app)
    if not callable(app):
        raise ApplicationError(
            f"{target} is not callable ({type(app).__name__}): an ASGI or WSGI application is a callable"
        )
    return app


def _import(name: str, folder: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ApplicationError(
                f"module {error.name!r} not found in {folder} or on the import path: "
                "check its spelling, or say where it is with --app-dir"
            ) from error
        raise _broken(f"module {name!r}", error) from error
    except (Exception, SystemExit) as error:
        raise _broken(f"module {name!r}", error) from error


def _find(module: Any, name: str, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            names = ", ".join(
                n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))
            )
            raise ApplicationError(
                f"module {name!r} has no attribute {attribute!r}" + (f": it has {names}" if names else "")
            ) from error
    return found


def _own_code(what: str, call: Any) -> Any:
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise _broken(what, error) from error


def _broken(what: str, error: BaseException) -> ApplicationError:
    """Tell it with the part of the traceback that is the application's."""
    frames = error.__traceback__
    ours = {__file__, importlib.__file__}
    while frames is not None and (
        frames.tb_frame.f_code.co_filename in ours
        or frames.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        frames = frames.tb_next
    details = "".join(traceback.format_exception(type(error), error, frames))
    kind = (
        f"exits (SystemExit: {error})"
        if isinstance(error, SystemExit)
        else f"raises {type(error).__name__}: {error}"
    )
    return ApplicationError(f"{what} {kind}", details)

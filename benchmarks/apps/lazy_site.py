"""A Django site that loads at its first requests what Django loads then, and a table of its own.

URL tables, views, forms, templates; the table, some 30 MB of objects, is made when it is first asked for.

    python -m prefork --app-dir benchmarks/apps lazy_site:app
"""

import functools
import os
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="of a benchmark",  # noqa: S106
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()


@functools.cache
def prices() -> dict[str, dict[str, Any]]:
    """Some 30 MB of small objects."""
    return {f"article {n}": {"number": n, "price": n * 1.19, "name": f"name {n}"} for n in range(60_000)}


def catalogue(_request: HttpRequest) -> HttpResponse:
    """Ask the table for one article."""
    return JsonResponse(prices()["article 4711"])


def worker(_request: HttpRequest) -> HttpResponse:
    """Say who answers, and load nothing."""
    return HttpResponse(str(os.getpid()))


def _urls() -> list[Any]:
    from django.contrib import admin  # noqa: PLC0415  (as late as the table of URLs is)

    return [path("admin/", admin.site.urls), path("catalogue/", catalogue), path("worker/", worker)]


class _Late:
    """A table of URLs that is made when it is first looked at."""

    def __iter__(self) -> Any:
        return iter(self._all())

    def __reversed__(self) -> Any:
        return reversed(self._all())

    @functools.cache  # noqa: B019  (one object for the life of the process)
    def _all(self) -> list[Any]:
        return _urls()


urlpatterns = _Late()


def _application() -> Any:
    from django.core.asgi import get_asgi_application  # noqa: PLC0415  (after the settings)

    return get_asgi_application()


app = _application()

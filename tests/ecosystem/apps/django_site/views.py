"""Views: what a request carries, and each kind of answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt

_NOTE: dict[str, str] = {}


@receiver(request_finished)
def finished(**_kwargs: object) -> None:
    if "path" in _NOTE:
        Path(_NOTE.pop("path")).write_text("finished", encoding="utf-8")


def index(request: HttpRequest) -> JsonResponse:
    if "note" in request.GET:
        _NOTE["path"] = request.GET["note"]
    return JsonResponse(
        {
            "method": request.method,
            "path": request.path,
            "query": request.GET.dict(),
            "scheme": request.scheme,
            "own": request.headers.get("x-own"),
            "twice": request.headers.get("x-twice"),
            "address": request.META["REMOTE_ADDR"],
            "agent": request.META.get("HTTP_USER_AGENT"),
        }
    )


def form(request: HttpRequest) -> HttpResponse:
    """GET gives the token that POST wants."""
    if request.method == "POST":
        return HttpResponse(f"you said {request.POST['word']}")
    return HttpResponse(get_token(request))


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    files = {name: (file.name, file.size, file.read()[:5].decode()) for name, file in request.FILES.items()}
    return JsonResponse({"files": files, "fields": request.POST.dict()})


@csrf_exempt
def raw(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{len(request.body)} {request.META.get('CONTENT_LENGTH')}")


def stream(_request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[str]:
        for number in range(20):
            yield f"{number},"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def astream(_request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        for number in range(20):
            await asyncio.sleep(0)
            yield f"{number},"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(request.GET["path"]).open("rb"), as_attachment=True, filename="ü.bin")


async def waits(_request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0.01)
    return HttpResponse("async")


def session(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def raises(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("of the view")


def nothing(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


def name(_request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(name)

"""Where the views are."""

from __future__ import annotations

from django.urls import path

from django_site import views

urlpatterns = [
    path("", views.index),
    path("form", views.form),
    path("upload", views.upload),
    path("raw", views.raw),
    path("stream", views.stream),
    path("astream", views.astream),
    path("file", views.file),
    path("async", views.waits),
    path("session", views.session),
    path("raises", views.raises),
    path("nothing", views.nothing),
    path("slashed/", views.index),
    path("name/<path:name>", views.name),
]

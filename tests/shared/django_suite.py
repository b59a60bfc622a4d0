"""Runs Django's own tests of cache backends against ours. Usage: django_suite.py DIRECTORY URL; needs a process of its own.

DIRECTORY is `tests` of Django's source distribution. Prints what a Django test run prints; ends with 0 if all passed.
"""

from __future__ import annotations

import sys


def main(directory: str, url: str) -> int:
    """Configure Django, take its class of common tests, run it."""
    import django  # noqa: PLC0415  (not before its settings)
    from django.conf import settings  # noqa: PLC0415  (see above)

    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    settings.configure(
        SECRET_KEY="secret",
        INSTALLED_APPS=["cache"],
        DATABASES={"default": database, "other": dict(database)},
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        USE_TZ=False,
    )
    sys.path.insert(0, directory)
    django.setup()

    from cache.tests import BaseCacheTests, caches_setting_for_tests  # noqa: PLC0415  (from DIRECTORY)
    from django.test import TestCase, override_settings  # noqa: PLC0415  (see above)
    from django.test.utils import get_runner  # noqa: PLC0415  (see above)

    caches = caches_setting_for_tests(
        BACKEND="prefork.shared.django.SharedCache",
        LOCATION=url,
        # As with Django's Redis and memcached: it is not bounded in entries.
        exclude={"cull", "zero_cull"},
    )

    @override_settings(CACHES=caches)
    class SharedCacheTests(BaseCacheTests, TestCase):  # type: ignore[misc]
        """The tests that Django has for each of its own backends."""

    runner = get_runner(settings)(verbosity=1, interactive=False)
    suite = runner.test_loader.loadTestsFromTestCase(SharedCacheTests)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    try:
        result = runner.run_suite(suite)
    finally:
        runner.teardown_databases(databases)
    print(f"ran {result.testsRun}, skipped {len(result.skipped)}")  # noqa: T201  (a command)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

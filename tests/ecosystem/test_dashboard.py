"""The dashboard and the demo page in a real Chromium: what they show is so, and a stranger's page gets nothing."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ecosystem.browsing import chromium, visit
from tests.process.apps import ask, reload, serving, wait_until_ready
from tests.process.attending import admin_port, status
from tests.process.harness import Fleet, free_port, wait_until
from tests.process.test_admin import send_requests

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
SCRIPT_LIMIT = re.compile(r"worker (\d+) answered (\d+) ms later")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet.command(*serving("web", "--admin", "127.0.0.1:0", workers=3)) as started:
        wait_until_ready(started, 3)
        yield started


@pytest.fixture
def demo() -> Iterator[Fleet]:
    admin = f"127.0.0.1:{free_port()}"
    with Fleet.command(*serving("demo", folder=DEMO, workers=3), env={"PREFORK_ADMIN": admin}) as started:
        wait_until_ready(started, 3)
        yield started


def dashboard(fleet: Fleet, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{admin_port(fleet)}/"


def shown_pids(visited: Any) -> list[int]:
    return sorted(
        int(each.inner_text())
        for each in visited.page.query_selector_all("#workers tr:not(.gone) td:nth-child(2)")
    )


def test_it_shows_the_fleet(browser: Any, fleet: Fleet) -> None:
    """Its workers, its state; the page asks nobody but its own server, and complains of nothing."""
    with visit(browser, dashboard(fleet)) as visited:
        visited.wait_for("() => document.querySelectorAll('#workers tr').length === 3")
        assert shown_pids(visited) == sorted(fleet.workers())
        assert visited.text("#state") == "serving, 3 of 3 workers"
        assert visited.text("#name") == "web:app"
        assert visited.text("#addresses") == fleet.url
        assert "3 workers serve" in visited.text("#events")
        assert {url.split("?")[0] for url in visited.asked} == {
            dashboard(fleet),
            dashboard(fleet) + "status.json",
        }
        assert not visited.complaints


def test_it_shows_as_many_requests_as_were_sent(browser: Any, fleet: Fleet) -> None:
    """To the last one."""
    with visit(browser, dashboard(fleet)) as visited:
        send_requests(fleet, 250)
        visited.wait_for("() => document.getElementById('requests').textContent === '250 in all'")
        assert status(fleet)["requests"] == 250
        assert visited.text("#errors-all") == "0 in all"


def test_it_shows_a_worker_die_and_be_replaced(browser: Any, fleet: Fleet) -> None:
    """The row goes, another comes, and the event stands in the list and on the time line."""
    with visit(browser, dashboard(fleet)) as visited:
        visited.wait_for("() => document.querySelectorAll('#workers tr').length === 3")
        old = fleet.workers()[1]
        mark = fleet.mark()
        fleet.kill(old)
        fleet.wait_for_workers(1, since=mark)
        visited.wait_for("() => document.querySelector('#events b.bad')?.textContent === 'crash'")
        visited.wait_for(
            "(pid) => ![...document.querySelectorAll('#workers td:nth-child(2)')].some((cell) => cell.textContent === pid)",
            str(old),
        )
        wait_until(lambda: shown_pids(visited) == sorted(fleet.workers()), "its successor is shown")
        assert f"pid {old}" in visited.text("#events")
        assert visited.page.query_selector("#chart-events .mark.bad") is not None
        assert visited.page.query_selector("#chart-rate .rule.bad") is not None
        assert visited.text("#replaced") == "crash 1"


def test_it_shows_a_reload(browser: Any, fleet: Fleet) -> None:
    """The generation counts up, and every row is new."""
    with visit(browser, dashboard(fleet)) as visited:
        visited.wait_for("() => document.getElementById('generation').textContent === '1'")
        reload(fleet)
        visited.wait_for("() => document.getElementById('generation').textContent === '2'")
        visited.wait_for("() => document.querySelectorAll('#workers tr:not(.gone)').length === 3")
        visited.wait_for(
            "() => document.getElementById('events').textContent.includes('generation 2 serves')"
        )
        assert not visited.complaints


def test_it_says_when_nobody_answers_and_goes_on_by_itself(browser: Any, fleet: Fleet) -> None:
    """The admin process is replaced, or the fleet is gone."""
    with visit(browser, dashboard(fleet)) as visited:
        visited.wait_for("() => document.getElementById('state').textContent.startsWith('serving')")
        assert fleet.stop() == 0
        visited.wait_for("() => !document.getElementById('notice').hidden")
        assert "Nobody answers" in visited.text("#notice")
        assert visited.text("#state") == "no answer"


def test_nobody_looks_and_nothing_is_asked(browser: Any, fleet: Fleet) -> None:
    """A page that is hidden asks no more; shown again, it asks at once."""
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with visit(browser, dashboard(fleet)) as visited:
        visited.wait_for("() => document.getElementById('state').textContent.startsWith('serving')")
        visited.page.evaluate(hide, arg=True)
        visited.wait_for("() => !isAsking")  # the one that was under way
        asked = len(visited.asked)
        visited.page.wait_for_timeout(2500)  # time is the matter: there is no event for what does not happen
        assert len(visited.asked) == asked
        with visited.page.expect_response(lambda answer: "status.json" in answer.url):
            visited.page.evaluate(hide, arg=False)


@pytest.mark.parametrize(
    "options",
    [PHONE, {"viewport": {"width": 1280, "height": 800}}, {"viewport": {"width": 620, "height": 900}}],
    ids=["phone", "desktop", "beside"],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(browser: Any, fleet: Fleet, scheme: str, options: dict[str, Any]) -> None:
    """Nothing is cut at the side, and what is written can be read on its ground."""
    with visit(browser, dashboard(fleet), color_scheme=scheme, **options) as visited:
        visited.wait_for("() => document.querySelectorAll('#workers tr').length === 3")
        assert visited.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        for selector in ("#rate", "#state", ".tile small", "#workers td", "#events time", "nav a"):
            assert visited.page.evaluate(CONTRAST, arg=selector) >= 4.5, selector


CONTRAST = """(selector) => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((each) => each / 255)
            .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const element = document.querySelector(selector);
    let ground = element;
    while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    const [one, other] = [light(getComputedStyle(element).color), light(getComputedStyle(ground).backgroundColor)];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}"""
"""WCAG 2.1, contrast ratio: 4.5 is level AA for text."""


# -- strangers ----------------------------------------------------------------------------------------


def test_a_name_that_a_stranger_points_here_is_refused(browser: Any, fleet: Fleet) -> None:
    """DNS rebinding: the browser takes us for the stranger's own site."""
    for path in ("", "status.json", "metrics"):
        with visit(browser, dashboard(fleet, "evil.example") + path) as visited:
            assert "not by this name" in visited.text("body")


def test_a_strangers_page_can_neither_ask_nor_embed(browser: Any, fleet: Fleet) -> None:
    """Not by fetch, not as a script or an image, not in a frame; a link is all it can have."""
    with visit(browser, f"http://evil.example:{fleet.port}/") as visited:
        visited.page.set_content("<iframe></iframe>")
        assert visited.page.evaluate(FETCH, arg=dashboard(fleet) + "status.json") == "refused"
        assert visited.page.evaluate(FETCH, arg=dashboard(fleet) + "metrics") == "refused"
        with visited.page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            visited.page.evaluate(
                "(url) => { document.querySelector('iframe').src = url; }", arg=dashboard(fleet)
            )


FETCH = """async (url) => {
    try { return await (await fetch(url)).text(); } catch { return "refused"; }
}"""


# -- the demo -----------------------------------------------------------------------------------------


def test_the_demo_heals_before_ones_eyes(browser: Any, demo: Fleet) -> None:
    """Who answered, one number for all, a button that kills a worker, and the dashboard beside it that shows another come."""
    with visit(browser, demo.url, viewport={"width": 1440, "height": 900}) as visited:
        visited.wait_for("() => Number(document.getElementById('count').textContent) >= 5")
        assert int(visited.text("#pid")) in demo.workers()
        frame = visited.page.frame(url=dashboard(demo))
        assert frame is not None
        frame.wait_for_selector("#workers tr")
        visited.page.click("#crash")
        visited.wait_for("() => /answered \\d+ ms later/.test(document.getElementById('story').textContent)")
        found = SCRIPT_LIMIT.search(visited.text("#story"))
        assert found is not None
        assert int(found[1]) in demo.workers()
        frame.wait_for_selector("#events b.bad")
        assert not [each for each in visited.complaints if "Content Security Policy" in each]


def test_the_demos_counter_is_shared(demo: Fleet) -> None:
    """Every number is given once, whoever answers; and a worker's end, or a reload, takes none of them back."""

    def who() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(demo, "/who"))
        return found

    answers = [who() for _ in range(60)]
    while len({answer["pid"] for answer in answers}) < 2:
        answers.append(who())
        assert len(answers) < 1000, "one worker answers all"
    assert [answer["count"] for answer in answers] == list(range(1, len(answers) + 1))
    demo.kill(answers[-1]["pid"])
    reload(demo)
    assert who()["count"] == len(answers) + 1


def test_the_demos_button_is_no_strangers(demo: Fleet) -> None:
    """A page elsewhere can send a POST; nobody dies of it."""
    for origin in ("http://evil.example", "null", None):
        connection = http.client.HTTPConnection("127.0.0.1", demo.port)
        connection.request("POST", "/crash", headers={} if origin is None else {"Origin": origin})
        assert connection.getresponse().status == 403
        connection.close()
    assert not demo.find_all("crashed")

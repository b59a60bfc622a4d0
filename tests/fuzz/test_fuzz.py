"""The fuzzer for a few seconds, and what it does by its nature not find: streams that are nearly right, by Hypothesis."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, trial
from tests.fuzz.conversation import Course, Talker
from tests.fuzz.trial import ECHO, VARIOUS, WEBSOCKET, WSGI, Trial
from tests.wire.strategies import cuts, frame_streams, streams

pytestmark = pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")  # of WebDAV's methods

pytestmark = [
    pytest.mark.timeout(600),  # half a minute of CPU and more: a busy machine makes minutes of it
    pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD"),  # wsgiref's validator knows eight methods
]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 10


@pytest.fixture(scope="module")
def talker() -> Iterator[Talker]:
    talker = Talker()
    yield talker
    talker.close()


def test_the_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """Coverage-guided, for a bounded time, from the seeds on; `python -m tests.fuzz.fuzz_connection` runs longer."""
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz.fuzz_connection", "--seconds", str(SECONDS)]
    ended = subprocess.run(
        [*command, "--crashes", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, list(tmp_path.iterdir())) == (0, []), (
        ended.stderr[-3000:] + ended.stdout[-3000:]
    )
    assert "Done " in ended.stderr


def test_every_seed_is_a_trial_that_holds(talker: Talker) -> None:
    """In each way of feeding: so that a seed that breaks something is named here, not by the fuzzer."""
    for data in inputs.seeds():
        for flags in (0, 4, 8, 20, 64):
            planned = inputs.planned(data[:1] + bytes((data[1] | flags,)) + data[2:])
            assert planned is not None
            trial.check(talker, planned)


@st.composite
def courses(draw: st.DrawFn, of: st.SearchStrategy[bytes]) -> Course:
    return Course(
        draw(cuts(draw(of))),
        turns=draw(st.integers(0, 2)),
        ends=draw(st.booleans()),
        is_slow=draw(st.integers(0, 3)) == 0,
        is_late=draw(st.integers(0, 3)) == 0,
        drains=draw(st.integers(0, 3)) == 0,
    )


@settings(max_examples=400)
@given(
    served=st.sampled_from([ECHO, VARIOUS, WSGI]), course=courses(streams()), has_small_limits=st.booleans()
)
def test_requests_are_read_as_h11_reads_them(
    talker: Talker,
    served: int,
    course: Course,
    has_small_limits: bool,  # noqa: FBT001
) -> None:
    """Whatever is nearly a request, however it comes: nothing escapes, and what is served h11 would serve, too."""
    trial.check(talker, Trial(served, course, has_small_limits))


@settings(max_examples=200)
@given(course=courses(frame_streams()), deflates=st.booleans())
def test_frames_are_read_as_they_are_written(
    talker: Talker,
    course: Course,
    deflates: bool,  # noqa: FBT001
) -> None:
    """Whatever is nearly a frame, however it comes: the messages are those of the whole, and so is the end."""
    course = Course(course.pieces, course.turns, course.ends, course.is_slow, course.is_late)
    trial.check(talker, Trial(WEBSOCKET, course, deflates=deflates))


def test_the_oracle_can_fail(talker: Talker) -> None:
    """What is not right is not taken for right: answers that are cut, too many, or of other requests."""
    plain = Trial(ECHO, Course((b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",)))
    heard = trial.run(talker, plain)
    trial.check_one(plain, heard)
    good = heard.raw
    for raw in (good[:-1], good * 3, b"x" + good, good.replace(b"200", b"20"), good + b"0"):
        heard.raw = raw
        with pytest.raises(Exception, match=r"."):
            trial.check_one(plain, heard)
    heard.raw = good
    with pytest.raises(AssertionError):
        trial.check_one(Trial(ECHO, Course((b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n",))), heard)
    with pytest.raises(AssertionError):
        trial.check_one(Trial(ECHO, Course((b"GET /a HTTP/1.1\nHost : a\r\n\r\n",))), heard)

"""How what became of a case is held against what a collection says, and against what is known."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from strangers import known
from strangers.case import Case, Heard, Outcome, difference, together
from strangers.known import Known
from strangers.report import Row, complaints, put_in, table
from strangers.results import of_junit, of_unittest
from strangers.sources import NotToBeHadError, Source

RAW = b"GET /a%20b?c HTTP/1.1\r\n\r\n"
WANTED = Heard("GET", "/a%20b", "c", "1.1", (("a", "b"), ("a", "c")), b"x")
OURS = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request\n"
THEIRS = b"HTTP/1.1 200 OK\r\nx-heard: 1\r\n\r\n"


def told(case: Case, *heard: Heard, answered: bytes = THEIRS) -> str:
    return difference(case, Outcome(heard, answered))


class TestMustBeHeard:
    case = Case("a", RAW, (WANTED,))

    def test_as_it_is_said(self) -> None:
        assert told(self.case, WANTED) == ""

    def test_what_is_not_said_does_not_matter(self) -> None:
        assert told(replace(self.case, heard=(Heard(),)), WANTED) == ""

    def test_wsgi_hears_it_in_its_own_way(self) -> None:
        """The path decoded, headers of one name joined, a length in place of chunks."""
        heard = replace(WANTED, path="/a b", headers=(("a", "b,c"),), is_decoded=True)
        assert told(self.case, heard) == ""
        chunked = replace(WANTED, headers=(("transfer-encoding", "chunked"),))
        heard = replace(heard, headers=(("content-length", "1"),))
        assert told(replace(self.case, heard=(chunked,)), heard) == ""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"method": "PUT"}, "method 'PUT', not 'GET'"),
            ({"path": "/"}, "path '/', not '/a%20b'"),
            ({"query": ""}, "query '', not 'c'"),
            ({"version": "1.0"}, "version '1.0', not '1.1'"),
            ({"body": b"y"}, "body b'y', not b'x'"),
            ({"headers": ()}, "header a missing"),
            ({"headers": (("a", "c"), ("a", "b"))}, r"header a 'c\nb', not 'b\nc'"),
            ({"headers": (*WANTED.headers, ("d", ""))}, "header d made up"),
        ],
    )
    def test_another_part_of_it(self, change: dict[str, object], words: str) -> None:
        assert told(self.case, replace(WANTED, **change)) == words  # type: ignore[arg-type]

    def test_refused(self) -> None:
        assert told(self.case, answered=OURS) == "refused with 400"
        pair = replace(self.case, heard=(WANTED, WANTED))
        assert told(pair, WANTED, answered=THEIRS + OURS) == "refused with 400 after 1 of 2"

    def test_one_whose_body_never_ends(self) -> None:
        """Unless it is cut, when it need not be whole; but refused it must not be."""
        begun = replace(WANTED, is_whole=False)
        assert told(self.case, begun, answered=b"") == "refused, or not finished"
        cut = replace(self.case, is_cut=True)
        assert told(cut, begun, answered=b"") == ""
        assert told(cut, answered=OURS) == "refused with 400"

    def test_more_than_there_are(self) -> None:
        assert told(self.case, WANTED, WANTED) == "the application heard 2, not 1"


class TestMustBeRefused:
    case = Case("a", RAW, None)

    def test_refused(self) -> None:
        assert told(self.case, answered=OURS) == ""
        assert told(self.case, replace(WANTED, is_whole=False), answered=OURS) == ""

    def test_taken(self) -> None:
        assert told(self.case, WANTED) == "taken: the application heard 1"
        assert told(self.case, WANTED, answered=THEIRS + OURS) == "taken: the application heard 1"

    def test_without_a_word(self) -> None:
        """Which is right where nothing whole has come."""
        assert told(self.case, answered=b"") == "closed without a word"
        assert told(replace(self.case, is_cut=True), answered=b"") == ""

    def test_but_not_closed(self) -> None:
        open_ = OURS.replace(b"Connection: close\r\n", b"")
        assert told(self.case, answered=open_) == "refused, but not closed"

    def test_by_the_application(self) -> None:
        """It has answered: that is no refusal of the server's."""
        answered = THEIRS.replace(b"200 OK", b"400 Bad Request")
        assert told(self.case, answered=answered) == "refused, but not closed"


def test_ways_that_differ_are_named() -> None:
    """Only as far as they do."""
    ways = [("asgi", "whole"), ("asgi", "byte by byte"), ("wsgi", "whole"), ("wsgi", "byte by byte")]
    assert together(dict.fromkeys(ways, "a")) == "a"
    assert together(dict.fromkeys(ways, "")) == ""
    assert together(dict(zip(ways, ["a", "a", "", ""], strict=True))) == "asgi: a"
    assert together(dict(zip(ways, ["a", "b", "b", "b"], strict=True))) == (
        "asgi (whole): a; asgi (byte by byte) and wsgi: b"
    )


class TestKnown:
    def test_a_difference_is_known_by_its_case_and_its_words(self) -> None:
        verdict = known.judge(
            {"a": Known("x", "because"), "b": Known("y*", "because"), "c": Known("z", "because")},
            {"a": "x", "b": "yes", "d": "x"},
        )
        assert list(verdict.meant) == ["a", "b"]
        assert verdict.unexplained == {"d": "x"}
        assert verdict.stale == ("c",)

    def test_other_words_are_another_difference(self) -> None:
        assert known.judge({"a": Known("x", "because")}, {"a": "y"}).unexplained == {"a": "y"}

    def test_every_entry_of_the_file_has_its_reason(self) -> None:
        """And none stands there twice."""
        for suite in ("gunicorn", "http-parser", "httparse", "lighttpd", "django", "daphne"):
            assert all(len(each.why) > 30 for each in known.read(suite).values()), suite

    def test_a_case_that_is_written_down_twice_is_an_error(self, tmp_path: Path) -> None:
        file = tmp_path / "known.toml"
        file.write_text('[[a]]\nfound = "x"\nwhy = "y"\ncases = ["1", "1"]\n')
        with pytest.raises(ValueError, match="twice"):
            known.read("a", file)


JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a.TestA" name="test_1[x]"/>
<testcase classname="tests.test_a.TestA" name="test_2"><failure message="E: no&#10;more">long</failure></testcase>
<testcase classname="tests.test_a.TestA" name="test_3"><skipped message="no browser"/></testcase>
<testcase classname="tests.test_a.TestA" name="test_4"/>
<testcase classname="tests.test_a.TestA" name="test_4"><error message="teardown"/></testcase>
</testsuite></testsuites>"""

UNITTEST = """test_1 (a.A.test_1) ... ok
test_2 (a.A.test_2)
Says more. ... FAIL
test_3 (a.A.test_3) ... skipped 'no browser'

======================================================================
FAIL: test_2 (a.A.test_2)
Says more.
----------------------------------------------------------------------
Traceback (most recent call last):
AssertionError: 1 != 2

----------------------------------------------------------------------
Ran 3 tests in 0.1s

FAILED (failures=1, skipped=1)
"""


class TestResults:
    def test_of_pytest(self) -> None:
        results = of_junit(JUNIT)
        assert (results.passed, results.run) == (1, 3)
        assert results.failed == {"TestA::test_2": "E: no", "TestA::test_4": "teardown"}
        assert results.skipped == {"TestA::test_3": "no browser"}

    def test_of_unittest(self) -> None:
        results = of_unittest(UNITTEST)
        assert (results.passed, results.run) == (1, 2)
        assert results.failed == {"a.A.test_2": "AssertionError: 1 != 2"}
        assert results.skipped == {"a.A.test_3": "no browser"}

    def test_a_run_that_did_not_end_is_no_result(self) -> None:
        with pytest.raises(ValueError, match="its end"):
            of_unittest("test_1 (a.A.test_1) ... ok")


class TestReport:
    row = Row("a", "a 1.0", "about", 3, 1, {"x": Known("b", "because")}, unexplained={"y": "c"}, stale=("z",))

    def test_a_row_that_is_not_good_says_why(self) -> None:
        assert not self.row.is_good
        assert replace(self.row, unexplained={}, stale=()).is_good
        assert complaints(self.row) == ["a: y: c", "a: z: written down as differing, and does not"]

    def test_the_table_has_a_line_for_each(self) -> None:
        assert table([self.row]).splitlines()[-1] == "| about | a 1.0 | 3 | 1 | 1 |  |"

    def test_the_page_keeps_what_is_around_its_marks(self) -> None:
        marks = "<!-- written by `make strangers ARGS=--write`, from here -->", "<!-- to here -->"
        page = "before {}\nold\n{} after".format(*marks)
        assert put_in(page, "new") == "before {}\n\nnew\n\n{} after".format(*marks)
        with pytest.raises(ValueError, match="has no"):
            put_in("nothing", "new")


class TestSources:
    def test_a_file_with_another_hash_is_not_taken(self, tmp_path: Path) -> None:
        archive = tmp_path / "a-1.tar.gz"
        archive.write_bytes(b"x")
        source = Source("a", "1", archive.name, hashlib.sha256(b"x").hexdigest())
        source.check(archive)
        with pytest.raises(NotToBeHadError, match="remove it"):
            replace(source, sha256="0" * 64).check(archive)

    def test_a_file_that_did_not_come_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(NotToBeHadError, match="but nothing"):
            Source("a", "1", "a-1.tar.gz", "").check(tmp_path / "a-1.tar.gz")

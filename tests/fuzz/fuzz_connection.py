"""`python -m tests.fuzz.fuzz_connection --seconds 600`: a coverage-guided search for bytes that break a connection.

Needs atheris (libFuzzer for Python). What breaks is written to a file `crash-…`, which is an argument of the same command
to see it again. An input that was found once belongs into a test in tests/wire, in words.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

MOST_BYTES = 1200
"""Of an input: byte by byte means as many turns of the loop."""


def fuzz(seconds: int, corpus: Path, crashes: Path, seed: int, files: list[str]) -> None:
    """Fuzz for so long; does not return. `files`: only these inputs, once each."""
    import atheris  # noqa: PLC0415  (its hooks must be in place before what it watches is imported)

    with atheris.instrument_imports(include=["prefork.http"]):
        from tests.fuzz import inputs, trial  # noqa: PLC0415
        from tests.fuzz.conversation import Talker  # noqa: PLC0415

    talker = Talker()

    def one(data: bytes) -> None:
        planned = inputs.planned(data)
        if planned is not None:
            trial.check(talker, planned)

    words = corpus.parent / "words"
    inputs.write_words(words)
    for number, data in enumerate(inputs.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    told = [
        f"-max_total_time={seconds}",
        f"-max_len={MOST_BYTES}",
        f"-dict={words}",
        f"-artifact_prefix={crashes}/",
        f"-seed={seed}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *told, *(files or [str(corpus)])], one)
    atheris.Fuzz()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long; default: %(default)s")
    parser.add_argument(
        "--corpus", type=Path, help="folder of inputs that were interesting; kept, and added to"
    )
    parser.add_argument("--crashes", type=Path, default=Path(), help="folder for what breaks; default: here")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random choices; default: another each time"
    )
    parser.add_argument("files", nargs="*", help="inputs to try once")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = told.corpus or Path(folder) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        fuzz(told.seconds, corpus, told.crashes, told.seed, told.files)


if __name__ == "__main__":
    main()

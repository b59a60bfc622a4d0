"""Where the shared state is: URLs, and the variable that hands one down.

    lmdb://                     memory-backed files that the master, or a lone process, makes and removes
    lmdb:///var/lib/shop        a directory that survives a restart
    memory://                   this process alone
    redis://host:6379/0         a Redis or Valkey server (also rediss://, unix:///path)

What follows a `?` are options: `size_mb`, `keep`, `damaged`, `sync`; see `Options`.

Runs in the master too: nothing here imports lmdb, starts a thread, or opens a store.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from prefork.errors import ConfigError, StoreUnavailableError
from prefork.shared.power import settle
from prefork.shared.tenancy import Tenancy, build, is_of_this_format, move_in, remove_leftovers

VARIABLE: Final = "PREFORK_SHARED"
"""Names the URL of the default store. Set by the master for all below it; a user may set it, too."""
DEFAULT: Final = "lmdb://"
SCHEMES: Final = ("lmdb", "memory", "redis", "rediss", "unix")
_LEAST_MB: Final = 4
"""A transaction may need 40 pages, and so may the one before it, and those that a reader still sees are not free yet."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the query of a URL says."""

    size_mb: float = 64.0
    """Bound of all that is stored, reserved as a whole at the first use (`lmdb`), counted (`memory`)."""
    keep: bool = True
    """Whether state is kept in a reload and in an upgrade of the master; else each generation begins empty."""
    damaged: str = "error"
    """What to do with damaged files: "error", or "clear": begin empty."""
    sync: bool = False
    """Whether each write waits for the disk: survives a power failure, and takes milliseconds."""
    name: str = ""
    """Tells stores in memory (`memory`) apart."""
    is_anonymous: bool = False
    """The directory was made for its users and goes with the last of them."""


@dataclass(frozen=True, slots=True)
class Place:
    """A parsed URL."""

    scheme: str
    path: str = ""
    """The directory of `lmdb`; "" until one is made."""
    options: Options = Options()
    url: str = ""
    """As it was given; what a Redis client is made from."""


def parse(url: str) -> Place:
    """What a URL means. Raises ConfigError. Any process; opens nothing."""
    parts = urlsplit(url)
    scheme = "redis" if parts.scheme == "valkey" else parts.scheme
    if scheme not in SCHEMES or "://" not in url:
        raise ConfigError(
            f"shared store {url!r}: begin with one of {', '.join(f'{name}://' for name in SCHEMES)}"
        )
    if scheme not in {"lmdb", "memory"}:
        return Place(scheme, url=url)
    if parts.netloc or (scheme == "memory" and parts.path):
        hint = "lmdb:// or lmdb:///absolute/path" if scheme == "lmdb" else "memory://"
        raise ConfigError(f"shared store {url!r}: write {hint}, options behind a ?")
    path = unquote(parts.path)
    return Place(scheme, path.rstrip("/") or path, _options(url, parts.query), url)


def _options(url: str, query: str) -> Options:
    given = dict(parse_qsl(query, keep_blank_values=True))
    known: dict[str, Callable[[str], object]] = {
        "size_mb": _size,
        "keep": _is_yes,
        "damaged": _choice("error", "clear"),
        "sync": _is_yes,
        "anonymous": _is_yes,
        "name": str,
    }
    values: dict[str, object] = {}
    for name, text in given.items():
        if name not in known:
            raise ConfigError(f"shared store {url!r}: there is no option {name!r}, only {', '.join(known)}")
        try:
            values["is_anonymous" if name == "anonymous" else name] = known[name](text)
        except ValueError as error:
            raise ConfigError(f"shared store {url!r}: {name}: {error}") from None
    return replace(Options(), **values)  # type: ignore[arg-type]


def _size(text: str) -> float:
    try:
        size_mb = float(text)
    except ValueError:
        size_mb = 0
    if not _LEAST_MB <= size_mb <= 2**20:
        raise ValueError(f"a number of megabytes from {_LEAST_MB} to 1048576 is wanted, not {text!r}")
    return size_mb


def _is_yes(text: str) -> bool:
    if text.lower() not in {"0", "1", "yes", "no", "true", "false"}:
        raise ValueError(f"1 or 0 is wanted, not {text!r}")
    return text.lower() in {"1", "yes", "true"}


def _choice(*choices: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)} is wanted, not {text!r}")
        return text

    return check


def url_of(place: Place) -> str:
    """The URL that says all of it, for the environment."""
    if place.scheme != "lmdb":
        return place.url
    options, default = place.options, Options()
    said = {"size_mb": f"{options.size_mb:g}"}
    if options.keep != default.keep:
        said["keep"] = "0"
    if options.damaged != default.damaged:
        said["damaged"] = options.damaged
    if options.sync != default.sync:
        said["sync"] = "1"
    if options.is_anonymous:
        said["anonymous"] = "1"
    return f"lmdb://{quote(place.path)}?" + "&".join(f"{name}={value}" for name, value in said.items())


# -- whose it is --------------------------------------------------------------------------------------------


class MasterPlace:
    """The master's hold on the default store of its fleet. Makes a directory if need be; opens nothing."""

    def __init__(self, url: str, tenancy: Tenancy | None) -> None:
        self.url = url
        self._tenancy = tenancy
        self._before = os.environ.get(VARIABLE)
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        """In the zygote: the place is the master's; who uses the store holds one of its own."""
        if self._tenancy is not None:
            self._tenancy.leave()  # a copy
            self._tenancy = None

    @classmethod
    def take(cls, asked: str | None, *, is_upgrade: bool) -> MasterPlace:
        """Settle where state is, and put it into the environment. Master, before the first zygote.

        asked: the option `shared`; None: what the environment says, else the default.
        is_upgrade: another master has started us, and has left its place in the environment.

        Raises ConfigError, StoreUnavailableError.
        """
        inherited = _inherited(os.environ)
        if inherited is not None and not is_upgrade:
            inherited = None  # of a master above our program: its state is not ours
        if asked is not None and parse(asked).options.is_anonymous:
            asked = (
                None  # nobody's wish: the command has found in the environment what a master had left there
            )
        said = os.environ.get(VARIABLE)
        is_said = bool(said) and not parse(said or "").options.is_anonymous
        place = parse(asked or (said if is_said and said else DEFAULT))
        tenancy = None
        if place.scheme == "lmdb" and not place.path:
            tenancy = _adopt(inherited, place) or _join_own() or _found(place)
            place = _at(place, tenancy)
        taken = cls(url_of(place), tenancy)
        os.environ[VARIABLE] = taken.url
        return taken

    def close(self) -> None:
        """The fleet is over: remove the directory, or write a lasting one to its disk; unless somebody else uses it."""
        if self._tenancy is not None:
            self._tenancy.leave()
            self._tenancy = None
        else:
            _settle(parse(self.url))
        if os.environ.get(VARIABLE) == self.url:
            if not self._before or parse(self._before).options.is_anonymous:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = self._before


class _Own:
    """The one place of this process, once it has been made."""

    def __init__(self) -> None:
        self.place: Place | None = None

    def settle(self, options: Options) -> Place:
        """The place of a process without a master: made at its first use, removed at its exit."""
        if self.place is None:
            remove_leftovers()
            tenancy = build(options.size_mb)
            atexit.register(tenancy.leave)
            self.place = _at(Place("lmdb", options=options), tenancy)
        return self.place


_OWN: Final = _Own()  # one a process, as the directory is: two would not see each other


def _join_own() -> Tenancy | None:
    """What this program has put into its own store before it became a master, its workers see, too."""
    return move_in(_OWN.place.path) if _OWN.place is not None else None


def default_place() -> Place:
    """The default store: the master's, or the user's, or one of this process alone. Any process."""
    said = os.environ.get(VARIABLE)
    return located(parse(said or DEFAULT))


def located(place: Place) -> Place:
    """Give `lmdb://` its directory: the master's, else one of this process and those that it forks."""
    if place.scheme != "lmdb" or place.path:
        return place
    said = os.environ.get(VARIABLE)
    masters = parse(said) if said else place
    return masters if masters.path else _OWN.settle(place.options)


def _at(place: Place, tenancy: Tenancy) -> Place:
    return replace(place, path=tenancy.path, options=replace(place.options, is_anonymous=True))


def _settle(place: Place) -> None:
    if place.scheme != "lmdb" or not Path(place.path, "boot").exists():
        return
    with contextlib.suppress(
        StoreUnavailableError, OSError
    ):  # the next one who opens it finds it suspect, and says so
        tenancy = move_in(place.path)
        if tenancy.is_alone():
            settle(Path(place.path))
        tenancy.leave(is_kept=True)


def _inherited(environ: Mapping[str, str]) -> Place | None:
    try:
        place = parse(environ.get(VARIABLE, ""))
    except ConfigError:
        return None
    return place if place.options.is_anonymous else None


def _adopt(inherited: Place | None, asked: Place) -> Tenancy | None:
    """The directory of the master before us, if it is of the wanted size and to be kept."""
    if inherited is None or not asked.options.keep or inherited.options.size_mb != asked.options.size_mb:
        return None
    if not is_of_this_format(inherited.path):
        return None
    try:
        return move_in(inherited.path)
    except StoreUnavailableError:
        return None


def _found(place: Place) -> Tenancy:
    remove_leftovers()
    return build(place.options.size_mb)


def generation_url(url: str, generation: int) -> str:
    """The URL for the workers of a generation: the same for all, or, with `keep=0`, a directory of its own."""
    place = parse(url)
    if place.scheme != "lmdb" or place.options.keep:
        return url
    base, _, last = place.path.rpartition("/")
    root = base if last.startswith("generation-") else place.path
    return url_of(replace(place, path=f"{root}/generation-{generation}"))


def use_generation(generation: int) -> None:
    """Have this process, and those below it, use the state of their generation. Zygote, or a worker that is run again."""
    said = os.environ.get(VARIABLE)
    if said:
        os.environ[VARIABLE] = generation_url(said, generation)


def older_generations(path: str) -> list[str]:
    """Directories of generations before that of `path`, which is one itself; else none."""
    here = Path(path)
    if not here.name.startswith("generation-"):
        return []
    number = int(here.name.rpartition("-")[2])
    others = [each for each in here.parent.glob("generation-*") if each.name[11:].isdigit()]
    return [str(each) for each in others if int(each.name[11:]) < number]

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import prefork
from prefork.errors import EXIT_APPLICATION, EXIT_USAGE, ApplicationError, ConfigError
from prefork.worker.loading import load, split_target

HOME = str(Path(prefork.__file__).parent)

Load = Callable[..., Any]


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`module(source, "pkg/name.py")`: a file of the application's; what was imported is forgotten afterwards."""
    before, path = dict(sys.modules), list(sys.path)

    def write(source: str, name: str = "main_app.py") -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")

    yield write
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def load_it(tmp_path: Path) -> Load:
    def load_target(target: str = "main_app:app", *, is_factory: bool = False) -> Any:
        return load(target, str(tmp_path), is_factory=is_factory)

    return load_target


def failure(call: Callable[[], object]) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == EXIT_APPLICATION
    return caught.value


class TestTheWords:
    @pytest.mark.parametrize(
        ("target", "parts"),
        [
            ("main:app", ("main", "app")),
            ("pkg.mod:app", ("pkg.mod", "app")),
            ("pkg.mod:make.app", ("pkg.mod", "make.app")),
            ("_x:_y", ("_x", "_y")),
        ],
    )
    def test_module_and_attribute(self, target: str, parts: tuple[str, str]) -> None:
        """Both may be dotted."""
        assert split_target(target) == parts

    @pytest.mark.parametrize(
        "target",
        ["", "main", "main:", ":app", "main.:app", "main:app.", "a-b:app", "main:app()", "a:b:c", "1:x"],
    )
    def test_what_is_neither_is_refused(self, target: str) -> None:
        """With the form that it should have, as a usage error."""
        with pytest.raises(ConfigError, match="MODULE:ATTR, such as main:app") as caught:
            split_target(target)
        assert caught.value.exit_code == EXIT_USAGE
        assert repr(target) in str(caught.value)

    @pytest.mark.parametrize("target", ["main.py", "./main.py:app", "src/main.py", "src/main:app"])
    def test_a_file_is_told_to_be_a_module(self, target: str) -> None:
        """The commonest slip: the shell completes file names."""
        with pytest.raises(ConfigError, match="name the module, not its file: main:app"):
            split_target(target)


class TestFound:
    def test_an_application(self, module: Callable[..., None], load_it: Load) -> None:
        """It is what the module made."""
        module("def app(): return 'served'\n")
        assert load_it()() == "served"

    def test_one_in_a_package_and_an_object(self, module: Callable[..., None], load_it: Load) -> None:
        """Dots on both sides of the colon."""
        module("", "shop/__init__.py")
        module("class site:\n    @staticmethod\n    def app(): return 'served'\n", "shop/web.py")
        assert load_it("shop.web:site.app")() == "served"

    def test_what_a_factory_makes(self, module: Callable[..., None], load_it: Load) -> None:
        """It is called without arguments, once."""
        module("made = []\ndef make():\n    made.append(1)\n    return lambda: len(made)\n")
        assert load_it("main_app:make", is_factory=True)() == 1

    def test_the_directory_comes_first_on_the_path(
        self, module: Callable[..., None], load_it: Load, tmp_path: Path
    ) -> None:
        """And stands there once, however often something is loaded."""
        module("import sys\nfirst = sys.path[0]\ndef app(): return first\n")
        assert load_it()() == str(tmp_path)
        load_it()
        assert sys.path.count(str(tmp_path)) == 1


class TestNotThere:
    def test_no_such_module(self, module: Callable[..., None], load_it: Load, tmp_path: Path) -> None:
        """One line, no traceback: nobody's code has run."""
        error = failure(lambda: load_it("no_such_module:app"))
        assert str(error).startswith(f"module 'no_such_module' not found in {tmp_path} or on the import path")
        assert "--app-dir" in str(error)
        assert error.details == ""

    def test_no_such_module_in_a_package(self, module: Callable[..., None], load_it: Load) -> None:
        """The part that is missing is named."""
        module("", "store/__init__.py")
        assert str(failure(lambda: load_it("store.web:app"))).startswith("module 'store.web' not found")
        assert str(failure(lambda: load_it("nowhere.web:app"))).startswith("module 'nowhere' not found")

    def test_a_module_that_the_application_misses_is_its_own_trouble(
        self, module: Callable[..., None], load_it: Load
    ) -> None:
        """The module is there; what it imports is not: with the traceback that says where."""
        module("import no_such_library\n")
        error = failure(load_it)
        assert str(error) == (
            "module 'main_app' raises ModuleNotFoundError: No module named 'no_such_library'"
        )
        assert "import no_such_library" in error.details

    def test_no_such_attribute(self, module: Callable[..., None], load_it: Load) -> None:
        """What could have been meant is told."""
        module("def application(): ...\n_hidden = print\nNAME = 'x'\n")
        assert str(failure(load_it)) == "module 'main_app' has no attribute 'app': it has application"

    def test_no_attribute_at_all(self, module: Callable[..., None], load_it: Load) -> None:
        """There is nothing to suggest."""
        module("")
        assert str(failure(lambda: load_it("main_app:a.b"))) == "module 'main_app' has no attribute 'a.b'"

    @pytest.mark.parametrize(("value", "kind"), [("3", "int"), ("None", "NoneType"), ("'app'", "str")])
    def test_what_cannot_be_called(
        self, module: Callable[..., None], load_it: Load, value: str, kind: str
    ) -> None:
        """Neither ASGI nor WSGI; nor is it a factory."""
        module(f"app = {value}\n")
        assert f"main_app:app is not callable ({kind})" in str(failure(load_it))
        assert "--factory" in str(failure(lambda: load_it(is_factory=True)))

    def test_what_a_factory_makes_must_be_callable(self, module: Callable[..., None], load_it: Load) -> None:
        """A factory that forgets its return, above all."""
        module("def app(): pass\n")
        assert "is not callable (NoneType)" in str(failure(lambda: load_it(is_factory=True)))


BROKEN = [
    ("raise ValueError('no database')", "raises ValueError: no database", "ValueError: no database"),
    ("def (:\n", "raises SyntaxError: ", "SyntaxError"),
    ("raise SystemExit(7)", "exits (SystemExit: 7)", "SystemExit: 7"),
    ("import sys; sys.exit()", "exits (SystemExit: ", "SystemExit"),
    ("1 / 0", "raises ZeroDivisionError: division by zero", "1 / 0"),
    ("raise ImportError('half')", "raises ImportError: half", "ImportError: half"),
    (b"\xff".decode("latin-1") + "!", "raises SyntaxError", "SyntaxError"),
]


class TestBroken:
    @pytest.mark.parametrize(("source", "said", "shown"), BROKEN)
    def test_a_module_that_raises(
        self, module: Callable[..., None], load_it: Load, source: str, said: str, shown: str
    ) -> None:
        """One line that says what, and the application's own traceback, none of whose frames is ours."""
        module(source)
        error = failure(load_it)
        assert str(error).startswith("module 'main_app' " + said)
        assert shown in error.details
        assert "main_app.py" in error.details
        assert HOME not in error.details
        assert "importlib" not in error.details
        assert error.__cause__ is not None

    def test_a_module_that_another_one_imports(self, module: Callable[..., None], load_it: Load) -> None:
        """The way there is the application's, and is shown."""
        module("import deep_down\n")
        module("def dig():\n    raise KeyError('gold')\ndig()\n", "deep_down.py")
        error = failure(load_it)
        assert str(error) == "module 'main_app' raises KeyError: 'gold'"
        assert error.details.index("main_app.py") < error.details.index("deep_down.py")
        assert HOME not in error.details

    @pytest.mark.parametrize("raised", ["ValueError('no config')", "SystemExit('no config')"])
    def test_a_factory_that_raises(self, module: Callable[..., None], load_it: Load, raised: str) -> None:
        """Named as the factory; its frames are shown, ours are not."""
        module(f"def make():\n    raise {raised}\n")
        error = failure(lambda: load_it("main_app:make", is_factory=True))
        assert str(error).startswith("the factory main_app:make ")
        assert "no config" in str(error)
        assert "in make" in error.details
        assert HOME not in error.details

    def test_an_interrupt_is_not_the_applications(self, module: Callable[..., None], load_it: Load) -> None:
        """KeyboardInterrupt is the user's, and goes its way."""
        module("raise KeyboardInterrupt\n")
        with pytest.raises(KeyboardInterrupt):
            load_it()

    def test_a_cause_is_shown_with_it(self, module: Callable[..., None], load_it: Load) -> None:
        """`raise … from …`: the whole chain is the application's."""
        module("try:\n    {}['dsn']\nexcept KeyError as e:\n    raise RuntimeError('no dsn') from e\n")
        error = failure(load_it)
        assert "KeyError: 'dsn'" in error.details
        assert "RuntimeError: no dsn" in error.details


def test_a_dotted_attribute_whose_middle_is_missing(module: Callable[..., None], load_it: Load) -> None:
    """The whole path is named, as it was asked for."""
    module("class site: pass\n")
    assert "has no attribute 'site.app'" in str(failure(lambda: load_it("main_app:site.app")))

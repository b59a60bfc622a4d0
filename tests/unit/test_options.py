from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from prefork.errors import EXIT_USAGE, ConfigError
from prefork.options import CommandOptions, FleetOptions, fleet


def refusal(**values: Any) -> str:
    """The one line that these options are refused with."""
    with pytest.raises(ConfigError) as caught:
        FleetOptions(**values).check()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


class TestChecks:
    def test_the_defaults_are_fine(self) -> None:
        """As they come, and with everything given."""
        FleetOptions().check()
        FleetOptions(
            workers=1,
            network=None,
            backlog=1,
            start_method="exec",
            recover_threshold=0,
            recover_window_s=0,
            recover_interval_s=0,
            boot_timeout_s=0.1,
            shutdown_grace_period_s=0,
        ).check()

    @pytest.mark.parametrize("name", ["reload_dirs", "reload_include", "reload_exclude", "admin_host"])
    def test_several_texts(self, name: str) -> None:
        """One alone is a slip, of which each letter would be taken for itself: it is said how to write it."""
        assert refusal(**{name: "src"}) == f"{name} takes several: give it as ['src']"
        assert refusal(**{name: Path("src")}) == f"{name} takes several: give it as [{Path('src')!r}]"
        assert refusal(**{name: None}) == f"{name} takes several texts, such as a list of them, not None"
        assert refusal(**{name: ["src", 5]}) == f"{name} takes texts, and 5 is none"
        for fine in ([], ("src",), ["src", "lib"], {"src"}):
            FleetOptions(**{name: fine}).check()

    def test_directories_may_be_paths(self) -> None:
        FleetOptions(reload_dirs=(Path("src"),)).check()  # type: ignore[arg-type]
        assert "takes texts" in refusal(reload_include=[Path("*.py")])

    @pytest.mark.parametrize("name", ["max_requests", "refuse_after_kills"])
    @pytest.mark.parametrize("count", [-1, 1.0, "3", True, None])
    def test_counts(self, name: str, count: Any) -> None:
        """Whole; 0 is off."""
        assert refusal(**{name: count}) == f"{name} must be a whole number from 0, not {count!r}"

    @pytest.mark.parametrize("workers", [0, -1, 1.5, "4", True, math.nan])
    def test_workers(self, workers: Any) -> None:
        """Whole, and at least one."""
        assert refusal(workers=workers) == f"workers must be a whole number from 1, not {workers!r}"

    @pytest.mark.parametrize("network", ["udp", "TCP", "", "tcp5", 4])
    def test_network(self, network: Any) -> None:
        """One of the seed's, or unix."""
        assert refusal(network=network) == f"network must be tcp, tcp4, tcp6 or unix, not {network!r}"

    @pytest.mark.parametrize("backlog", [0, -5, 1.0, False, "many"])
    def test_backlog(self, backlog: Any) -> None:
        """A queue of nothing refuses everybody."""
        assert refusal(backlog=backlog) == f"backlog must be a whole number from 1, not {backlog!r}"

    @pytest.mark.parametrize("method", ["spawn", "", "FORK", 1])
    def test_start_method(self, method: Any) -> None:
        """The two there are."""
        assert refusal(start_method=method) == f'start_method must be "fork" or "exec", not {method!r}'

    def test_fork_needs_linux(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere the error names what does work."""
        monkeypatch.setattr(fleet.sys, "platform", "darwin")
        assert 'use "exec"' in refusal(start_method="fork")
        FleetOptions(start_method="exec").check()

    @pytest.mark.parametrize("threshold", [-1, math.nan, "10", True])
    def test_recover_threshold(self, threshold: Any) -> None:
        """Nothing at least; everything at most."""
        assert (
            refusal(recover_threshold=threshold) == f"recover_threshold must be 0 or more, not {threshold!r}"
        )
        FleetOptions(recover_threshold=math.inf).check()

    @pytest.mark.parametrize("name", ["recover_window_s", "recover_interval_s", "shutdown_grace_period_s"])
    @pytest.mark.parametrize("seconds", [-0.1, math.nan, "60", None])
    def test_times(self, name: str, seconds: Any) -> None:
        """Seconds, and not before the event."""
        assert refusal(**{name: seconds}) == f"{name} must be 0 or more seconds, not {seconds!r}"

    @pytest.mark.parametrize("seconds", [0, 0.0, -1, math.nan, None])
    def test_boot_timeout(self, seconds: Any) -> None:
        """Nobody can boot in no time."""
        assert (
            refusal(boot_timeout_s=seconds) == f"boot_timeout_s must be more than 0 seconds, not {seconds!r}"
        )

    def test_an_endless_window_is_the_seeds_count_for_life(self) -> None:
        """`math.inf` is meant."""
        FleetOptions(recover_window_s=math.inf, shutdown_grace_period_s=math.inf).check()


class TestDefaults:
    def test_those_of_the_seed(self) -> None:
        """tcp4, and reuseport off."""
        options = FleetOptions()
        assert options.network == "tcp4"
        assert options.reuseport is False

    @pytest.mark.parametrize(("cpus", "threshold"), [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4), (64, 32)])
    def test_the_threshold_is_half_the_workers(
        self, monkeypatch: pytest.MonkeyPatch, cpus: int, threshold: int
    ) -> None:
        """At least one (seed: max(1, GOMAXPROCS/2)), counted from the workers there are."""
        monkeypatch.setattr(fleet, "usable_cpus", lambda: cpus)
        assert FleetOptions().worker_count() == cpus
        assert FleetOptions().threshold() == threshold
        assert FleetOptions(workers=20).threshold() == 10

    def test_what_is_given_counts(self) -> None:
        """Nothing is not the default."""
        assert FleetOptions(workers=3).worker_count() == 3
        assert FleetOptions(recover_threshold=0).threshold() == 0
        assert FleetOptions(recover_threshold=math.inf).threshold() == math.inf

    def test_the_command_listens_on_loopback(self) -> None:
        """Nothing is served to the world unless asked for."""
        assert CommandOptions().bind == ("127.0.0.1:8000",)


class TestDeclarations:
    @pytest.mark.parametrize("kind", [FleetOptions, CommandOptions])
    def test_every_option_says_what_it_means(self, kind: type[Any]) -> None:
        """One sentence at least, from which help and documentation are made."""
        for field in kind.__dataclass_fields__.values():
            assert field.metadata["help"].rstrip(".")

    def test_no_option_and_no_flag_is_declared_twice(self) -> None:
        """Neither in one group nor across the two."""
        declared = [
            *FleetOptions.__dataclass_fields__.values(),
            *CommandOptions.__dataclass_fields__.values(),
        ]
        names = [field.name for field in declared]
        flags = [field.metadata["flag"] for field in declared if field.metadata["flag"]]
        assert len(set(names)) == len(names)
        assert len(set(flags)) == len(flags)

    def test_options_are_given_by_name(self) -> None:
        """A place among twelve would mean nothing."""
        with pytest.raises(TypeError):
            FleetOptions(4)  # type: ignore[misc]

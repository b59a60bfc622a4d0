"""Real faults against a real fleet under counted load, each beside the promise that must hold.

    python -m benchmarks.chaos [--quick] [--only FAULT ...] [--json FILE]

* fault.py: what a fault is, and how one comes out.  stage.py: where it happens.  report.py: what is said of it.
* killing, reloading, starving, disks, clocks, clients, certificates: the faults, each with its expectation.
* app.py: what is served meanwhile.  confined.py, groups.py: limits that only this fleet feels.
* __main__.py: all of them in a row, and the exit status.
"""

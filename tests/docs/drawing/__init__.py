"""Pictures and tables of docs/, drawn from what the code decides: `python -m tests.docs.drawing` (`make docs-reference`).

The master's plan is a pure function, so a story can be told to it and what it decides be written down: `stories` tells,
`sequence` and `states` make pictures of it, `signals` a table. What is committed is held to what is drawn today
(`tests/docs/test_drawing.py`).
"""

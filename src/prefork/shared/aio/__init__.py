"""Twins for asyncio: the same objects, with methods to await.

What blocks the loop, and for how long:

* **A store of this machine** is called where the loop runs, because a call takes less than a change of threads: a
  read 2 µs, a write 50 µs and the turn of the writes of other processes. A value of bytes or text above 64 KB, and
  what looks at a whole cache (`clear`, `keys`), go to a thread; many at once go in steps of 100, between which the
  loop has its turn. An object that is pickled takes the time of its pickling.
* **A server far away** is called in a thread (the loop's default executor). An answer that is waited for blocks
  nothing.
* **What waits for others** (`get_or_set`, `AsyncLock.acquire`, `AsyncListener.get`) waits by a descriptor in the
  loop.

A task that is cancelled in the middle of a call leaves the call done or not done, and never a lock held.
"""

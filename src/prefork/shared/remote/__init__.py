r"""The store of several machines: a Redis or Valkey server, behind the same interface as the local ones.

Each method is one command, one transaction or one Lua script, which the server runs as a whole. What stands where
(the prefix is an option of the URL, `prefork:` by default):

    e:NAME\0KEY    an entry of the cache NAME: a string, the payload, with the server's own expiry
    s:NAME         hits and misses of the cache NAME: a hash
    i, f           numbers that are integers, and numbers that are floats: two hashes
    d              descriptions: a hash
    b:KEY, w:KEY   rate limits, token buckets and windows: strings, see `scripts.py`
    l:NAME         a lock that is held: a string, its holder's token, which ends with the lease
    fencing        the number of the last holder of any lock: an integer

and channels u:DB:NAME ("it was let go") and t:DB:TOPIC, which no database separates on a server.

Times are the server's. Needs Redis 5 or Valkey; not for Redis Cluster (the keys of one script may lie on different
nodes). A server that evicts (`maxmemory-policy allkeys-...`) evicts numbers and locks, too: let those have one that
does not.
"""

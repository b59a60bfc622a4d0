"""The master's way to the network: addresses, listening sockets, steering, TLS material, systemd.

Everything here runs in the master, but `tls.server_context`, which the zygote and workers call too. Not
here: accepting, reading and writing. That is the workers' side, in `prefork.servers` and `prefork.http`.
"""

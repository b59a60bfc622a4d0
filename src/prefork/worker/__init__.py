"""The inside of a worker and of the zygote that forks it. Nothing here runs in the master."""

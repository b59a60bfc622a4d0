"""The store of one machine: LMDB and a few files beside it, in one directory."""

"""The parent process: it holds what must outlive a worker, and does nothing that can fail for long.

`parent` is its life; it reads the configuration, opens the sockets, loads the TLS key, makes the memory that
workers share, and forks a `generation` of them. It runs no event loop and no thread, so that it can fork.
"""

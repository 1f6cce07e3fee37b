"""The parent process: it keeps everything that must outlive a worker process, and supervises its children.

`parent` has the main loop. The parent reads the configuration, opens the sockets, loads the TLS key, makes
the shared memory, and forks the processes of a `generation`. The table of process roles is in `roles`. The
parent runs no event loop and no thread, so that it can fork.
"""

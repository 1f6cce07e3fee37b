"""Protocol knowledge and decisions, which get bytes and clock readings as arguments.

No module here imports asyncio, sockets, logging or a clock, so tests need none of them.
"""

"""All protocol knowledge and every decision, fed with bytes and clock readings.

Nothing here may import asyncio, sockets, logging or a clock: what is decided here is tested without them.
"""

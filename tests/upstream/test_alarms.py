import asyncio
import gc
import weakref

from kkdcpd.upstream.alarms import Alarms


async def test_alarms_wake_in_the_order_of_their_times() -> None:
    alarms, loop, woken = Alarms(), asyncio.get_running_loop(), []
    done = asyncio.Event()
    now = loop.time()
    alarms.set(now + 0.03, done.set)
    for delay in (0.02, 0.01, 0.015, 0.01):
        alarms.set(now + delay, lambda delay=delay: woken.append((delay, loop.time() - now)))  # type: ignore[misc]
    await done.wait()
    assert [delay for delay, _ in woken] == [0.01, 0.01, 0.015, 0.02]
    assert all(at > delay - 1e-6 for delay, at in woken)


async def test_cancelled_alarm_does_not_wake() -> None:
    alarms, woken = Alarms(), []
    done = asyncio.Event()
    now = asyncio.get_running_loop().time()
    for delay in (0.01, 0.02):
        alarms.cancel(alarms.set(now + delay, lambda: woken.append(1)))
    alarms.set(now + 0.03, done.set)
    await done.wait()
    assert not woken


async def test_alarm_may_be_set_while_others_wake() -> None:
    alarms = Alarms()
    done = asyncio.Event()
    now = asyncio.get_running_loop().time()

    def set_another() -> None:
        alarms.set(now, done.set)

    alarms.set(now + 0.01, set_another)
    alarms.set(now + 60, set_another)
    await asyncio.wait_for(done.wait(), 10)


async def test_cancelled_alarm_keeps_nothing_alive() -> None:
    class Exchange:
        def wake(self) -> None:
            raise AssertionError

    alarms, exchange = Alarms(), Exchange()
    alarms.cancel(alarms.set(asyncio.get_running_loop().time() + 60, exchange.wake))
    reference = weakref.ref(exchange)
    del exchange
    gc.collect()
    assert reference() is None

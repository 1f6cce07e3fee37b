"""What the parent waits for: descriptors of a selector, each with what is to be done when it is ready."""

import selectors

__all__ = ["take_turn"]


def take_turn(selector: selectors.BaseSelector, seconds: float) -> None:
    """Wait for so long at most; call the `data` of what is ready.

    What one of them unregisters isn't called any more, though it was ready too.
    """
    for key, _events in selector.select(seconds):
        if selector.get_map().get(key.fd) is key:
            key.data()

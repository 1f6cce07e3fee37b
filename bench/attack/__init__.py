"""Attacks on a running kkdcpd, one module for each kind.

Each module runs its attack beside an honest client in another network. `tests/attack` runs it for some
seconds and asserts counts; `figures` is its long form, which `make attack` prints.
"""

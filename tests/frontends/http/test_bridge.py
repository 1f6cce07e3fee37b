"""aiohttp is used by documented modules and public names alone, whichever allowed version is installed."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import kkdcpd
from kkdcpd.frontends.http import bridge

PACKAGE = Path(kkdcpd.__file__).parent
DOCUMENTED = {"aiohttp", "aiohttp.abc", "aiohttp.hdrs", "aiohttp.web"}
"""Modules that docs.aiohttp.org describes."""

ABC = "_abc_impl"
"""What Python itself gives a class below an abstract one."""

OURS = [
    each
    for each in vars(bridge).values()
    if inspect.isclass(each)
    and each.__module__ == bridge.__name__
    and any(base.__module__.startswith("aiohttp") for base in each.__mro__)
]


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def test_documented_modules_alone_are_imported() -> None:
    used = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module)
            elif isinstance(node, ast.Import):
                used.update(alias.name for alias in node.names)
    used = {name for name in used if name.split(".")[0] == "aiohttp"}
    assert used
    assert used <= DOCUMENTED


def test_there_are_subclasses() -> None:
    assert len(OURS) == 3


@pytest.mark.parametrize("cls", OURS)
def test_subclass_overrides_public_names_and_has_no_others(cls: type) -> None:
    base = cls.__bases__[0]
    own = {name for name in vars(cls) if not name.startswith("__")} - {ABC}
    assert own or cls.__name__ == "_Written"
    for name in own:
        assert not name.startswith("_"), name
        assert any(name in vars(each) for each in base.__mro__), f"{base.__name__} has no {name}"


@pytest.mark.parametrize("cls", OURS)
def test_subclass_keeps_no_state_and_reads_no_private_name(cls: type) -> None:
    assert not vars(cls).get("__slots__")
    for node in ast.walk(ast.parse(inspect.getsource(cls))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            assert not node.attr.startswith("_"), node.attr
            assert not isinstance(node.ctx, ast.Store), node.attr


@pytest.mark.parametrize("cls", OURS)
def test_overridden_method_takes_what_the_base_takes(cls: type) -> None:
    for name, member in vars(cls).items():
        if inspect.isfunction(member) and not name.startswith("__"):
            theirs = inspect.signature(getattr(cls.__bases__[0], name)).parameters.values()
            if any(each.kind is each.VAR_KEYWORD for each in theirs):
                continue
            ours = inspect.signature(member).parameters
            assert list(ours) == [each.name for each in theirs]

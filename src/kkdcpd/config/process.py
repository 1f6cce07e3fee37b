"""The settings of the process itself: how many workers, how they end. Reasons are in config.toml.example."""

from dataclasses import dataclass, field
from pathlib import Path

from kkdcpd.config.kinds import Number, Text, seconds, wrong_type
from kkdcpd.config.reader import Table, setting
from kkdcpd.config.texts import parse_optional_path
from kkdcpd.frozen import frozen

__all__ = ["MAX_WORKERS", "PROCESS_TABLE", "ProcessConfig"]

MAX_WORKERS = 32

_CONTROL = Text(parse=parse_optional_path, remedy='write a path such as "/run/kkdcpd/control.sock"')


@dataclass(frozen=True, slots=True)
class _AutoOrNumber:
    """The word "auto" (None), or a number."""

    number: Number

    @property
    def remedy(self) -> str:
        """What to write."""
        return f'write "auto", or {self.number.remedy.removeprefix("write ")}'

    def read(self, value: object, key: str) -> int | None:
        """Return the number, or None for "auto"."""
        if value == "auto":
            return None
        if isinstance(value, str):
            raise wrong_type(value, key, self.remedy)
        return int(self.number.read(value, key))


@frozen
class ProcessConfig:
    """[process]: how many processes serve, and how they end."""

    workers: int | None = field(
        default=None,
        metadata=setting(
            _AutoOrNumber(Number(minimum=1, maximum=MAX_WORKERS, unit="processes")),
            "How many processes serve clients; auto is one for each CPU.",
        ),
    )
    drain_timeout: float = field(
        default=25.0,
        metadata=setting(
            seconds(3600, minimum=0), "How long a process that ends may finish what it has begun."
        ),
    )
    control: Path | None = field(
        default=Path("/run/kkdcpd/control.sock"),
        metadata=setting(_CONTROL, "The unix socket by which `kkdcpd reload` asks for a reload."),
    )


PROCESS_TABLE = Table(form=ProcessConfig)

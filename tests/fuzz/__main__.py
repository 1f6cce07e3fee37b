"""Fuzzes the targets one after the other, and prints a table of the results.

`make fuzz` runs `python -m tests.fuzz [--seconds S | --runs N] [TARGET ...]`. A finding is an exception that
escapes, an input that takes longer than a second, or memory that grows. With a finding the exit status is 1.
The corpus stays in build/fuzz/corpus for the next search.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.fuzz.traps import TRAPS

FOLDER = Path("build/fuzz")

LENGTHS = ((8192, 5 / 6), (262144, 1 / 6))
"""The longest input of a round and its share of the time: real messages, and the largest size in [http]."""

SLOWEST_SECONDS = 1
MEMORY_LIMIT_MIB = 1024

MOST_GROWTH_MIB = 128
"""The allowed growth of a process, which keeps inputs that reach new code."""

MOST_GROWTH_BLOCKS = 20_000
"""The allowed growth of Python's memory in a search. The guard's table has 1,024 entries."""

EXTRA_SECONDS = 120
"""The time to start a process and to read the corpus."""

HANG = "a hang"
_STARTED = re.compile(r"\bINITED\b.* rss: (\d+)Mb")
_STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")
_BLOCKS = re.compile(r"^blocks: (\d+)$", re.MULTILINE)
_HEADINGS = ("target", "longest", "executions", "exec/s", "MiB first", "MiB last", "blocks more", "found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The result of a search. `blocks` is the growth of Python's memory blocks."""

    target: str
    longest: int
    executions: int
    per_second: int
    first_mib: int
    last_mib: int
    blocks: int
    finding: str
    output: str

    def row(self) -> Sequence[str]:
        """Return the columns of the table."""
        memory = (f"{number:,}" for number in (self.first_mib, self.last_mib, self.blocks))
        numbers = (f"{number:,}" for number in (self.longest, self.executions, self.per_second))
        return (self.target, *numbers, *memory, self.finding or "nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search of targets, each for a number of seconds or of executions. `folder` has the files."""

    folder: Path
    seconds: int
    runs: int | None = None

    def rounds(self, names: Sequence[str]) -> Iterator[Round]:
        """Search these targets, each until the first finding."""
        for name in names:
            for longest, share in LENGTHS:
                found = self._round(name, longest, share)
                if found.finding == HANG and not self._hangs_again(name):
                    found = self._round(name, longest, share)
                yield found
                if found.finding:
                    break

    def _round(self, name: str, longest: int, share: float) -> Round:
        """Search one target in its own process, with inputs up to this length."""
        target = {**TARGETS, **TRAPS}[name]
        corpus, seeds, findings = (self.folder / kind / name for kind in ("corpus", "seeds", "findings"))
        for folder in (corpus, seeds, findings):
            folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds):
            (seeds / f"{number:03}").write_bytes(seed)
        command = [
            *(sys.executable, "-m", "tests.fuzz.engine", name, *self._limits(share)),
            f"-max_len={longest}",
            f"-timeout={SLOWEST_SECONDS}",
            f"-rss_limit_mb={MEMORY_LIMIT_MIB}",
            f"-artifact_prefix={findings}/",
            "-print_final_stats=1",
            *(str(corpus), str(seeds)),
        ]
        timeout = None if self.runs else self.seconds * share + EXTRA_SECONDS
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            return _judged(name, longest, None, (error.stderr or b"").decode(errors="replace"))
        return _judged(name, longest, done.returncode, (done.stdout + done.stderr).decode(errors="replace"))

    def _hangs_again(self, name: str) -> bool:
        """Whether a slow input is slow again. If not, the machine was busy, and the input is removed."""
        findings = self.folder / "findings" / name
        path = max(findings.glob("timeout-*"), key=lambda path: path.stat().st_mtime)
        command = [
            *(sys.executable, "-m", "tests.fuzz.engine", name, str(path)),
            f"-timeout={SLOWEST_SECONDS}",
            f"-artifact_prefix={findings}/",
        ]
        if subprocess.run(command, capture_output=True, timeout=EXTRA_SECONDS, check=False).returncode:
            return True
        path.unlink()
        return False

    def _limits(self, share: float) -> Sequence[str]:
        if self.runs:
            return (f"-runs={max(1, round(self.runs * share))}", "-seed=1")
        return (f"-max_total_time={max(1, round(self.seconds * share))}",)


def _judged(name: str, longest: int, exit_code: int | None, output: str) -> Round:
    started = _STARTED.search(output)
    statistics = {key: int(value) for key, value in _STATISTIC.findall(output)}
    blocks = [int(number) for number in _BLOCKS.findall(output)]
    first = int(started[1]) if started else 0
    last = statistics.get("peak_rss_mb", 0)
    growth = blocks[-1] - blocks[0] if blocks else 0
    finding = {None: "no end", 0: "", 70: HANG, 71: "out of memory"}.get(exit_code, "an exception")
    if not finding and (last - first > MOST_GROWTH_MIB or growth > MOST_GROWTH_BLOCKS):
        finding = "memory grows"
    return Round(
        target=name,
        longest=longest,
        executions=statistics.get("number_of_executed_units", 0),
        per_second=statistics.get("average_exec_per_sec", 0),
        first_mib=first,
        last_mib=last,
        blocks=growth,
        finding=finding,
        output=output,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, print the results, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, *TRAPS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="seconds for each target (60)")
    parser.add_argument("--runs", type=int, help="executions for each target, instead of a time")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"folder of corpus and findings ({FOLDER})"
    )
    options = parser.parse_args(arguments)
    search = Search(folder=options.folder, seconds=options.seconds, runs=options.runs)
    print(_line(_HEADINGS), flush=True)
    executions = 0
    findings: list[Round] = []
    for found in search.rounds(options.targets or [*TARGETS]):
        print(_line(found.row()), flush=True)
        executions += found.executions
        if found.finding:
            findings.append(found)
    print(f"{executions:,} executions, {len(findings)} findings")
    for found in findings:
        _print_finding(found, options.folder)
    return 1 if findings else 0


def _print_finding(found: Round, folder: Path) -> None:
    findings = folder / "findings" / found.target
    command = f"{sys.executable} -m tests.fuzz.engine {found.target} -artifact_prefix={findings}/ FILE"
    print(f"\n{found.target}: {found.finding}; the input is in {findings}/. Run it again by")
    print(f"{command}\n")
    print("\n".join(found.output.splitlines()[-40:]))


def _line(cells: Sequence[str]) -> str:
    first, *others = cells
    return f"{first:<13}" + "".join(f"{cell:>14}" for cell in others)


if __name__ == "__main__":
    sys.exit(main())

"""Feeds damaged files to every parser of bytes from outside and counts the outcomes.

    python -m benchmarks.fuzz --seconds=60
    python -m benchmarks.fuzz --seconds=600 --parsers=npz,tar --seed=7
    python -m benchmarks.fuzz --replay=fuzz-crashes/npz-0a1b2c3d.bin

A parser must accept a file or refuse it with the error that it declares, within a few seconds and
without memory out of proportion to the file. The first violation ends the command with exit code 1;
its bytes are kept in `--out`. The parsers and their valid files are in `benchmarks.parsers`; POSIX
only, and the bound of memory holds on Linux.
"""

import contextlib
import functools
import hashlib
import io
import json
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from benchmarks import memory
from benchmarks.parsers import PARSERS, Parser

MOST_SECONDS = 20.0
"""Of one input: so slow is a hang, on a busy machine too."""
MOST_BYTES = 1 << 30
"""Of memory that one input may add; the largest image that is not refused takes half of it."""

_SECONDS_A_TURN = 0.1
_MOST_INPUT_BYTES = 1 << 16
_HEADER_BYTES = 64


class Crash(Exception):
    """A violation by a parser on an input, in words."""


class Count(NamedTuple):
    """The outcomes of a parser's inputs."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0


# --- damage -------------------------------------------------------------------------------------

_INTEGERS = (0, 1, 2, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 10**10, -1)
_NUMBERS = (
    *(
        "0",
        "-1",
        "1e999",
        "nan",
        "inf",
        "10000000000",
        "9" * 400,
        "",
        "0.5",
        "1_0",
        "0x1",
        "\u0663",
    ),
)
_TOKENS = (
    *(b"\n", b"\r", b'"', b"'", b",", b";", b"\0", b"\\", b"\xff", b"\xef\xbb\xbf", b"../", b"/"),
    *(b"<script>", b"[" * 3000, b"{", b"NaN", "\u2028é".encode()),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 10**30, 0.5, 1e308, float("inf"), float("nan")),
    *("", "x", "3", "\0", "a\nb", "../x", "é" * 300),
    *([], {}, [[]], [None], [1, 2], ["a"], {"a": 1}, {"a": {"b": []}}),
)


def damaged(parser: Parser, draw: random.Random) -> bytes:
    """Returns a damaged file of a parser: damaged within its packing, or from outside."""
    samples = parser.samples()
    if draw.random() < 0.75:
        return parser.pack(mutate(draw, samples))
    return mutate(draw, [parser.pack(sample) for sample in samples])


def mutate(draw: random.Random, samples: Sequence[bytes]) -> bytes:
    """Returns one of the samples after a few random edits; now and then bytes of pure chance."""
    if draw.random() < 0.03:
        return draw.randbytes(draw.randrange(300))
    data = draw.choice(samples)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5))):
        data = draw.choice(_EDITS)(draw, data, draw.choice(samples))
    return data


def _position(draw: random.Random, data: bytes) -> int:
    # Headers are short, and decide most.
    return draw.randrange(1 + (min(len(data), _HEADER_BYTES) if draw.random() < 0.5 else len(data)))


def _piece(draw: random.Random, data: bytes) -> tuple[int, int]:
    start = _position(draw, data)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 30, 300)))


def _flip_bit(draw: random.Random, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(draw, data)
    flipped = data[start:stop][:1]
    return data[:start] + bytes(b ^ 1 << draw.randrange(8) for b in flipped) + data[start + 1 :]


def _randomize(draw: random.Random, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(draw, data)
    return data[:start] + draw.randbytes(stop - start) + data[stop:]


def _truncate(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _position(draw, data)]


def _extend(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return data + draw.randbytes(draw.choice((1, 4, 100)))


def _cut(draw: random.Random, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(draw, data)
    return data[:start] + data[stop:]


def _repeat(draw: random.Random, data: bytes, other: bytes) -> bytes:
    start, stop = _piece(draw, data)
    piece = data[start:stop] * draw.choice((1, 2, 100))
    return (data[:start] + piece + data[start:])[:_MOST_INPUT_BYTES]


def _splice(draw: random.Random, data: bytes, other: bytes) -> bytes:
    return (data[: _position(draw, data)] + other[_position(draw, other) :])[:_MOST_INPUT_BYTES]


def _set_integer(draw: random.Random, data: bytes, other: bytes) -> bytes:
    start, width = _position(draw, data), draw.choice((1, 2, 4, 8))
    value = draw.choice((*_INTEGERS, len(data))) % 256**width
    edited = value.to_bytes(width, "little" if draw.random() < 0.5 else "big")
    return data[:start] + edited + data[start + width :]


def _set_number(draw: random.Random, data: bytes, other: bytes) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:_MOST_INPUT_BYTES]))
    if not found:
        return data
    start, stop = draw.choice(found).span()
    return data[:start] + draw.choice(_NUMBERS).encode() + data[stop:]


def _insert_token(draw: random.Random, data: bytes, other: bytes) -> bytes:
    start = _position(draw, data)
    return data[:start] + draw.choice(_TOKENS) + data[start:]


def _edit_json(draw: random.Random, data: bytes, other: bytes) -> bytes:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = [(place, key) for place in _containers(values) for key in _keys(place)]
    if not places:
        return json.dumps(draw.choice(_VALUES)).encode()
    place, key = draw.choice(places)
    if draw.random() < 0.2:
        del place[key]
    else:
        place[key] = draw.choice(_VALUES)
    return json.dumps(values).encode()


def _containers(values: Any) -> Iterator[Any]:
    if isinstance(values, (dict, list)):
        yield values
        for value in values.values() if isinstance(values, dict) else values:
            yield from _containers(value)


def _keys(container: Any) -> Sequence[Any]:
    return list(container) if isinstance(container, dict) else range(len(container))


_EDITS: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    *(_flip_bit, _randomize, _truncate, _extend, _cut, _repeat, _splice),
    *(_set_integer, _set_number, _insert_token, _edit_json, _edit_json),
)


# --- watching a parser --------------------------------------------------------------------------


def is_accepted(parser: Parser, data: bytes, folder: Path) -> bool:
    """Returns whether a parser accepts an input, False if it refuses it with a declared error.

    Args:
      parser: the parser.
      data: the input.
      folder: where the parser may write it.

    Raises:
      Crash: another error, too long a time, or memory out of proportion to the input.
    """
    before = memory.process_peak_bytes()
    try:
        with _time_limit(MOST_SECONDS), contextlib.redirect_stderr(io.StringIO()):
            parser.parse(data, folder)
        accepted = True
    except parser.refusals as error:
        if _ran_out_of_memory(error):
            raise Crash("asked for more memory than there is") from error
        accepted = False
    except (Exception, _TimeIsUp) as error:
        raise Crash(f"{type(error).__name__}: {error}") from error
    grown = memory.process_peak_bytes() - before
    if grown > MOST_BYTES:
        raise Crash(f"took {grown >> 20} MiB of memory for {len(data)} bytes")
    return accepted


class _TimeIsUp(BaseException):
    """No Exception, which parsers catch."""


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise _TimeIsUp(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    """Refuses this process memory beyond what it has and `more_bytes`, on Linux."""
    sizes = Path("/proc/self/statm")
    if not sizes.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(sizes.read_text().split()[0]) * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether a refusal hides that more memory was requested than there is."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


# --- the loop -----------------------------------------------------------------------------------


def fuzz(
    parsers: Sequence[Parser],
    seconds: float,
    seed: int,
    on_crash: Callable[[Parser, bytes, Crash], None],
) -> dict[str, Count]:
    """Fuzzes parsers in turn for a time (reads the clock, writes a folder that it removes).

    Args:
      parsers: to feed.
      seconds: for all of them; each gets one turn at least.
      seed: of the inputs, which depend on how many turns there were as well.
      on_crash: called with the parser, the input and what it did; the loop goes on if it returns.

    Returns:
      By the parser's name what became of its inputs.
    """
    draws = {parser.name: random.Random(f"{seed} {parser.name}") for parser in parsers}
    counts = {parser.name: Count() for parser in parsers}
    for parser in parsers:
        # Valid files, and what they import, are made before memory is bounded.
        parser.samples()
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for parser in parsers:
            for sample in parser.samples():
                _fed(parser, parser.pack(sample), Path(folder), on_crash)
        with memory_limit(2 * MOST_BYTES):
            while True:
                for parser in parsers:
                    turn = _turn(parser, draws[parser.name], Path(folder), on_crash)
                    counts[parser.name] = _sum(counts[parser.name], turn)
                    if time.monotonic() > ends and min(map(_inputs, counts.values())):
                        return counts


def _turn(
    parser: Parser,
    draw: random.Random,
    folder: Path,
    on_crash: Callable[[Parser, bytes, Crash], None],
) -> Count:
    started, found = time.monotonic(), [0, 0]
    while True:
        found[_fed(parser, damaged(parser, draw), folder, on_crash)] += 1
        seconds = time.monotonic() - started
        if seconds > _SECONDS_A_TURN:
            refused, accepted = found
            return Count(accepted, refused, seconds)


def _fed(
    parser: Parser, data: bytes, folder: Path, on_crash: Callable[[Parser, bytes, Crash], None]
) -> bool:
    try:
        return is_accepted(parser, data, folder)
    except Crash as crash:
        on_crash(parser, data, crash)
        return False


def _sum(*counts: Count) -> Count:
    accepted, refused, seconds = zip(*counts, strict=True)
    return Count(sum(accepted), sum(refused), sum(seconds))


def _inputs(count: Count) -> int:
    return count.accepted + count.refused


def table(counts: dict[str, Count]) -> str:
    """Returns a line a parser: inputs, accepted, refused, seconds; and their sums."""
    lines = [f"{'parser':<20}{'inputs':>9}{'accepted':>10}{'refused':>9}{'seconds':>9}"]
    lines += [
        f"{name:<20}{_inputs(count):>9}{count.accepted:>10}{count.refused:>9}{count.seconds:>9.1f}"
        for name, count in (*counts.items(), ("all", _sum(*counts.values())))
    ]
    return "\n".join(lines)


def define_flags() -> None:
    """Defines all flags of the command."""
    flags.DEFINE_float("seconds", 60.0, "How long.", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "Of the inputs.")
    flags.DEFINE_list("parsers", None, f"Some of: {', '.join(PARSERS)} (default: all).")
    flags.DEFINE_string("out", "fuzz-crashes", "Folder for the input of a crash.")
    flags.DEFINE_string("replay", None, "Feeds this file, as a crash left it, instead of fuzzing.")


def main(arguments: list[str]) -> None:
    """Fuzzes or replays; prints the table."""
    values = flags.FLAGS
    if arguments[1:]:
        sys.exit(f"benchmarks.fuzz: {arguments[1]!r} is no flag")
    names = values.parsers or list(PARSERS)
    unknown = [name for name in names if name not in PARSERS]
    if unknown:
        sys.exit(f"benchmarks.fuzz: no parser {unknown[0]!r}; there are {', '.join(PARSERS)}")
    if values.replay is not None:
        replay(Path(values.replay))
        return
    chosen = [PARSERS[name] for name in names]
    on_crash = functools.partial(keep, Path(values.out))
    print(table(fuzz(chosen, values.seconds, values.seed, on_crash)))


def keep(folder: Path, parser: Parser, data: bytes, crash: Crash) -> None:
    """Writes the input of a crash and ends the process with exit code 1."""
    path = folder / f"{parser.name}-{hashlib.sha256(data).hexdigest()[:8]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    sys.exit(f"{parser.name}: {crash}\nreproduce it with --replay={path}")


def replay(path: Path) -> None:
    """Feeds a kept input to its parser, whose name starts the file's; shows a crash's traceback."""
    parser = PARSERS.get(path.name.rpartition("-")[0])
    if parser is None:
        sys.exit(f"benchmarks.fuzz: {path.name} does not start with a parser's name and a dash")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        parser.samples()
        with memory_limit(2 * MOST_BYTES):
            accepted = is_accepted(parser, path.read_bytes(), Path(folder))
    print(f"{path}: {'accepted' if accepted else 'refused'}")


if __name__ == "__main__":
    define_flags()
    app.run(main)

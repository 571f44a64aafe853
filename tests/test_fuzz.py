"""No parser does with bytes from outside anything but take or refuse them, within time and memory.

A while of random damage takes `DEEPSVDD_FUZZ_SECONDS` in all, 45 by default. Its inputs are the
same every time, so that a failure belongs to the change that is tested; `python -m benchmarks.fuzz`
looks for new ones.
"""

import gzip
import io
import os
import random
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz, memory
from benchmarks.fuzz import Count, Crash
from benchmarks.parsers import PARSERS, Parser
from deepsvdd_jax.datasets import DataError

SECONDS = float(os.environ.get("DEEPSVDD_FUZZ_SECONDS", "45"))
SEED = 0

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::Warning:numpy"),
]

every_parser = pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)


@every_parser
def test_valid_files_are_taken(parser: Parser, tmp_path: Path) -> None:
    taken = [fuzz.is_accepted(parser, parser.pack(one), tmp_path) for one in parser.samples()]
    # Some of the files of one kind are no valid ones of another.
    assert any(taken)


@pytest.mark.fuzz
@every_parser
def test_damage_that_hypothesis_finds(parser: Parser, tmp_path: Path) -> None:
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.randoms(use_true_random=False))
    def check(draw: random.Random) -> None:
        fuzz.is_accepted(parser, fuzz.damaged(parser, draw), tmp_path)

    check()


@pytest.mark.fuzz
@every_parser
def test_a_while_of_random_damage(parser: Parser, record_property: Callable[..., None]) -> None:
    def fail(parser: Parser, data: bytes, crash: Crash) -> None:
        pytest.fail(f"{parser.name}: {crash}; the input is {data!r}")

    counts = fuzz.fuzz([parser], SECONDS / len(PARSERS), SEED, fail)
    record_property("inputs", str(counts[parser.name]))
    assert counts[parser.name].refused


# --- promises of ten gigabytes ------------------------------------------------------------------


def npy(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + bytes(100)


def png(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + bytes(30)


def tiff(width: int, height: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 278: height, 279: 10}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(30)


def tar(pack_format: int) -> bytes:
    member = tarfile.TarInfo("a")
    member.size = 10**10
    return member.tobuf(pack_format) + bytes(2000)


GIF = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b","
GIF += struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00;"

PROMISES: dict[str, bytes] = {
    "idx": b"\0\0\x08\x03" + struct.pack(">III", 10_000, 1000, 1000) + bytes(100),
    "npy": npy((10_000, 1000, 1000)),
    "tar": tar(tarfile.GNU_FORMAT),
    "png": png(100_000, 100_000),
    "bmp": bmp(100_000, 33_000),
    "tiff": tiff(100_000, 100_000),
    "gif": GIF,
    "ppm": b"P5 100000 100000 255\n" + bytes(100),
    "tar-gzip": tar(tarfile.PAX_FORMAT),
    "csv": b"a,b\n" + bytes(100 << 20),
}
SAME = {"idx-gzip": "idx", "npz": "npy", "archive": "npy"}


@pytest.mark.parametrize("name", [*PROMISES, *SAME])
def test_ten_gigabytes_are_refused_before_memory_is_asked_for(name: str, tmp_path: Path) -> None:
    data = PROMISES[SAME.get(name, name)]
    if name == "archive":
        with io.BytesIO() as stream:
            np.savez(stream, a=np.zeros(3))
            data = stream.getvalue()
        data = data.replace(b"(3,)", b"(9" + b"0" * 9 + b",)")
        assert b"(9000000000,)" in data
    packed = gzip.compress(data) if name == "csv" else PARSERS[name].pack(data)
    with fuzz.memory_limit(200 << 20):
        assert not fuzz.is_accepted(PARSERS[name], packed, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the bound of memory holds on Linux")
def test_the_bound_of_memory_is_one() -> None:
    with fuzz.memory_limit(200 << 20), pytest.raises(MemoryError):
        np.empty(400 << 20, np.uint8)
    np.empty(400 << 20, np.uint8)


# --- what the tests above would tell ------------------------------------------------------------


def made_up(parse: Callable[[bytes, Path], Any]) -> Parser:
    return Parser("made-up", lambda: (b"valid",), parse)


def hang(data: bytes, folder: Path) -> None:
    while True:
        pass


def hidden(data: bytes, folder: Path) -> None:
    try:
        np.empty(1 << 50, np.uint8)
    except MemoryError as error:
        raise DataError("damaged") from error


@pytest.mark.parametrize(
    ("parse", "reason"),
    [
        (lambda data, folder: data[99], "IndexError: index out of range"),
        (hang, r"more than 0\.05 s"),
        (hidden, "asked for more memory than there is"),
    ],
)
def test_what_a_parser_must_not_do_is_told(
    parse: Callable[[bytes, Path], Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 0.05)
    with pytest.raises(Crash, match=reason):
        fuzz.is_accepted(made_up(parse), b"valid", tmp_path)


def test_memory_that_an_input_is_not_worth_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter((0, fuzz.MOST_BYTES + (1 << 20)))
    monkeypatch.setattr(memory, "process_peak_bytes", lambda: next(peaks))
    with pytest.raises(Crash, match="took 1025 MiB of memory for 5 bytes"):
        fuzz.is_accepted(made_up(lambda data, folder: None), b"valid", tmp_path)


def refuse_text(data: bytes, folder: Path) -> None:
    if not data.isalpha():
        raise DataError("no letters")


def test_inputs_are_counted_and_a_crash_is_kept(tmp_path: Path) -> None:
    tolerant, strict = made_up(refuse_text), made_up(lambda data, folder: data[4])
    counts = fuzz.fuzz([tolerant], 0.0, 0, lambda *crash: pytest.fail(str(crash)))
    assert counts["made-up"].accepted and counts["made-up"].refused
    assert f"{sum(counts['made-up'][:2]):>9}" in fuzz.table(counts).splitlines()[-1]
    with pytest.raises(SystemExit, match="made-up: IndexError"):
        fuzz.fuzz([strict], 10.0, 0, lambda *crash: fuzz.keep(tmp_path, *crash))
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("made-up-") and len(path.read_bytes()) < 5


def test_sums() -> None:
    lines = fuzz.table({"a": Count(1, 2, 0.5), "b": Count(10, 20, 0.25)}).splitlines()
    assert lines[-1].split() == ["all", "33", "11", "22", "0.8"]


def test_a_kept_input_is_fed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data, verdict in ((b"a\n1\n", "accepted"), (b"a\n", "refused")):
        (tmp_path / "csv-0.bin").write_bytes(data)
        fuzz.replay(tmp_path / "csv-0.bin")
        assert capsys.readouterr().out.endswith(f"csv-0.bin: {verdict}\n")
    with pytest.raises(SystemExit, match="does not start with a parser's name"):
        fuzz.replay(tmp_path / "essay.bin")


def test_the_command() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--seconds=0", "--parsers=idx,csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["parser", "idx", "csv", "all"]

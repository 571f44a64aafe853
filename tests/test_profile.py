"""The profile: which operations it finds, what it adds up, that both kinds of program are seen."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import profile, training
from benchmarks.profile import Cost, Event, Kernel, Operation

TEXT = """
HloModule jit_step
%body (p: f32[2,3]) -> f32[2,3] {
  %p = f32[2,3]{1,0} parameter(0)
  %dot.1 = f32[2,3]{1,0} dot(%p, %p), metadata={op_name="jit(step)/while/body/a/dot_general" line=3}
  ROOT %add.2 = f32[2,3]{1,0} add(%dot.1, %p)
}
  %while.4 = (s32[], f32[2,3]{1,0}) while(%p), body=%body, metadata={op_name="jit(step)/while"}
"""


def test_operations_are_read_from_a_programs_text() -> None:
    assert profile.operations(TEXT) == {
        "p": Operation("f32[2,3]", ""),
        "dot.1": Operation("f32[2,3]", "a/dot_general"),
        "add.2": Operation("f32[2,3]", ""),
        "while.4": Operation("(s32[],", "jit(step)"),
    }


def test_the_fastest_round_of_each_operation_counts() -> None:
    rounds = [
        [Event("dot.1", 2e6), Event("add.2", 5e6), Event("dot.1", 1e6), Event("while.4", 9e6)],
        [Event("dot.1", 4e6), Event("add.2", 1e6), Event("python", 7e6)],
    ]
    known = profile.operations(TEXT)
    found = profile.costs(rounds, known)
    assert found == [Cost("dot.1", 3.0), Cost("add.2", 1.0)]
    lines = profile.report(found, known, 0.006, 1).splitlines()
    assert lines[2].split() == ["dot.1", "a/dot_general", "f32[2,3]", "3.00", "50.0", "%"]
    assert len(lines) == 4 and lines[3] == "6.0 ms a round, 3.0 of it elsewhere"


@pytest.mark.slow
@pytest.mark.parametrize("program", ["scoring", "one-class"])
def test_programs_are_traced(program: str) -> None:
    work = profile.make_work(program, "mlp", training.BATCH_SIZE)
    events = profile.traced_events(work)
    products = [event for event in events if "dot" in event.name or "ynn" in event.name]
    assert products and all(event.nanoseconds > 0 for event in products)


def plane(name: str, **lines: list[tuple[str, float, float, str]]) -> Any:
    return SimpleNamespace(
        name=name,
        lines=[
            SimpleNamespace(
                name=line,
                events=[
                    SimpleNamespace(
                        name=event,
                        start_ns=start,
                        duration_ns=length,
                        stats=[("hlo_op", operation)],
                    )
                    for event, start, length, operation in events
                ],
            )
            for line, events in lines.items()
        ],
    )


def test_kernels_are_those_of_a_gpus_streams() -> None:
    kernel = ("gemm", 5.0, 2.0, "dot.1")
    planes = [
        plane("/host:CPU", Stream=[("python", 0.0, 9.0, "")]),
        plane("/device:GPU:0", **{"XLA Ops": [kernel], "Stream #13(Compute)": [kernel]}),
    ]
    assert profile.kernels_of(planes) == [Kernel("gemm", 5.0, 2.0, "dot.1")]


def test_time_in_which_two_kernels_run_is_busy_once() -> None:
    spans = [(0.0, 4.0), (3.0, 3.0), (3.5, 1.0), (10.0, 2.0)]
    kernels = [Kernel("k", start, length, "") for start, length in spans]
    assert profile.busy_nanoseconds(reversed(kernels)) == 6.0 + 2.0


def test_kernels_are_counted_by_step() -> None:
    known = profile.operations(TEXT)
    kernels = [
        Kernel("gemm", 0.0, 3e6, "dot.1"),
        Kernel("gemm", 3e6, 1e6, "dot.1"),
        Kernel("copy", 5e6, 1e6, "none.7"),
    ]
    *_, gemm, copy, last = profile.report_kernels(kernels, known, 2, 0.01, 5).splitlines()
    assert gemm.split() == ["gemm", "a/dot_general", "1.0", "2.0000", "80.0", "%"]
    assert copy.split() == ["copy", "none.7", "0.5", "0.5000", "20.0", "%"]
    assert last == "1.5 kernels a step; the GPU is busy 2.5000 of 5.0000 ms a step"

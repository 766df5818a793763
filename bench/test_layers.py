"""Layers side by side under pytest-benchmark, a group for each problem and direction; checked before timed.

pytest bench/                                     small layers
pytest bench/ --layers resnet --threads 2         others; see `fastconv bench --list`
pytest bench/ --benchmark-autosave ... --benchmark-compare
"""

import pytest

from fastconv.bench.expected import expected
from fastconv.bench.peers import Refused
from fastconv.bench.worker import judge


def test_layer(benchmark, request, problem, direction, implementation):
    implementation.setup(request.config.option.threads)
    try:
        call = implementation.prepare(problem, direction, problem.arrays())
    except Refused as refusal:
        pytest.skip(f"{implementation.title}: {refusal}")
    verdict = judge(implementation.results(call()), expected(problem, direction), problem, direction)
    assert "wrong" not in verdict, verdict["wrong"]
    benchmark.group = f"{problem.name} {direction}"
    benchmark.extra_info.update(
        verdict, **implementation.facts(problem, direction), flops=problem.flops(direction)
    )
    benchmark(call)

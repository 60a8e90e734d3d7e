"""A training step recorded once as a CUDA graph, then replayed.

A step of these small networks is some two hundred kernels, each faster than its launch. A CUDA
graph launches them all at once. That needs what this library's steps have anyway: shapes that
don't change, addresses that stay (networks are frozen in place), and nothing that waits.

    step = captured(step, optimisers)       # the same step, but for its speed
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from .data import Data

Step = Callable[[Data, Tensor], Tensor]
WARM_UP = 3  # eager steps before recording: optimisers and libraries make their state in them


def captured(step: Step, optimisers: Iterable[torch.optim.Optimizer]) -> Step:
    """The step as a graph. Every batch must have the shapes of the first.

    Raises (when called):
        RuntimeError: the step does something that can't be recorded, such as waiting.
    """
    for group in (g for optimiser in optimisers for g in optimiser.param_groups):
        if "capturable" in group:  # as in Adam's; others may have nothing that they would wait for
            group["capturable"] = True
    calls = 0
    inputs: list[Tensor] = []
    replay: Callable[[], Tensor] | None = None

    def run(batch: Data, weight: Tensor) -> Tensor:
        nonlocal calls, inputs, replay
        calls += 1
        if calls <= WARM_UP:
            return _aside(lambda: step(batch, weight))
        given = [part for part in (*batch, weight) if part is not None]
        if replay is None:
            inputs = [part.clone() for part in given]
            *parts, fixed = inputs
            replay = _recorded(lambda: step(Data(*parts), fixed))
        torch._foreach_copy_(inputs, given)
        return replay()

    return run


def _aside(work: Callable[[], Tensor]) -> Tensor:
    """Do it on another stream, as torch asks of what comes before a recording."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = work()
    torch.cuda.current_stream().wait_stream(stream)
    return result


def _recorded(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record it without doing it; the function that does it and returns its result."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = work()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        advice = "leave out capture or use the CPU, in a new process: CUDA's random state is lost"
        raise RuntimeError(f"this step can't be captured ({reason}): {advice}") from None

    def replay() -> Tensor:
        graph.replay()
        return result.clone()

    return replay

"""What runs beside a submission, inside of the walls that `genreplay_core.grading` puts up.

    python -P worker.py FOLDER DESCRIPTOR MEGABYTES OUTPUT PROCESSES SECONDS

It answers calls of the adapters in a folder, which come through a socket. Both ends of that socket
use `send` and `receive`: JSON with its length before it, so that reading never runs anything.
"""

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

import torch

import genreplay_core  # noqa: F401  (it takes seconds, for which no student is to blame)

MEGABYTE = 2**20
ANSWER = 16 * MEGABYTE  # no right answer is nearly as long
DTYPES = {str(t): t for t in (torch.float32, torch.float64, torch.int64, torch.bool)}


def send(pipe, value):
    """Write tensors, numbers, text, and lists and dicts of them; raises TypeError for the rest."""
    body = json.dumps(value, default=packed).encode()
    pipe.write(len(body).to_bytes(4, "big") + body)
    pipe.flush()


def receive(pipe):
    """Read what `send` wrote. Raises EOFError if the other end is gone, and ValueError, KeyError,
    ... if something else came."""
    length = int.from_bytes(pipe.read(4), "big")
    if length > ANSWER:
        raise ValueError(f"it has {length // MEGABYTE} MB")
    body = pipe.read(length)
    if not body or len(body) < length:
        raise EOFError
    return json.loads(body, object_hook=unpacked)


def packed(value):
    """What JSON can't hold, as what it can."""
    if isinstance(value, torch.Tensor):
        return {"tensor": value.tolist(), "of": [str(value.dtype), *value.shape]}
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no answer: tensors, numbers and text are")


def unpacked(found):
    """The other way round."""
    if found.keys() != {"tensor", "of"}:
        return found
    dtype, *shape = found["of"]
    return torch.tensor(found["tensor"], dtype=DTYPES[dtype]).reshape(shape)


def answer(name, arguments):
    """[what went wrong or nothing, the adapter's answer or what is said of it]"""
    try:
        import adapters

        with torch.enable_grad():  # also if an earlier answer has left them off
            found = ["", getattr(adapters, name)(*arguments)]
        json.dumps(found, default=packed)  # while it can still be told that it is none
        return found
    except NotImplementedError:
        return ["undone", ""]
    except BaseException as error:  # the student's own code may do anything
        return [type(error).__name__, str(error)[:500]]


def serve(pipe):
    """Answer until nobody asks any more."""
    process = os.getpid()
    send(pipe, "ready")
    with contextlib.suppress(EOFError):
        while True:
            number, name, arguments = receive(pipe)
            said = answer(name, arguments)
            if os.getpid() != process:  # a child that the student's code has left behind
                os._exit(0)
            send(pipe, [number, *said])


def limit(memory, output, processes, seconds):
    """Bounds that nothing below can lift: megabytes beyond those that are taken already, megabytes
    of a file and of what is printed, processes, seconds of computing."""
    import resource  # there is none on Windows

    pages = Path("/proc/self/statm")
    taken = int(pages.read_text().split()[0]) * resource.getpagesize() if pages.exists() else 0
    sizes = {"AS": taken + memory * MEGABYTE, "FSIZE": output * MEGABYTE, "CORE": 0}
    for name, bound in {**sizes, "NPROC": processes, "CPU": seconds}.items():
        with contextlib.suppress(OSError, ValueError):  # a system that doesn't know it
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (bound, bound))


def no_network(event, arguments):
    """An audit hook, which can't be taken away again."""
    if event == "socket.connect":
        raise OSError("there is no network while you are graded")


def main():
    folder, descriptor, *bounds = sys.argv[1:]
    os.chdir(folder)
    sys.path.append(folder)
    sys.addaudithook(no_network)
    limit(*map(int, bounds))
    serve(socket.socket(fileno=int(descriptor)).makefile("rwb"))


if __name__ == "__main__":
    main()

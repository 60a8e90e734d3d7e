"""Python reads this first where its folder is in PYTHONPATH: no host but this one is reached."""

import socket

connect = socket.socket.connect


def refuse(self: socket.socket, address: object) -> None:
    """Connect, if the address is on this machine, or nothing is sent by connecting."""
    near = not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1", "localhost")
    if self.type == socket.SOCK_STREAM and not near:
        raise OSError(f"the book's tests have no network, but ask for {address[0]}")
    connect(self, address)


socket.socket.connect = refuse  # type: ignore[method-assign, assignment]

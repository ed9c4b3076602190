"""The port that a server is to listen on, taken before anything is loaded for it."""

import errno
import socket

from contract.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """The port, taken but not yet listening. Raises UserError when it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} on {host} is in use; stop what uses it or choose another --port"
            ) from None
        raise UserError(f"{host}:{port} can not be listened on: {error.strerror}") from None
    return taken

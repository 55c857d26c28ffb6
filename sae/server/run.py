"""Serve a catalog on this machine alone."""

import socket
from collections.abc import Callable, Mapping

import uvicorn

from sae.errors import ConfigError
from sae.features.catalog import Catalog
from sae.server.app import create_app
from sae.server.live import Ask

HOST = "127.0.0.1"


def serve(
    catalog: Catalog, port: int, asks: Mapping[str, Ask] | None = None, told: Callable[[str], None] | None = None
) -> None:
    """Serve until Ctrl-C.

    Args:
        catalog: what to show.
        port: 0 takes any that is free.
        asks: what answers questions to the loaded subject.
        told: is called with the address once it can be opened.

    Raises:
        ConfigError: the port is taken, or is none.
    """
    with open_port(port) as listening:
        listening.listen()  # whoever opens the address before the server runs waits for it
        if told is not None:
            told(f"http://{HOST}:{listening.getsockname()[1]}/")
        config = uvicorn.Config(create_app(catalog, asks), log_level="warning", server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def open_port(port: int) -> socket.socket:
    """Return a socket on the loopback address."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as cause:
        listening.close()
        raise ConfigError(f"--port {port}: cannot be opened ({cause}); 0 takes any that is free.") from cause
    return listening

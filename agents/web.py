"""The pages on Faust's web server: ours, and nothing else."""

import errno
from collections.abc import Iterable
from typing import Any, Final

import structlog
from aiohttp.web import RouteDef, TCPSite
from faust.web.drivers.aiohttp import Web

from cortex_stream.errors import OperatorError
from cortex_stream.settings.sections import WebSettings

_PORTS_TO_TRY: Final = 100

log = structlog.stdlib.get_logger(__name__)


class Pages(Web):
    """Faust's web server without a single page of Faust's.

    Faust's pages show the assignment of the whole group, the graph of services and its settings to
    everybody, and its router forwards requests, with their credentials, to whoever joined the
    group.
    """

    def __init__(self, app: Any, routes: Iterable[RouteDef], settings: WebSettings) -> None:
        super().__init__(app)
        self.web_app.add_routes(routes)
        self._settings = settings

    def init_server(self) -> None:
        """Do not call Faust's, which adds its pages; ours are there already."""

    async def start_server(self) -> None:
        """Listen on the configured port, or on the next that is free.

        The address is ours, whatever Faust's command line says: anything but loopback needs the
        token that our settings demand.
        """
        await self._runner.setup()
        first = self.app.conf.web_port if self._settings.port else 0
        for port in range(first, first + _PORTS_TO_TRY):
            site = TCPSite(self._runner, self._settings.host, port)
            try:
                await site.start()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                host, bound, *_ = self._runner.addresses[0]
                log.info(
                    "web.listening",
                    host=host,
                    port=bound,
                    wanted=self._settings.port,
                    status_page=f"http://{f'[{host}]' if ':' in host else host}:{bound}/",
                )
                return
        raise OperatorError(
            f"listening on {self._settings.host}: ports {first} to {first + _PORTS_TO_TRY - 1}"
            " are all taken",
            repair="set CORTEX_WEB__PORT",
        )

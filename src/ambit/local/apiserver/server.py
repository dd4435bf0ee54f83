"""The Kubernetes-compatible API server of a laptop cluster: assembly and life cycle.

TLS on inherited sockets (client certificates or tokens), plain HTTP on a Unix socket of mode 0600 for the
cluster's own controllers. A development server: no clustering, no webhook conversion.
"""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import uuid
from pathlib import Path

import msgspec
from aiohttp import web

from ambit.daemon.fair_socket import FairSocket
from ambit.local.apiserver import bootstrap, housekeeping
from ambit.local.apiserver.access.credentials import ensure_credentials
from ambit.local.apiserver.access.escalation import Escalation
from ambit.local.apiserver.access.rbac import Authorizer
from ambit.local.apiserver.access.reviews import Reviews
from ambit.local.apiserver.access.tokens import Tokens
from ambit.local.apiserver.answers import Answers
from ambit.local.apiserver.handler import TRUSTED, Handler
from ambit.local.apiserver.kinds.builtin import FIELD_READERS, KINDS
from ambit.local.apiserver.kinds.custom import CustomKinds
from ambit.local.apiserver.kinds.openapi import OpenApi
from ambit.local.apiserver.negotiation import MAX_BODY
from ambit.local.apiserver.pods.requests import PodRequests
from ambit.local.apiserver.resource_requests import ResourceRequests
from ambit.local.apiserver.resources import Registry
from ambit.local.apiserver.storage.store import Store
from ambit.local.apiserver.tables.table import Tables
from ambit.local.apiserver.writes import Writer
from ambit.local.streams import PodStreams

CONNECTIONS_PER_CALLER = 128
"""Open at a time from one address: each watch is one."""
HANDSHAKE_SECONDS = 10.0


class ApiSettings(msgspec.Struct, frozen=True):
    """`database` None keeps objects in memory only. `bundles` are the CRDs a new cluster starts with."""

    pki: Path
    database: Path | None = None
    bundles: tuple[str, ...] = ("gateway-experimental", "istio")


class ApiServer:
    """One server. `start` may be called again for further sockets."""

    def __init__(self, settings: ApiSettings, streams: PodStreams | None) -> None:
        """Opens the database and makes missing credentials. Raises AmbitError or OSError."""
        self.credentials = ensure_credentials(settings.pki)
        self.store = Store(settings.database, FIELD_READERS)
        self.registry = Registry(KINDS)
        bootstrap.fill(self.store, self.registry, settings.bundles, lambda: str(uuid.uuid4()))
        custom = CustomKinds(self.store, self.registry)
        self.writer = writer = Writer(self.store, self.registry, custom)
        tokens = Tokens(self.credentials.account_key, self.store)
        authorizer = Authorizer(self.store)
        self.pods = PodRequests(writer, streams)
        resources = ResourceRequests(
            writer,
            Answers(self.store, Tables(custom)),
            Reviews(self.store, tokens, authorizer),
            self.pods,
            Escalation(self.store, authorizer),
        )
        self._handler = Handler(
            self.registry, tokens, authorizer, resources, OpenApi(self.registry, self.store, custom)
        )
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._listening: list[socket.socket] = []
        self._unix_path: Path | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    async def start(self, sockets: list[socket.socket], unix_path: Path | None) -> None:
        """Serves TLS on listening or bound `sockets`, and plain HTTP on `unix_path`. Raises OSError."""
        if sockets:
            runner = await self._runner(trusted=False)
            context = self._tls()
            assert runner.server is not None, "it was set up"
            for one in sockets:
                self._listening.append(one)
                self._servers.append(
                    await asyncio.get_running_loop().create_server(
                        runner.server,
                        sock=FairSocket(one, CONNECTIONS_PER_CALLER),
                        ssl=context,
                        ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    )
                )
        if unix_path is not None:
            runner = await self._runner(trusted=True)
            unix_path.unlink(missing_ok=True)
            unix = socket.socket(socket.AF_UNIX)
            mask = os.umask(0o177)
            try:
                unix.bind(str(unix_path))
            finally:
                os.umask(mask)
            await web.SockSite(runner, unix).start()
            self._unix_path = unix_path
        if self._housekeeping is None:
            self._housekeeping = asyncio.create_task(housekeeping.run(self.store))
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        """Ends watches, then connections, then closes the database."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        self.store.end_watches()
        for server in self._servers:
            server.close()
        for one in self._listening:
            one.close()
        for runner in self._runners:
            await runner.cleanup()
        if self._unix_path is not None:
            with contextlib.suppress(FileNotFoundError):
                self._unix_path.unlink()
        self.store.close()

    async def _runner(self, *, trusted: bool) -> web.AppRunner:
        app = web.Application(client_max_size=MAX_BODY)
        app[TRUSTED] = trusted
        app.router.add_route("*", "/{path:.*}", self._handler.handle)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        return runner

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.credentials.server_certificate, self.credentials.server_key)
        context.load_verify_locations(self.credentials.authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

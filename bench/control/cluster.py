"""An API server that holds a whole cluster's objects, as a process of its own.

    python -m bench.control.cluster DIRECTORY SERVICES PODS NODES

Writes `kubeconfig`, and the token of each node's agent as `tokens/NODE`, into the directory, serves on its `api.sock`
without TLS, prints one line when it is ready and ends with its standard input.
"""

import asyncio
import socket
import sys
import time
from functools import partial
from pathlib import Path

from ambit.core.names import CA_TOKEN_AUDIENCE, ROOT_NAMESPACE
from ambit.local.apiserver.access.credentials import write_kubeconfig
from ambit.local.apiserver.access.tokens import Tokens
from ambit.local.apiserver.server import ApiServer, ApiSettings
from ambit.local.apiserver.storage.store import Json
from ambit.local.apiserver.strategies.base import Strategy
from ambit.local.apiserver.strategies.table import NEUTRAL, STRATEGIES
from bench.control.objects import AGENT, Size, agent_name, objects

TOKEN_SECONDS = 12 * 3600


def fill(api: ApiServer, size: Size, tokens: Path) -> None:
    """Puts everything into the store at once, and writes the agents' tokens."""
    for storage, bodies in objects(size):
        api.store.put_new(storage, map(partial(_with_defaults, STRATEGIES.get(storage, NEUTRAL)), bodies))
    issuer = Tokens(api.credentials.account_key, api.store)
    account = api.store.get("serviceaccounts", ROOT_NAMESPACE, AGENT)
    assert account is not None, "it was put there"
    tokens.mkdir()
    now = int(time.time())
    for node in range(size.nodes):
        pod = api.store.get("pods", ROOT_NAMESPACE, agent_name(node))
        assert pod is not None, "it was put there"
        token = issuer.issue(
            account.decode(), [CA_TOKEN_AUDIENCE], TOKEN_SECONDS, now, bound=pod.decode(), token_id=str(node)
        )
        (tokens / str(node)).write_text(token)


def _with_defaults(strategy: Strategy, body: Json) -> Json:
    strategy.default(body)
    return body


async def serve(directory: Path, size: Size) -> None:
    api = ApiServer(ApiSettings(directory / "pki"), None)
    fill(api, size, directory / "tokens")
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    await api.start([listening], directory / "api.sock")
    server = f"https://127.0.0.1:{listening.getsockname()[1]}"
    write_kubeconfig(directory / "kubeconfig", api.credentials, server)
    print("ready", flush=True)
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await api.stop()


if __name__ == "__main__":
    directory, *numbers = sys.argv[1:]
    asyncio.run(serve(Path(directory), Size(*map(int, numbers))))

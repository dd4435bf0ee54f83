"""A control plane that is a process of its own, when it stands still for a while."""

import socket

from bench.control.agents import Agents, Target
from bench.control.cluster import fill
from bench.control.objects import Size, pod_name
from bench.control.server import ambit, free_port
from bench.control.writer import LABEL

from ambit.core.names import ROOT_CERT_CONFIGMAP, ROOT_CERT_KEY, SYSTEM_NAMESPACE
from ambit.kube import resource as kinds
from ambit.kube.client import Client, Patch
from ambit.local.apiserver.credentials import write_kubeconfig
from ambit.local.apiserver.server import ApiServer, ApiSettings

SIZE = Size(2, 10, 3)
PATIENCE = 60.0


async def test_what_changed_while_it_was_stopped_arrives_on_the_same_streams(tmp_path):
    api = ApiServer(ApiSettings(tmp_path / "pki"), None)
    fill(api, SIZE, tmp_path / "tokens")
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    await api.start([listening], None)
    config, port = tmp_path / "kubeconfig", free_port()
    write_kubeconfig(config, api.credentials, f"https://127.0.0.1:{listening.getsockname()[1]}")
    plane = ambit(config, port, tmp_path / "control.log")
    try:
        await plane.launch()
        await plane.ready()
        async with Client.from_kubeconfig(config) as client:
            root = await client.get(kinds.CONFIG_MAPS, ROOT_CERT_CONFIGMAP, SYSTEM_NAMESPACE)
            tokens = {node: (tmp_path / "tokens" / str(node)).read_text() for node in range(SIZE.nodes)}
            agents = Agents(Target(port, "localhost", root["data"][ROOT_CERT_KEY]), tokens)
            agents.start()
            try:
                await agents.synced(PATIENCE)
                everything = agents.sent
                agents.forget()
                plane.pause()
                space, name = pod_name(SIZE, 7)
                for value in ("first", "last"):
                    patch = {"metadata": {"labels": {LABEL: value}}}
                    await client.patch(kinds.PODS, name, patch, space, kind=Patch.MERGE)
                assert agents.sent == 0
                plane.resume()
                marked = f"//Pod/{space}/{name}".encode()

                def told():
                    return all(
                        any(marked in message and b"last" in message for _, message in each.kept)
                        for each in agents.all
                    )

                await agents.until(told, PATIENCE, "the change")
                assert agents.sent < everything, "the streams went on"
                assert agents.refused == 0
            finally:
                await agents.stop()
    finally:
        await plane.kill()
        await api.stop()

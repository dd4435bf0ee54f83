"""A control plane that is a process of its own, when it stands still for a while."""

from bench.control.objects import pod_name
from bench.control.writer import LABEL

from ambit.kube import resource as kinds
from ambit.kube.client import Patch
from tests.control.plane import PATIENCE, SIZE, running


async def test_what_changed_while_it_was_stopped_arrives_on_the_same_streams(tmp_path):
    async with running(tmp_path) as (plane, client, agents):
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

"""Requests all the time, of which none may fail."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ambit.testing.mesh import Mesh

# Asks all the time, on a connection that is kept and on new ones; tells what failed, or how often it went well.
_REQUESTS = """
import http.client, select, socket, sys
# Once: who answers for names may be away meanwhile for longer than a resolver asks.
address, host = socket.gethostbyname(sys.argv[1]), {"host": sys.argv[1]}
kept, well = http.client.HTTPConnection(address, timeout=30), 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    once = http.client.HTTPConnection(address, timeout=30)
    for each in (kept, once):
        try:
            each.request("GET", "/", headers=host)
            answer = each.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        except (OSError, AssertionError, http.client.HTTPException) as problem:
            print("failed", "kept" if each is kept else "new", repr(problem), "after", well, flush=True)
            raise SystemExit
    once.close()
    well += 1
    if well == 1:
        print("open", flush=True)
print("well", well, flush=True)
"""


@contextmanager
def no_request_fails(mesh: Mesh, namespace: str, host: str = "web") -> Iterator[None]:
    """Of those that the pod `client` asks meanwhile, on a connection that is kept and on new ones."""
    words = ("exec", "-i", "-n", namespace, "client", "--", "python3", "-uc", _REQUESTS, host)
    asking = mesh.popen(*words, stdin=subprocess.PIPE)
    said = ""
    try:
        assert asking.stdout is not None
        assert asking.stdout.readline() == "open\n"
        yield
    finally:
        said, _ = asking.communicate("end", timeout=110)
    assert said.startswith("well"), said

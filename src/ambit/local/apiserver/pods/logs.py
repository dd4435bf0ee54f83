"""`pods/log`: which container, which lines, streamed as they come."""

import time
from collections.abc import Mapping

from aiohttp import web

from ambit.local.apiserver import clock
from ambit.local.apiserver.failures import ApiFailure, bad_request
from ambit.local.apiserver.requests import flag, number
from ambit.local.apiserver.storage.store import Json
from ambit.local.streams import LogOptions, PodStreams

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def choose_container(pod: Json, wanted: str | None, *, exact: bool = False) -> str:
    """The named container, or the only (or annotated) one. Raises ApiFailure 400."""
    spec, metadata = pod.get("spec") or {}, pod["metadata"]
    main = [one["name"] for one in spec.get("containers") or ()]
    initial = [one["name"] for one in spec.get("initContainers") or ()]
    if wanted:
        if wanted not in {*main, *initial}:
            raise bad_request(f"container {wanted} is not valid for pod {metadata['name']}")
        return wanted
    annotated = (metadata.get("annotations") or {}).get(_DEFAULT_CONTAINER)
    if annotated in main:
        return str(annotated)
    if len(main) == 1 or not exact:
        return str(main[0])
    listed = f"choose one of: [{' '.join(main)}]"
    if initial:
        listed += f" or one of the init containers: [{' '.join(initial)}]"
    raise bad_request(f"a container name must be specified for pod {metadata['name']}, {listed}")


def _count(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    found = number(text)
    if found is None:
        raise bad_request(f"{name}: Invalid value: {text!r}: must be greater than or equal to 0")
    return found


def read_options(query: Mapping[str, str]) -> LogOptions:
    """PodLogOptions from the query. Raises ApiFailure 400."""
    seconds, moment = _count(query, "sinceSeconds"), query.get("sinceTime")
    since: float | None = None
    if seconds is not None:
        since = time.time() - seconds
    elif moment:
        try:
            since = clock.parse(moment).timestamp()
        except ValueError as error:
            raise bad_request(f"sinceTime: Invalid value: {moment!r}") from error
    return LogOptions(
        follow=flag(query, "follow"),
        previous=flag(query, "previous"),
        timestamps=flag(query, "timestamps"),
        tail_lines=_count(query, "tailLines"),
        since=since,
        limit_bytes=_count(query, "limitBytes"),
    )


async def serve_log(request: web.Request, pod: Json, streams: PodStreams) -> web.StreamResponse:
    """Streams the log. Raises ApiFailure 400."""
    metadata = pod["metadata"]
    container = choose_container(pod, request.query.get("container"), exact=True)
    options = read_options(request.query)
    chunks = streams.read_log(metadata["namespace"], metadata["name"], container, options)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    try:
        first = await anext(chunks, b"")
    except LookupError as error:
        raise ApiFailure(400, "BadRequest", str(error.args[0] if error.args else error)) from error
    await response.prepare(request)
    if first:
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
    await response.write_eof()
    return response

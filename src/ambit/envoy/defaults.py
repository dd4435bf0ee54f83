"""Numbers in Envoy's configuration, each with its reason. Measurements: 2 cores, Envoy 1.40."""

STREAM_WINDOW = 1 << 20
"""HTTP/2 window of one tunnel's upload, and how much of a download the server's side holds back. 256 KiB costs a
quarter of single-stream throughput, 4 MiB doubles memory."""
CONNECTION_WINDOW = 4 << 20
"""The same of one HBONE connection: four busy tunnels."""
DOWNLOAD_STREAM_WINDOW = 8 << 20
DOWNLOAD_CONNECTION_WINDOW = 32 << 20
"""Windows of the client's side. Envoy as a CONNECT server resets a stream as soon as the application closed, and
drops what the client's window does not admit at that moment. With 1 MiB half of all 3 MB answers of servers that
close first lost their end; with 8 MiB none of 40 MB, for a client that reads promptly (docs/limits.md; a lost
end is a reset for the client, `ambit.node.cut`). Costs memory only while a client reads slowly."""
BUFFER_LIMIT = 256 << 10
"""Per-connection buffer. 1 MiB doubles memory under eight bulk streams and gains less than 5 %."""
CONCURRENT_STREAMS_OUT = 100
"""Tunnels in one HBONE connection before another is opened; ztunnel's number."""
CONCURRENT_STREAMS_IN = 1000
"""Ours is never the limit: clients open further connections themselves."""
EDGE_IDLE_TIMEOUT = 3600.0
"""A client's connection to a gateway without requests is closed after this time; Envoy's and Istio's number."""
EDGE_STREAM_IDLE = 24 * 3600.0
"""A request or WebSocket of such a client in which nothing moves at all is ended after this time. Without any, Envoy
could not make it shorter when memory is short."""
EDGE_STREAMS = 100
"""Requests at once on one connection of a client whom nobody knows (Envoy: "configuring Envoy as an edge proxy")."""
DATAGRAM_IDLE = 60.0
"""A client's datagrams go to one endpoint until it and the client have been silent for so long; Envoy's number."""
DATAGRAM_CLIENTS = 10_000
"""At once on one UDP port of a gateway: each takes a socket, and anybody can write any sender's address into a
datagram."""
DATAGRAM_SIZE = (1 << 16) - 1
"""The largest that there is. Envoy's own limit, 1500 bytes, drops what is larger."""
CONNECT_TIMEOUT = 10.0
"""TCP and TLS set-up; ztunnel's number."""
LOCAL_CONNECT_TIMEOUT = 10.0
RESOLVED_ATTEMPTS = 3
"""So many addresses of a name are tried before its connection is given up."""
RESOLVE_USUAL = 30.0
"""A name in use is resolved again when its answer's time to live is over; after this time when it names none."""
RESOLVE_FAILED_FIRST, RESOLVE_FAILED_LAST = 1.0, 10.0
"""When it could not be resolved."""
RECONNECT_FIRST, RECONNECT_LAST = 0.05, 0.5
"""To the agent: its restart takes half a second, and new destinations wait for it (Envoy's default back-off
reached 3 s there)."""
ON_DEMAND_TIMEOUT = 10.0
"""How long a first connection waits for the agent's answer: longer than an agent's restart."""
ORIGINAL_DESTINATION_CLEANUP = 60.0
"""After this time without use, hosts of an original-destination cluster are forgotten."""
KEEPALIVE_IDLE = 180
KEEPALIVE_INTERVAL = 180
KEEPALIVE_PROBES = 9
"""TCP keepalive of both sides: idle timeouts are off (a mesh must not cut idle connections), so dead peers
are found by the kernel. ztunnel's numbers."""
PING_INTERVAL = 10.0
PING_TIMEOUT = 20.0
"""HTTP/2 pings on HBONE connections; ztunnel's numbers."""
EARLY_DATA = 64 << 10
"""Bytes read from a client before its destination is connected."""
LOG_FLUSH_INTERVAL = 0.5
"""An access-log line reaches the agent within this many seconds."""
LOG_TIMEOUT = 10
"""How long the agent may take for a message before Envoy drops it."""
LOG_BUFFER = 256 << 10
"""Lines of 300 to 500 bytes that wait for the flush: at 2,000 connections a second all of them. Each message costs
the agent as much as a hundred lines."""
TUNNEL_LOG_FROM = 1 << 20
"""Tunnels that carried fewer bytes to the client cannot have been cut short: they fit into its window."""
LOG_PERIOD = 5.0
"""Open connections report their running totals this often."""
HEAP_LIMIT = 512 << 20
"""The overload manager sheds load against this heap size; 20k connections need about 300 MiB."""
HOARD_LOG2 = 17
"""Streams with buffers from 2^17 bytes on can be told apart from others: an eighth of what a stream may hold, half of
what one of a tunnel does (BUFFER_LIMIT)."""
HOARDERS_FROM, HOARDERS_ALL = 0.85, 0.93
"""Parts of the heap's limit at which streams with large buffers are ended: the largest first, then all of them. Below
95 %, from which on nobody new is let in, and above what the configuration of 2,000 services takes."""
IDLE_UNDER_PRESSURE = 15.0
"""So long may clients stand still from then on; as long as they may take for their headers."""
RELEASE_BYTES = 64 << 20
RELEASE_INTERVAL = 1.0
SOFT_MEMORY_LIMIT = 20 << 20
SOFT_MEMORY_LIMIT_OF_WAYPOINTS = 64 << 20
"""A waypoint with three services has 16 MiB of anonymous memory; with the limit above its allocator complains that it
cannot keep it without breaking large pages, and gets slower."""
CACHE_PER_CPU = 256 << 10
"""Free memory goes back to the system; 15 % less anonymous memory after load."""
TUNNEL_IDLE_TIMEOUT = 300.0
"""An HBONE connection without tunnels is closed after this time; ztunnel's number."""
UNSENT_RETRIES = 2
"""Further tries of a request that no backend has seen."""
OTHER_HOST_ATTEMPTS = 5
"""So often another endpoint is looked for than those that have failed."""
LEAST_BACKOFF = 25
"""Milliseconds between two tries when a route says less, or nothing (Envoy's own number): pauses of nearly nothing
would have a shared proxy do little else. The Gateway API lets a proxy wait for longer than is written (GEP-1731)."""
BACKOFF_GROWTH = 10
"""The longest pause between tries, as a multiple of the first; Envoy's own number."""
HEADERS_TIMEOUT = 15.0
"""How long a client may take for the headers of one request: a slow one must not hold a stream for ever."""
FLUSH_TIMEOUT = 300.0
"""How long a finished answer waits for a client that does not read."""
REQUEST_HEADERS_KIB = 60
"""All headers of a request together; larger ones are answered with 431."""
HEADERS_COUNT = 200
"""Of a request or answer; Envoy's own number is 100, which applications were seen to exceed."""

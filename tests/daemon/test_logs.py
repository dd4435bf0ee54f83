"""Log lines of our processes."""

import logging

import msgspec

from ambit.daemon.logs import Lines, event


def test_log_lines():
    logger, seen = logging.getLogger("test.lines"), []
    logger.addFilter(seen.append)
    event(logger, logging.ERROR, "it happened", who="a b", line="x\ny", plain="z")
    [record] = seen
    assert Lines().format(record).split(" ", 3)[3] == 'it happened who="a b" line="x\\ny" plain=z'
    shown = msgspec.json.decode(Lines(as_json=True).format(record))
    assert (shown["message"], shown["who"], shown["line"]) == ("it happened", "a b", "x\ny")

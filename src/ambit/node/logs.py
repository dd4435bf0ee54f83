"""The agent's own log on standard error, one line per event, plain or JSON."""

import datetime as dt
import logging

import msgspec


class _Lines(logging.Formatter):
    """`<time> <level> <logger> <text>`."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        if self._json:
            line = {"time": time, "level": level, "scope": record.name, "message": text}
            return msgspec.json.encode(line).decode()
        return f"{time} {level} {record.name} {text}"


def set_up(level: str = "info", *, as_json: bool = False) -> None:
    """Sends every logger's lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines(as_json=as_json))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

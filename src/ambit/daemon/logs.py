"""Log lines: one event per line, a constant sentence and `key=value` fields (or one JSON object)."""

import datetime as dt
import logging
from typing import Any

import msgspec

_FIELDS = "fields"


def event(logger: logging.Logger, level: int, sentence: str, **fields: object) -> None:
    """Log a constant sentence with fields."""
    logger.log(level, sentence, extra={_FIELDS: fields})


class Lines(logging.Formatter):
    """`<time> <level> <logger> <sentence> key=value …`, or the same as JSON."""

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = dict(getattr(record, _FIELDS, {}))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        if self._json:
            line = {
                "time": time,
                "level": record.levelname.lower(),
                "scope": record.name,
                "message": record.getMessage(),
            }
            return msgspec.json.encode(line | {key: str(value) for key, value in fields.items()}).decode()
        shown = "".join(f" {key}={_plain(str(value))}" for key, value in fields.items())
        return f"{time} {record.levelname.lower()} {record.name} {record.getMessage()}{shown}"


def _plain(text: str) -> str:
    simple = text and all(character.isprintable() and character not in ' "=' for character in text)
    return text if simple else msgspec.json.encode(text).decode()


def set_up(level: str = "info", *, as_json: bool = False) -> None:
    """Send every logger's lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(as_json=as_json))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

"""Lines about requests that Envoy tells the agent, to be printed as they would have been printed by Envoy."""

import json

from ambit.agent.request_lines import printed
from ambit.envoy.logs.request_lines import to_agent
from ambit.model.telemetry import LogFormat, Printer, RequestLog
from tests.node.flows.envoy_lines import message


def body(format_: LogFormat) -> str:
    """The text that Envoy is to make."""
    packed = to_agent(RequestLog(Printer(format=format_))).typed_config
    text: str = json.loads(packed_json(packed))["body"]["string_value"]
    return text


def packed_json(packed: object) -> str:
    from google.protobuf import json_format
    from xds.type.v3 import typed_struct_pb2

    held = typed_struct_pb2.TypedStruct()
    packed.Unpack(held)  # type: ignore[attr-defined]
    return json_format.MessageToJson(held.value)


def test_a_text_is_printed_as_it_is() -> None:
    assert body(LogFormat(text="%PROTOCOL% done\n")) == "\n%PROTOCOL% done"
    assert [*printed(message("\nHTTP/1.1\tdone", "\n"))] == ["HTTP/1.1\tdone", ""]


def test_members_become_an_object() -> None:
    told = body(LogFormat(members=(("a%", "%PROTOCOL%"), ("b", "%REQ(X)%\n%REQ(Y)%")), is_json=True))
    assert told == '["a%%", "b"]\n%PROTOCOL%\n%REQ(X)% %REQ(Y)%'
    (line,) = printed(message('["code", "none", "agent", "big"]\n200\n-\na "b"\t%\n12345678901234567890'))
    assert json.loads(line) == {
        "code": 200,
        "none": None,
        "agent": 'a "b"\t%',
        "big": "12345678901234567890",
    }


def test_without_a_format_it_is_the_usual_one() -> None:
    assert body(LogFormat()).startswith('\n[%START_TIME%] "%REQ(:METHOD)%')
    assert json.loads(body(LogFormat(is_json=True)).splitlines()[0])[0] == "start_time"


def test_what_is_no_line_is_left_out() -> None:
    assert [*printed(message("nonsense\nx", '["a"]\nb\nc', "[1]\n2"))] == []

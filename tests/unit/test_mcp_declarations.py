"""What a declaration of an MCP server may say, what of it is shown, and what the model sees."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from polos import EnvironmentVariable, ImageBlock, MCPServer, TextBlock, Tool, ToolContent, get_workflow
from polos.errors import ConfigurationError, ToolServerError
from polos.mcp.listing import LONGEST_NAME, record_of, shown_name
from polos.mcp.results import error_text_of, value_of

LIMIT = 1 << 20
PROGRAM = ["server"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "give command=.* or url="),
    "both": ({"command": PROGRAM, "url": "http://x"}, "one of them"),
    "a command line": ({"command": "npx server"}, "must be a list, such as"),
    "no program": ({"command": []}, "the program first"),
    "no URL": ({"url": "localhost:80"}, "must begin with http"),
    "headers of a program": (
        {"command": PROGRAM, "headers": {"a": "b"}},
        "headers= are for a server",
    ),
    "env of a URL": ({"url": "http://x", "env": {"a": "b"}}, "env= and cwd= are for a server with command="),
    "a value that is none": ({"command": PROGRAM, "env": {"a": 1}}, r"env\['a'\] must be a string"),
    "another transport": ({"url": "http://x", "transport": "ws"}, "give 'http' or 'sse'"),
    "no time": ({"command": PROGRAM, "timeout_seconds": 0}, "give more than 0"),
    "no tools": ({"command": PROGRAM, "allowed_tools": []}, "list of names of tools"),
    "approval of a word": (
        {"command": PROGRAM, "approval": "sometimes"},
        "give 'always', 'none' or",
    ),
    "approval of a tool by a word": (
        {"command": PROGRAM, "approval": {"a": "maybe"}},
        r"approval\['a'\]='maybe' cannot be used",
    ),
    "approval of what is not allowed": (
        {"command": PROGRAM, "allowed_tools": ["a"], "approval": {"b": "always"}},
        "names 'b', which is not among allowed_tools",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_declaration_that_cannot_be_meant_is_refused(what: str) -> None:
    arguments, message = REFUSED[what]
    with pytest.raises(ConfigurationError, match=f"MCPServer 'unit': .*{message}"):
        MCPServer("unit", **arguments)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "-a", "a" * 33, None])
def test_names_are_what_models_may_see(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits"):
        MCPServer(name, command=PROGRAM)


def test_a_variable_has_a_name() -> None:
    with pytest.raises(ConfigurationError, match="give the name of a variable"):
        EnvironmentVariable("$TOKEN")


def test_secrets_are_read_when_a_worker_connects_and_shown_nowhere() -> None:
    server = MCPServer(
        "unit",
        url="https://user:pass-word@host/mcp?key=${UNIT_KEY}",
        headers={"Authorization": "Bearer ${UNIT_TOKEN}", "X-Literal": "literal-secret"},
    )
    endpoint = server.endpoint({"UNIT_KEY": "key-secret", "UNIT_TOKEN": "token-secret"})

    assert endpoint.url == "https://user:pass-word@host/mcp?key=key-secret"
    assert endpoint.headers == {"Authorization": "Bearer token-secret", "X-Literal": "literal-secret"}
    assert repr(server) == "<MCPServer 'unit' https://host>"
    assert "secret" not in repr(endpoint)
    told = f"{endpoint.url} {endpoint.headers}"
    assert endpoint.hidden(told) == (
        "https://user:***@host/mcp?*** {'Authorization': '***', 'X-Literal': '***'}"
    )


def test_a_program_is_shown_by_its_name_only() -> None:
    server = MCPServer("unit", command=["npx", "--token", "secret"], env={"KEY": "secret"})
    assert repr(server) == "<MCPServer 'unit' npx>"


def test_a_variable_that_is_not_set_is_named() -> None:
    server = MCPServer("unit", command=PROGRAM, env={"KEY": EnvironmentVariable("UNIT_MISSING")})
    with pytest.raises(ToolServerError, match="UNIT_MISSING, which is not set") as caught:
        server.endpoint({})
    assert not caught.value.retryable


def test_any_tool_of_a_server_is_found_by_its_id() -> None:
    """Only the server knows what there is; what may not be used is not there."""
    MCPServer(
        "found", command=PROGRAM, allowed_tools=["read", "list.all"], approval={"read": "always"}, route="far"
    )
    read = get_workflow("found.read")

    assert isinstance(read, Tool)
    assert (read.id, read.approval, read.route, read.queue_name) == ("found.read", "always", "far", "found.*")
    assert get_workflow("found.list.all") is not None
    assert get_workflow("found.write") is None
    assert get_workflow("found.") is None
    assert get_workflow("other.read") is None


def offered(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "inputSchema": {"type": "object", "$schema": "x"}} for name in names]


def test_names_are_made_fit_for_every_provider() -> None:
    server = MCPServer("unit", command=PROGRAM)
    long = shown_name(server, "x" * 100)

    assert shown_name(server, "files/read.all") == "unit_files_read_all"
    assert len(long) == LONGEST_NAME
    assert long != shown_name(server, "x" * 101)
    assert shown_name(MCPServer("unit", command=PROGRAM, prefix=False), "read") == "read"


def test_the_record_holds_what_the_model_is_told() -> None:
    server = MCPServer("unit", command=PROGRAM, allowed_tools=["read"])
    assert record_of(server, offered("read", "write")) == [
        {
            "tool": "read",
            "name": "unit_read",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
        }
    ]


def test_tools_that_the_model_could_not_tell_apart_are_refused() -> None:
    server = MCPServer("unit", command=PROGRAM)
    with pytest.raises(ToolServerError, match=r"see as \['unit_a_b'\]; name the ones to use"):
        record_of(server, offered("a.b", "a/b"))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", ""])
def test_names_that_no_run_can_have_are_refused(name: str) -> None:
    server = MCPServer("unit", command=PROGRAM)
    with pytest.raises(ToolServerError, match=r"names cannot be used: .*allowed_tools="):
        record_of(server, offered("fine", name))
    assert get_workflow(f"unit.{name}") is None


# -- results

PNG = base64.b64encode(bytes(60)).decode()


def result(*blocks: Any, structured: Any = None) -> CallToolResult:
    return CallToolResult(content=list(blocks), structured_content=structured)


def text(words: str) -> TextContent:
    return TextContent(type="text", text=words)


def test_blocks_are_json_that_a_model_can_read() -> None:
    page = TextResourceContents(uri="file:///a.txt", mime_type="text/plain", text="A")
    image = BlobResourceContents(uri="file:///a.bin", mime_type="application/zip", blob=PNG)
    blocks = [
        text("one"),
        EmbeddedResource(type="resource", resource=page),
        EmbeddedResource(type="resource", resource=image),
        ResourceLink(type="resource_link", name="b", uri="file:///b.txt"),
        AudioContent(type="audio", data=PNG, mime_type="audio/wav"),
    ]
    assert value_of(result(*blocks), limit_bytes=LIMIT) == [
        {"type": "text", "text": "one"},
        {"type": "resource", "uri": "file:///a.txt", "mimeType": "text/plain", "text": "A"},
        {
            "type": "resource",
            "uri": "file:///a.bin",
            "note": "resource of type application/zip, 60 bytes, is not given to the model",
        },
        {"type": "resource_link", "name": "b", "uri": "file:///b.txt"},
        {"type": "audio", "note": "audio of type audio/wav, 60 bytes, is not given to the model"},
    ]


def test_an_image_that_does_not_fit_is_a_note() -> None:
    image = ImageContent(type="image", data=base64.b64encode(bytes(3000)).decode(), mime_type="image/png")
    small = ImageContent(type="image", data=PNG, mime_type="image/png")

    content = value_of(result(text("two"), image, small), limit_bytes=2048)
    note = "image of type image/png, 3000 bytes, left out"

    assert content == ToolContent(
        blocks=[
            TextBlock(text="two"),
            TextBlock(text=f"({note}: larger than POLOS_MAX_VALUE_BYTES allows)"),
            ImageBlock(media_type="image/png", data=PNG),
        ]
    )


def test_structured_content_that_does_not_fit_is_cut_text() -> None:
    value = value_of(result(structured={"long": "x" * 5000}), limit_bytes=2048)
    assert isinstance(value, str)
    assert value.startswith('{"long":"xxx')
    assert value.endswith("… (cut: 5011 bytes are more than POLOS_MAX_VALUE_BYTES)")


def test_a_failure_without_words_has_some() -> None:
    assert error_text_of(result(text("no"), text("way"))) == "no\nway"
    assert error_text_of(result(structured={"code": 7})) == '{"code":7}'
    assert "no more than" in error_text_of(result())

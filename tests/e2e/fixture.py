"""The server that the conformance suite judges, directly and through Holdpoint: every tool, prompt and resource that the
scenarios of `@modelcontextprotocol/conformance` ask for, on the low-level server of PyPI `mcp` 2.x.

It knows no tasks: the tools of the suite's `tasks-*` scenarios run to their end here, and Holdpoint makes tasks of them.

    python fixture.py [PORT]      (a free port without; the port that it listens on is printed as `LISTENING port`)
"""

import asyncio
import base64
import json
import logging
import struct
import sys
import warnings
import zlib

import anyio
import mcp_types as t
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

# Logging, sampling and roots are deprecated since 2026-07-28, and the older era still has to be served.
warnings.filterwarnings("ignore", message=r".*deprecated as of 2026-07-28.*")

NAME = "holdpoint-fixture"
INVALID_PARAMS, INTERNAL_ERROR, MISSING_CAPABILITY = -32602, -32603, -32021


# --- content


def a_png():
    """One red pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def a_wav():
    """A hundredth of a second of silence."""
    samples = bytes(80)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(body)) + body


PNG = base64.b64encode(a_png()).decode()
WAV = base64.b64encode(a_wav()).decode()


def text(words):
    return t.TextContent(type="text", text=words)


def image():
    return t.ImageContent(type="image", data=PNG, mime_type="image/png")


def embedded(uri, words, kind="text/plain"):
    return t.EmbeddedResource(type="resource", resource=t.TextResourceContents(uri=uri, mime_type=kind, text=words))


def done(*content):
    return t.CallToolResult(content=[text(c) if isinstance(c, str) else c for c in content])


# --- questions to the client, the same in both eras: a request of ours once, an `input_required` result now


def form(properties, required=()):
    return {"type": "object", "properties": properties, "required": list(required)}


def ask_user(message, schema):
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def ask_model(words, max_tokens=100):
    said = t.SamplingMessage(role="user", content=text(words))
    return t.CreateMessageRequest(params=t.CreateMessageRequestParams(messages=[said], max_tokens=max_tokens))


def ask_roots():
    return t.ListRootsRequest()


def needed(state=None, **questions):
    return t.InputRequiredResult(input_requests=questions, request_state=state)


def answer_of(params, key):
    """What the user gave under `key`; nothing where it is missing, declined or no such answer."""
    given = (params.input_responses or {}).get(key)
    if isinstance(given, t.ElicitResult) and given.action == "accept":
        return given.content or {}
    return None


STRING = {"type": "string"}


# --- tools

TOOLS = {}


def tool(description, properties=None, required=(), schema=None):
    def put(function):
        schema_ = schema or form(properties or {}, required)
        listed = t.Tool(name=function.__name__, description=description, input_schema=schema_)
        TOOLS[function.__name__] = (listed, function)
        return function

    return put


@tool("Answers with a fixed sentence")
async def test_simple_text(ctx, args, params):
    return done("This is a simple text response for testing.")


@tool("Answers with a picture of one pixel")
async def test_image_content(ctx, args, params):
    return done(image())


@tool("Answers with a short silence")
async def test_audio_content(ctx, args, params):
    return done(t.AudioContent(type="audio", data=WAV, mime_type="audio/wav"))


@tool("Answers with a resource inside of the answer")
async def test_embedded_resource(ctx, args, params):
    return done(embedded("test://embedded-resource", "This is an embedded resource content."))


@tool("Answers with a text, a picture and a resource")
async def test_multiple_content_types(ctx, args, params):
    resource = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return done("Multiple content types test:", image(), resource)


@tool("Always fails")
async def test_error_handling(ctx, args, params):
    raise RuntimeError("This tool intentionally returns an error for testing")


@tool("Logs three times on its way")
async def test_tool_with_logging(ctx, args, params):
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message("info", line, related_request_id=ctx.request_id)
        await anyio.sleep(0.05)
    return done("logged three times")


@tool("Logs, where logging was asked for")
async def test_logging_tool(ctx, args, params):
    await ctx.session.send_log_message("info", "a line of the log", related_request_id=ctx.request_id)
    return done("logged, if asked to")


@tool("Tells of its progress")
async def test_tool_with_progress(ctx, args, params):
    for part in (0, 50, 100):
        await ctx.session.report_progress(part, 100, f"{part} of 100")
        await anyio.sleep(0.05)
    return done("made progress")


@tool("Asks the client's model", {"prompt": STRING}, ["prompt"])
async def test_sampling(ctx, args, params):
    said = t.SamplingMessage(role="user", content=text(args["prompt"]))
    answer = await ctx.session.create_message([said], max_tokens=100, related_request_id=ctx.request_id)
    return done(f"LLM response: {answer.content.text}")


async def elicited(ctx, message, schema):
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return answer.action, json.dumps(answer.content or {})


@tool("Asks the user", {"message": STRING}, ["message"])
async def test_elicitation(ctx, args, params):
    fields = {"username": {**STRING, "description": "User's response"}, "email": {**STRING, "description": "User's email address"}}
    action, content = await elicited(ctx, args["message"], form(fields, fields))
    return done(f"User response: action={action}, content={content}")


@tool("Asks the user with a default for every kind of value")
async def test_elicitation_sep1034_defaults(ctx, args, params):
    fields = {
        "name": {**STRING, "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {**STRING, "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    action, content = await elicited(ctx, "Please look through these values", form(fields))
    return done(f"Elicitation completed: action={action}, content={content}")


@tool("Asks the user to choose, in the five ways that there are")
async def test_elicitation_sep1330_enums(ctx, args, params):
    def titled(*titles):
        return [{"const": f"value{n}", "title": title} for n, title in enumerate(titles, 1)]

    plain = {**STRING, "enum": ["option1", "option2", "option3"]}
    fields = {
        "untitledSingle": plain,
        "titledSingle": {**STRING, "oneOf": titled("First Option", "Second Option", "Third Option")},
        "legacyEnum": {**STRING, "enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]},
        "untitledMulti": {"type": "array", "items": plain},
        "titledMulti": {"type": "array", "items": {"anyOf": titled("First Choice", "Second Choice", "Third Choice")}},
    }
    action, content = await elicited(ctx, "Please choose", form(fields))
    return done(f"Elicitation completed: action={action}, content={content}")


@tool("Closes its stream before it has answered: the client has to come back for the answer")
async def test_reconnection(ctx, args, params):
    if ctx.close_sse_stream:
        await ctx.close_sse_stream()
    await anyio.sleep(0.1)
    return done("answered after the stream was closed")


@tool("Needs the client's model, and says so to a client that has none")
async def test_missing_capability(ctx, args, params):
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        raise MCPError(MISSING_CAPABILITY, "this tool needs `sampling`", {"requiredCapabilities": {"sampling": {}}})
    return done("the client has a model")


@tool("Asks the user after it has sent something on the stream of the answer")
async def test_streaming_elicitation(ctx, args, params):
    if answer_of(params, "user_name") is not None:
        return done("asked and answered")
    # A progress that nobody asked for would be a mistake; a log line goes out only where it was asked for.
    await ctx.session.report_progress(1, 2)
    await ctx.session.send_log_message("info", "about to ask", related_request_id=ctx.request_id)
    return needed(user_name=ask_user("What is your name?", form({"name": STRING}, ["name"])))


@tool("Tells all who listen that the list of tools changed")
async def test_trigger_tool_change(ctx, args, params):
    await BUS.publish(ToolsListChanged())
    return done("told")


@tool("Tells all who listen that the list of prompts changed")
async def test_trigger_prompt_change(ctx, args, params):
    await BUS.publish(PromptsListChanged())
    return done("told")


@tool("Has parameters that travel as headers too", {"region": {**STRING, "x-mcp-header": "Region"}, "query": STRING}, ["region"])
async def test_custom_header(ctx, args, params):
    return done(f"region {args['region']}")


CONTACT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {**STRING, "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@tool("Has a schema with all that JSON Schema 2020-12 knows", schema=CONTACT)
async def json_schema_2020_12_tool(ctx, args, params):
    return done(json.dumps(args))


# --- tools that need input before they answer (2026-07-28)

NAME_FORM = form({"name": STRING}, ["name"])
OK_FORM = form({"ok": {"type": "boolean"}}, ["ok"])


@tool("Greets by name, and asks for the name")
async def test_input_required_result_elicitation(ctx, args, params):
    answer = answer_of(params, "user_name")
    if answer is None or "name" not in answer:
        return needed(user_name=ask_user("What is your name?", NAME_FORM))
    return done(f"Hello, {answer['name']}!")


@tool("Asks the client's model for a capital")
async def test_input_required_result_sampling(ctx, args, params):
    answer = (params.input_responses or {}).get("capital_question")
    if not isinstance(answer, (t.CreateMessageResult, t.CreateMessageResultWithTools)):
        return needed(capital_question=ask_model("What is the capital of France?"))
    return done(f"The model said: {answer.content.text}")


@tool("Asks for the client's roots")
async def test_input_required_result_list_roots(ctx, args, params):
    answer = (params.input_responses or {}).get("client_roots")
    if not isinstance(answer, t.ListRootsResult):
        return needed(client_roots=ask_roots())
    return done("Roots: " + ", ".join(str(root.uri) for root in answer.roots))


@tool("Asks for a confirmation, and gives a state along")
async def test_input_required_result_request_state(ctx, args, params):
    if answer_of(params, "confirm") is None or params.request_state != "asked":
        return needed("asked", confirm=ask_user("Please confirm", OK_FORM))
    return done("state-ok")


@tool("Asks for a confirmation, and refuses a state that was tampered with")
async def test_input_required_result_tampered_state(ctx, args, params):
    # What was tampered with never comes here: the SDK seals the state, and refuses a broken seal.
    return await test_input_required_result_request_state(ctx, args, params)


@tool("Asks the user, the model and for the roots at once")
async def test_input_required_result_multiple_inputs(ctx, args, params):
    given = params.input_responses or {}
    if params.request_state != "three" or not {"user_name", "greeting", "client_roots"} <= set(given):
        questions = {"user_name": ask_user("What is your name?", NAME_FORM), "greeting": ask_model("Generate a greeting", 50), "client_roots": ask_roots()}
        return needed("three", **questions)
    return done("all three were answered")


@tool("Asks twice, one thing after the other")
async def test_input_required_result_multi_round(ctx, args, params):
    state = json.loads(params.request_state or "{}")
    if "name" not in state:
        answer = answer_of(params, "step1") if params.request_state else None
        if answer is None:
            return needed("{}", step1=ask_user("Step 1: What is your name?", NAME_FORM))
        state = {"name": answer.get("name")}
        color = form({"color": STRING}, ["color"])
        return needed(json.dumps(state), step2=ask_user("Step 2: What is your favorite color?", color))
    answer = answer_of(params, "step2")
    if answer is None:
        return needed(params.request_state, step2=ask_user("Step 2: What is your favorite color?", form({"color": STRING})))
    return done(f"{state['name']} likes {answer.get('color')}")


@tool("Asks only for what the client can do")
async def test_input_required_result_capabilities(ctx, args, params):
    if params.input_responses:
        return done("answered")
    capabilities = ctx.session.client_capabilities or t.ClientCapabilities()
    questions = {}
    if capabilities.elicitation is not None:
        questions["user_name"] = ask_user("What is your name?", NAME_FORM)
    if capabilities.sampling is not None:
        questions["greeting"] = ask_model("Generate a greeting", 50)
    return needed(**questions) if questions else done("nothing can be asked of this client")


# --- tools of the scenarios about tasks; here they are tools like others


@tool("Greets", {"name": STRING}, ["name"])
async def greet(ctx, args, params):
    return done(f"Hello, {args['name']}!")


@tool("Takes its time", {"seconds": {"type": "number"}, "label": STRING})
async def slow_compute(ctx, args, params):
    # The suite asks for a minute where it means to cancel; nobody needs to wait for that.
    await anyio.sleep(min(args.get("seconds", 1), 1))
    return done(f"computed {args.get('label', 'something')} in {args.get('seconds', 1)} s")


@tool("Works for a while, and fails")
async def failing_job(ctx, args, params):
    await anyio.sleep(1)
    raise RuntimeError("this job always fails")


@tool("Ends in an error of the protocol")
async def protocol_error_job(ctx, args, params):
    raise MCPError(INTERNAL_ERROR, "this job ends in a protocol error")


@tool("Deletes after the user agreed", {"filename": STRING})
async def confirm_delete(ctx, args, params):
    answer = answer_of(params, "confirm")
    if answer is None:
        schema = form({"confirm": {"type": "boolean"}}, ["confirm"])
        return needed(confirm=ask_user(f"Delete {args.get('filename', 'the file')}?", schema))
    return done("deleted" if answer.get("confirm") else "kept")


@tool("Asks the user two things at once")
async def multi_input(ctx, args, params):
    first, second = answer_of(params, "first"), answer_of(params, "second")
    if first is None or second is None:
        return needed(first=ask_user("The first?", NAME_FORM), second=ask_user("The second?", NAME_FORM))
    return done(f"{first} and {second}")


@tool("Asks for a name, then works")
async def test_tool_with_task(ctx, args, params):
    return await test_input_required_result_elicitation(ctx, args, params)


async def list_tools(ctx, params):
    return t.ListToolsResult(tools=[listed for listed, _ in TOOLS.values()])


async def call_tool(ctx, params):
    _, function = TOOLS.get(params.name, (None, None))
    if function is None:
        raise MCPError(INVALID_PARAMS, f"no tool `{params.name}`")
    try:
        return await function(ctx, params.arguments or {}, params)
    except MCPError:
        raise
    except Exception as e:  # a tool that fails says so to the model
        return t.CallToolResult(content=[text(str(e))], is_error=True)


# --- prompts

PROMPTS = {}


def prompt(description, *arguments):
    def put(function):
        names = [t.PromptArgument(name=name, description=about, required=True) for name, about in arguments]
        PROMPTS[function.__name__] = (t.Prompt(name=function.__name__, description=description, arguments=names), function)
        return function

    return put


def says(*content):
    return t.GetPromptResult(messages=[t.PromptMessage(role="user", content=c) for c in content])


@prompt("A prompt without arguments")
def test_simple_prompt(args, params):
    return says(text("This is a simple prompt for testing."))


@prompt("A prompt with two arguments", ("arg1", "First test argument"), ("arg2", "Second test argument"))
def test_prompt_with_arguments(args, params):
    return says(text(f"Prompt with arguments: arg1='{args['arg1']}', arg2='{args['arg2']}'"))


@prompt("A prompt with a resource inside", ("resourceUri", "URI of the resource to embed"))
def test_prompt_with_embedded_resource(args, params):
    resource = embedded(args["resourceUri"], "Embedded resource content for testing.")
    return says(resource, text("Please process the embedded resource above."))


@prompt("A prompt with a picture")
def test_prompt_with_image(args, params):
    return says(image(), text("Please analyze the image above."))


@prompt("A prompt that asks the user first")
def test_input_required_result_prompt(args, params):
    answer = answer_of(params, "user_context")
    if answer is None:
        return needed(user_context=ask_user("What context should the prompt use?", form({"context": STRING}, ["context"])))
    return says(text(f"The context is {answer.get('context')}."))


async def list_prompts(ctx, params):
    return t.ListPromptsResult(prompts=[listed for listed, _ in PROMPTS.values()])


async def get_prompt(ctx, params):
    listed, function = PROMPTS.get(params.name, (None, None))
    if function is None:
        raise MCPError(INVALID_PARAMS, f"no prompt `{params.name}`")
    args = params.arguments or {}
    missing = [a.name for a in listed.arguments or () if a.name not in args]
    if missing:
        raise MCPError(INVALID_PARAMS, f"missing argument `{missing[0]}`")
    return function(args, params)


async def complete(ctx, params):
    words = ["paris", "park", "party"]
    values = [word for word in words if word.startswith(params.argument.value)]
    return t.CompleteResult(completion=t.Completion(values=values, total=len(values), has_more=False))


# --- resources

TEMPLATE = ("test://template/", "/data")


async def list_resources(ctx, params):
    def one(uri, name, description, kind):
        return t.Resource(uri=uri, name=name, description=description, mime_type=kind)

    return t.ListResourcesResult(
        resources=[
            one("test://static-text", "static-text", "A fixed text", "text/plain"),
            one("test://static-binary", "static-binary", "A fixed picture", "image/png"),
            one("test://watched-resource", "watched-resource", "A text to subscribe to", "text/plain"),
        ]
    )


async def list_templates(ctx, params):
    template = t.ResourceTemplate(uri_template="{id}".join(TEMPLATE), name="template", description="Data by id", mime_type="application/json")
    return t.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(ctx, params):
    uri = str(params.uri)
    fixed = {
        "test://static-text": t.TextResourceContents(uri=uri, mime_type="text/plain", text="This is the content of the static text resource."),
        "test://static-binary": t.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG),
        "test://watched-resource": t.TextResourceContents(uri=uri, mime_type="text/plain", text="Somebody watches this."),
    }
    if uri in fixed:
        return t.ReadResourceResult(contents=[fixed[uri]])
    before, after = TEMPLATE
    key = uri.removeprefix(before).removesuffix(after)
    if uri == before + key + after and key and "/" not in key:
        data = json.dumps({"id": key, "templateTest": True, "data": f"Data for ID: {key}"})
        return t.ReadResourceResult(contents=[t.TextResourceContents(uri=uri, mime_type="application/json", text=data)])
    raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})


async def nothing(ctx, params):
    return t.EmptyResult()


# --- the server


class Events(EventStore):
    """All events of all streams, so that a client that lost its stream can go on where it was."""

    def __init__(self):
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id, send_callback):
        seen = int(last_event_id)
        if not 0 < seen <= len(self.events):
            return None
        stream = self.events[seen - 1][0]
        for number, (stream_id, message) in enumerate(self.events[seen:], seen + 1):
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


BUS = InMemorySubscriptionBus()


def server():
    made = Server(
        NAME,
        version="1.0.0",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda name: TOOLS[name][0].input_schema if name in TOOLS else None,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_set_logging_level=nothing,
        on_subscriptions_listen=ListenHandler(BUS),
    )
    made.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return made


async def serve(port=0, listening=lambda port: None):
    """Serves on loopback; the SDK then checks `Host` and `Origin` by itself."""
    app = server().streamable_http_app(event_store=Events(), retry_interval=100, host="127.0.0.1")
    http = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1))
    sockets = [http.config.bind_socket()]
    listening(sockets[0].getsockname()[1])
    await http.serve(sockets=sockets)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0, lambda port: print(f"LISTENING {port}", flush=True)))

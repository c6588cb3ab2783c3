"""The door through which every request enters: credentials, request log, triggers, and who answers it.

EC2 actions that our EC2 knows go there; everything else goes to MiniStack. Nothing unsigned passes, and none of
MiniStack's administration paths, which would hand out root credentials to anything on this machine.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs, quote

from spotrelay.localcloud import calls, emulator
from spotrelay.localcloud.emulator import Caller, Refusal, Wire
from spotrelay.localcloud.refusals import Answer, refuse
from spotrelay.localcloud.requestlog import RequestLog
from spotrelay.localcloud.triggers import Trigger, Triggers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Receive, Send], Awaitable[None]]

CONTROL_PREFIX = "/_spotrelay/control/"
CONTROL_HEADER = "x-spotrelay-control"
_CLOSED_PATHS = ("/_ministack", "/_localstack", "/_aws", "/latest/", "/health", "/oauth2", "/.well-known")
_HOLD_POLL_S = 0.03
_SETTLE_S = 1.0


class Machines(Protocol):
    """What the door may do to instances, and know of them."""

    def kill_group(self, instance_id: str) -> None:
        """SIGKILL every process of an instance, without telling EC2 beforehand."""

    def stop_group(self, instance_id: str) -> None:
        """SIGSTOP every process of an instance."""

    def condition(self, instance_id: str) -> str:
        """How its processes are: running, stopped or gone."""

    def instance_of(self, access_key: str) -> str | None:
        """The instance to which an access key was given."""


class Ec2Api(Protocol):
    """The EC2 actions that are ours."""

    ACTIONS: frozenset[str]

    def handle(self, action: str, params: dict[str, str], caller: str, region: str) -> tuple[int, bytes]:
        """Answer one request of the Query protocol."""


@dataclass
class _Reply:
    """A reply on its way out, counted. Its end is kept back until the log has it; all of it when it is to be held."""

    send: Send
    keep_all: bool
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    text: bytes = b""
    kept: list[Message] = field(default_factory=list)

    async def take(self, message: Message) -> None:
        ends = False
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in message.get("headers", [])}
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            self.size += len(body)
            ends = not message.get("more_body", False)
            if (self.status or 0) >= 400:
                self.text += body
        if self.keep_all or ends:
            self.kept.append(message)
        else:
            await self.send(message)

    async def release(self) -> None:
        for message in self.kept:
            await self.send(message)


class Front:
    """The ASGI application that the cloud's one port serves."""

    def __init__(
        self,
        emulated: ASGIApp,
        ec2: Ec2Api,
        machines: Machines,
        triggers: Triggers,
        log: RequestLog,
        control: Callable[[str, dict[str, Any]], Any],
        token: str,
    ) -> None:
        self._emulated = emulated
        self._ec2 = ec2
        self._machines = machines
        self._triggers = triggers
        self._log = log
        self._control = control
        self._token = token

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection event of the ASGI protocol."""
        if scope["type"] == "lifespan":
            await self._emulated(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(CONTROL_PREFIX):
            await self._serve_control(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        arrived, mono = time.time(), time.monotonic()
        body = await _whole_body(receive)
        wire = _wire(scope, body or b"")
        entry = self._describe(wire)
        entry.update(at=arrived, mono=mono, status=None, error="", bytes_out=0, held_s=0.0, trigger=None)
        reply = None
        try:
            if body is None:
                entry["error"] = "ClientGone"
            else:
                reply = await self._apply_watched(scope, wire, entry, receive, send)
        finally:
            entry["took_s"] = round(time.monotonic() - mono, 6)
            self._log.write(entry)
        if reply is not None:
            await reply.release()

    async def _apply_watched(
        self, scope: Any, wire: Wire, entry: dict[str, Any], receive: Receive, send: Send
    ) -> _Reply | None:
        gone = _Disconnect(receive)
        try:
            return await self._apply(scope, wire, entry, gone, send)
        finally:
            gone.stop_watching()

    async def _apply(
        self, scope: Any, wire: Wire, entry: dict[str, Any], gone: _Disconnect, send: Send
    ) -> _Reply | None:
        """Have a request answered, with what a trigger makes of it; what is left to send, None when nobody listens."""
        trigger = self._triggers.fire(entry)
        entry["trigger"] = trigger.number if trigger else None
        if trigger and trigger.moment == "before" and not await self._act(trigger, entry, gone):
            entry["error"] = "NeverApplied"
            return None
        reply = _Reply(send, keep_all=trigger is not None and trigger.moment == "after")
        await self._answer(scope, wire, entry, gone, reply)
        entry["status"], entry["bytes_out"] = reply.status, reply.size
        if (reply.status or 0) >= 400:
            entry["error"] = calls.error_code(reply.text, reply.headers)
        if trigger and trigger.moment == "after" and not await self._act(trigger, entry, gone):
            entry["error"] = entry["error"] or "ReplyLost"
            return None
        return reply

    async def _answer(self, scope: Any, wire: Wire, entry: dict[str, Any], gone: _Disconnect, reply: _Reply) -> None:
        """Let whoever is responsible answer: the door itself, our EC2, or MiniStack."""
        answer = self._refusal(wire, entry)
        if answer is not None:
            entry["caller"] = ""
        elif entry["service"] == "ec2" and entry["action"] in self._ec2.ACTIONS:
            answer = await self._ask_ec2(wire, entry)
        if answer is not None:
            await _say(answer, reply.take)
        else:
            await self._emulated({**scope, "scheme": "https"}, _replay(wire.body, gone), reply.take)

    async def _act(self, trigger: Trigger, entry: dict[str, Any], gone: _Disconnect) -> bool:
        """Do what a trigger says; False when the sender of the request did not survive it.

        A request of the machine that was stopped is held as long as it is; one of somebody else goes on at once.
        """
        sender = entry["instance_id"]
        victim = trigger.victim or sender
        if victim is None:
            return True
        started = time.monotonic()
        deed = self._machines.kill_group if trigger.deed == "kill-group" else self._machines.stop_group
        await asyncio.to_thread(deed, victim)
        survived = victim != sender or (trigger.deed == "stop-group" and await self._hold(victim, gone))
        entry["held_s"] = round(entry["held_s"] + time.monotonic() - started, 6)
        return survived

    async def _hold(self, victim: str, gone: _Disconnect) -> bool:
        """Wait until a stopped machine is woken (True) or dead (False)."""
        settled = time.monotonic() + _SETTLE_S
        while True:
            condition = await asyncio.to_thread(self._machines.condition, victim)
            if condition == "gone" or gone.seen():
                return False
            if condition == "running" and time.monotonic() > settled:
                return True
            if condition == "stopped":
                settled = 0.0
            await asyncio.sleep(_HOLD_POLL_S)

    def _refusal(self, wire: Wire, entry: dict[str, Any]) -> Answer | None:
        """An answer to a request that may not enter; None lets it in (MiniStack still checks its signature)."""
        key = entry["access_key"]
        request_id = str(uuid.uuid4())
        if not key:
            text = "Request is missing Authentication Token: this cloud serves signed requests only"
            return refuse(entry["service"], "MissingAuthenticationToken", text, request_id)
        if wire.path.startswith(_CLOSED_PATHS):
            return refuse(entry["service"], "AccessDenied", f"{wire.path} is closed in this cloud", request_id)
        if not emulator.is_root_key(key):
            return None
        checked = emulator.check_root(wire)
        return refuse(entry["service"], checked.code, checked.message, request_id) if checked else None

    async def _ask_ec2(self, wire: Wire, entry: dict[str, Any]) -> Answer:
        request_id = str(uuid.uuid4())
        caller: Caller | Refusal = emulator.authenticate(wire)
        if isinstance(caller, Refusal):
            return refuse("ec2", caller.code, caller.message, request_id)
        status, xml = await asyncio.to_thread(
            self._ec2.handle, entry["action"], calls.form_of(wire.body), caller.arn, entry["region"]
        )
        return status, {"content-type": "text/xml;charset=UTF-8", "x-amzn-requestid": request_id}, xml

    def _describe(self, wire: Wire) -> dict[str, Any]:
        service = emulator.service_of(wire)
        action, target = _asked(service, wire)
        key = emulator.access_key_of(wire)
        return {
            "caller": emulator.caller_of(key),
            "access_key": key,
            "instance_id": self._machines.instance_of(key),
            "service": service,
            "action": action,
            "region": emulator.region_of(wire),
            "method": wire.method,
            "path": wire.path,
            "target": target,
            "bytes": len(wire.body),
        }

    async def _serve_control(self, scope: Any, receive: Receive, send: Send) -> None:
        body = await _whole_body(receive)
        headers = _headers(scope)
        if headers.get(CONTROL_HEADER) != self._token or body is None:
            await _say((403, {"content-type": "application/json"}, b'{"error":"the control token is wrong"}'), send)
            return
        name = scope["path"].removeprefix(CONTROL_PREFIX)
        try:
            result = await asyncio.to_thread(self._control, name, json.loads(body or b"{}"))
            status, text = 200, json.dumps({"result": result}).encode()
        except Exception as why:  # noqa: BLE001  # told to whoever asked, who raises it there
            status, text = 400, json.dumps({"error": str(why), "kind": type(why).__name__}).encode()
        await _say((status, {"content-type": "application/json"}, text), send)


class _Disconnect:
    """Notices that the client of a request has gone, without taking messages from whoever else listens."""

    def __init__(self, receive: Receive) -> None:
        self._task = asyncio.ensure_future(receive())

    def seen(self) -> bool:
        """Whether the client has closed the connection."""
        return bool(self._task.done())

    async def wait(self) -> Message:
        """The disconnect, once it has happened."""
        return await asyncio.shield(self._task)

    def stop_watching(self) -> None:
        """The request is answered; nobody asks any more."""
        self._task.cancel()


def _asked(service: str, wire: Wire) -> tuple[str, str]:
    """Action and target of a request."""
    if service == "s3":
        return calls.s3_action(wire.method, wire.path, wire.query), wire.path.lstrip("/")
    json_target = wire.headers.get("x-amz-target", "")
    if json_target:
        action = calls.json_action(json_target)
        if service == "dynamodb":
            return action, calls.dynamodb_target(wire.body, emulator.table_key)
        return action, calls.generic_target(service, action, wire.body, {})
    form = calls.form_of(wire.body)
    if "Action" in form:
        return form["Action"], calls.generic_target(service, form["Action"], b"", form)
    return emulator.rest_action(service, wire), wire.path


async def _whole_body(receive: Receive) -> bytes | None:
    """The request's body; None when the client went away in the middle of it."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, gone: _Disconnect) -> Receive:
    """A `receive` that gives a body that was already read, then the disconnect."""
    unread = [body]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await gone.wait()

    return receive


async def _say(answer: Answer, send: Send) -> None:
    status, headers, body = answer
    named = [(k.encode(), v.encode()) for k, v in {**headers, "content-length": str(len(body))}.items()]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


def _headers(scope: Any) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        joined[key] = f"{joined[key]},{text}" if key in joined else text
    return joined


def _wire(scope: Any, body: bytes) -> Wire:
    raw_path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    query = parse_qs(scope.get("query_string", b"").decode(), keep_blank_values=True)
    return Wire(scope["method"], scope["path"], raw_path, query, _headers(scope), list(scope["headers"]), body)

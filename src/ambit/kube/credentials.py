"""How a client proves who it is: fixed or rotating bearer tokens, basic passwords, exec plugins.

Client certificates belong to the TLS context and are loaded in `ambit.kube.kubeconfig`.
"""

import asyncio
import os
import time
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ambit.core.errors import BadInput, EnvironmentProblem

TOKEN_REREAD = 30.0
"""Seconds after which a projected token file is read again (kubelet rotates it long before it expires)."""
_EXPIRY_MARGIN = 30.0


class Credentials(Protocol):
    """Gives the Authorization header of the next request."""

    async def header(self) -> str | None:
        """The header's value, or None for none."""
        ...

    def forget(self) -> None:
        """The server refused the last header: fetch a new one next time."""
        ...


class Fixed:
    """A header that never changes; None when TLS alone proves who we are."""

    def __init__(self, value: str | None = None) -> None:
        self._value = value

    @classmethod
    def token(cls, token: str) -> "Fixed":
        return cls(f"Bearer {token}")

    @classmethod
    def basic(cls, user: str, password: str) -> "Fixed":
        return cls("Basic " + b64encode(f"{user}:{password}".encode()).decode())

    async def header(self) -> str | None:
        return self._value

    def forget(self) -> None:
        return


class TokenFile:
    """A bearer token that someone else rotates in a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._value = ""
        self._read_at = float("-inf")

    async def header(self) -> str | None:
        now = time.monotonic()
        if now - self._read_at >= TOKEN_REREAD:
            try:
                self._value = f"Bearer {Path(self._path).read_text(encoding='ascii').strip()}"
            except OSError as error:
                if not self._value:
                    raise EnvironmentProblem(f"cannot read the token file {self._path}: {error}") from error
            self._read_at = now
        return self._value

    def forget(self) -> None:
        self._read_at = float("-inf")


class ExecPlugin:
    """A credential plugin of a kubeconfig's `exec` entry (client.authentication.k8s.io)."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self._entry = entry
        self._value: str | None = None
        self._expires = float("-inf")

    async def header(self) -> str | None:
        if time.time() >= self._expires - _EXPIRY_MARGIN:
            await self._run()
        return self._value

    def forget(self) -> None:
        self._expires = float("-inf")

    async def _run(self) -> None:
        command = str(self._entry.get("command", ""))
        api_version = self._entry.get("apiVersion", "client.authentication.k8s.io/v1")
        request = {"apiVersion": api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        environment = dict(os.environ, KUBERNETES_EXEC_INFO=msgspec.json.encode(request).decode())
        environment |= {str(item["name"]): str(item["value"]) for item in self._entry.get("env") or ()}
        try:
            process = await asyncio.create_subprocess_exec(
                command,
                *map(str, self._entry.get("args") or ()),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            hint = str(self._entry.get("installHint", "")).strip()
            raise EnvironmentProblem(f"cannot run the credential plugin {command}: {error}", hint) from error
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise EnvironmentProblem(f"the credential plugin {command} exited with {process.returncode}")
        try:
            status = msgspec.json.decode(output)["status"]
            token = status.get("token")
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise EnvironmentProblem(f"the credential plugin {command} printed no ExecCredential") from error
        if not token:
            raise BadInput(
                f"the credential plugin {command} gives a client certificate, not a token",
                "put the certificate into the kubeconfig as client-certificate-data and client-key-data",
            )
        self._value = f"Bearer {token}"
        expires = status.get("expirationTimestamp")
        self._expires = datetime.fromisoformat(str(expires)).timestamp() if expires else float("inf")

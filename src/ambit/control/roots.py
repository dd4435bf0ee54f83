"""Where the authority's key lives: a plugged-in `cacerts` Secret, else our own `istio-ca-secret`, made once.

A Secret that is there but unusable stops the control plane: a new root in its place would cut the mesh in two.
"""

import base64
import binascii
import datetime as dt
import logging
from collections.abc import Callable, Mapping

from ambit.ca.authority import Authority, BadAuthority
from ambit.control.settings import Settings
from ambit.core.names import ROOT_KEY_SECRET
from ambit.daemon.logs import event
from ambit.kube.client import Client, Object
from ambit.kube.errors import AlreadyExists, NotFound
from ambit.kube.resource import SECRETS

log = logging.getLogger("ambit.control.roots")

PLUGGED_IN = "cacerts"
OWN = ROOT_KEY_SECRET
SECRET_TYPE = "istio.io/ca-root"  # noqa: S105 - the type of a Secret, not a secret
CERTIFICATE, KEY, ROOTS, CHAIN = "ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"


async def load_authority(client: Client, settings: Settings, wall: Callable[[], dt.datetime]) -> Authority:
    """The mesh's authority; made and stored if there is none yet.

    Raises BadAuthority for an unusable Secret, ApiError and Unreachable of the API server.
    """
    namespace = settings.system_namespace
    for name in (PLUGGED_IN, OWN):
        stored = await _read(client, namespace, name)
        if stored is not None:
            return _loaded(stored, namespace, name)
    authority = Authority.create(settings.trust_domain, wall())
    secret: Object = {
        "metadata": {"name": OWN, "namespace": namespace},
        "type": SECRET_TYPE,
        "data": {
            CERTIFICATE: _encode(authority.certificate),
            KEY: _encode(authority.key),
            ROOTS: _encode(authority.roots),
        },
    }
    try:
        await client.create(SECRETS, secret, namespace)
    except AlreadyExists:
        # Another replica was faster: its root is the mesh's.
        stored = await _read(client, namespace, OWN)
        if stored is None:
            raise
        return _loaded(stored, namespace, OWN)
    event(log, logging.INFO, "made a new root", secret=f"{namespace}/{OWN}", expires=authority.not_after)
    return authority


async def _read(client: Client, namespace: str, name: str) -> Mapping[str, str] | None:
    try:
        secret = await client.get(SECRETS, name, namespace)
    except NotFound:
        return None
    try:
        return {
            key: base64.b64decode(value, validate=True).decode()
            for key, value in (secret.get("data") or {}).items()
            if key.endswith(".pem")
        }
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadAuthority(f"Secret {namespace}/{name} is damaged: {error}") from None


def _loaded(stored: Mapping[str, str], namespace: str, name: str) -> Authority:
    missing = [key for key in (CERTIFICATE, KEY) if not stored.get(key)]
    if missing:
        raise BadAuthority(
            f"Secret {namespace}/{name} lacks {' and '.join(missing)}",
            "restore it from a backup; deleting it makes a new root, which no running workload trusts",
        )
    try:
        authority = Authority.from_pem(
            stored[CERTIFICATE], stored[KEY], stored.get(ROOTS, ""), stored.get(CHAIN, "")
        )
    except BadAuthority as problem:
        raise BadAuthority(f"Secret {namespace}/{name}: {problem.message}", problem.hint) from None
    event(log, logging.INFO, "loaded the root", secret=f"{namespace}/{name}", expires=authority.not_after)
    return authority


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

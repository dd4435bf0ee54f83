"""Where the authority's key lives: a plugged-in `cacerts` Secret, else our own `istio-ca-secret`, made once.

What they hold is what the operator wants. What the mesh does now, which follows step by step (`ambit.ca.trust`), is
kept in a Secret of our own, `ambit-ca`: it holds the former key until nobody needs it any more.

A Secret that is there but unusable stops a control plane that knows nothing else: a new root in its place would cut the
mesh in two.
"""

import base64
import binascii
import datetime as dt
import logging
from collections.abc import Callable, Mapping

import msgspec

from ambit.ca import bundle
from ambit.ca.authority import Authority, AuthorityFiles, BadAuthority
from ambit.ca.trust import Phase, TrustState, Wanted
from ambit.control.settings import Settings
from ambit.core.names import AUTHORITY_SECRET, CRL_KEY, ROOT_KEY_SECRET
from ambit.daemon.logs import event
from ambit.kube.client import Client, Object
from ambit.kube.errors import AlreadyExists, NotFound
from ambit.kube.resource import SECRETS
from ambit.objects.meta import ObjectMeta

log = logging.getLogger("ambit.control.roots")

PLUGGED_IN = "cacerts"
OWN = ROOT_KEY_SECRET
STATE = AUTHORITY_SECRET
SECRET_TYPE = "istio.io/ca-root"  # noqa: S105 - the type of a Secret, not a secret
STATE_TYPE = "ambit.io/authority"
CERTIFICATE, KEY, ROOTS, CHAIN = "ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"
TRUSTED, PHASE, SINCE, REVISION = "trusted.pem", "phase", "since", "revision"


class StoredSecret(msgspec.Struct, frozen=True):
    """A Secret, as far as we read it."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None


def decode_secret(value: bytes) -> StoredSecret:
    return msgspec.json.decode(value, type=StoredSecret)


def wanted_of(secret: StoredSecret) -> Wanted:
    """What a Secret of the operator asks for. Raises BadAuthority."""
    texts = _texts(secret)
    wanted = Wanted(_files(texts, secret), texts.get(CRL_KEY, ""))
    try:
        wanted.files.load()
    except BadAuthority as problem:
        raise BadAuthority(f"Secret {_named(secret)}: {problem.message}", problem.hint) from None
    return wanted


def describe_damage(secret: StoredSecret) -> str:
    """The blocks of a Secret's roots that cannot be read, for a log; empty without any."""
    try:
        return bundle.describe_damage(_texts(secret).get(ROOTS, ""))
    except BadAuthority:
        return ""


def signs_with(secret: StoredSecret, active: AuthorityFiles) -> bool:
    """Whether a Secret holds this signer."""
    try:
        return _files(_texts(secret), secret).same_signer(active)
    except BadAuthority:
        return False


def state_of(secret: StoredSecret) -> TrustState:
    """What the mesh does now, as we wrote it. Raises BadAuthority when somebody damaged it."""
    texts = _texts(secret)
    try:
        state = TrustState(
            _files(texts, secret),
            texts[TRUSTED],
            texts.get(CRL_KEY, ""),
            Phase(texts[PHASE]),
            dt.datetime.fromisoformat(texts[SINCE]),
            int(texts.get(REVISION, "0")),
        )
        state.active.load()
    except (KeyError, ValueError) as problem:
        raise BadAuthority(f"Secret {_named(secret)} is damaged: {problem!r}") from None
    return state


def state_secret(state: TrustState, namespace: str) -> Object:
    """The Secret of a state."""
    active = state.active
    texts = {
        CERTIFICATE: active.certificate,
        KEY: active.key,
        ROOTS: active.roots,
        CHAIN: active.chain,
        TRUSTED: state.roots,
        CRL_KEY: state.revoked,
        PHASE: state.phase.value,
        SINCE: state.since.isoformat(),
        REVISION: str(state.revision),
    }
    return {
        "metadata": {"name": STATE, "namespace": namespace},
        "type": STATE_TYPE,
        "data": {key: _encode(text) for key, text in texts.items()},
    }


async def load_state(client: Client, settings: Settings, wall: Callable[[], dt.datetime]) -> TrustState:
    """What the mesh does now; begun with what the operator gave, or a new root, when it is new.

    Raises BadAuthority for an unusable Secret, ApiError and Unreachable of the API server.
    """
    namespace = settings.system_namespace
    stored = await _read(client, namespace, STATE)
    if stored is None:
        state = TrustState.begin((await _first(client, settings, wall)).files, wall())
        try:
            await client.create(SECRETS, state_secret(state, namespace), namespace)
        except AlreadyExists:
            # Another replica was faster: what it read is the mesh's.
            stored = await _read(client, namespace, STATE)
        else:
            return state
    if stored is None:
        raise BadAuthority(f"Secret {namespace}/{STATE} comes and goes")
    state = state_of(stored)
    event(log, logging.INFO, "loaded the authority", phase=state.phase, expires=state.active.load().not_after)
    return state


async def _first(client: Client, settings: Settings, wall: Callable[[], dt.datetime]) -> Wanted:
    namespace = settings.system_namespace
    for name in (PLUGGED_IN, OWN):
        stored = await _read(client, namespace, name)
        if stored is not None:
            return wanted_of(stored)
    authority = Authority.create(settings.trust_domain, wall())
    try:
        await client.create(SECRETS, own_secret(authority, namespace), namespace)
    except AlreadyExists:
        # Another replica was faster: its root is the mesh's.
        stored = await _read(client, namespace, OWN)
        if stored is None:
            raise
        return wanted_of(stored)
    event(log, logging.INFO, "made a new root", secret=f"{namespace}/{OWN}", expires=authority.not_after)
    return Wanted(AuthorityFiles(authority.certificate, authority.key, authority.roots))


def own_secret(authority: Authority, namespace: str) -> Object:
    """The Secret of a root that we made."""
    return {
        "metadata": {"name": OWN, "namespace": namespace},
        "type": SECRET_TYPE,
        "data": {
            CERTIFICATE: _encode(authority.certificate),
            KEY: _encode(authority.key),
            ROOTS: _encode(authority.roots),
        },
    }


async def _read(client: Client, namespace: str, name: str) -> StoredSecret | None:
    try:
        return msgspec.convert(await client.get(SECRETS, name, namespace), StoredSecret)
    except NotFound:
        return None


def _texts(secret: StoredSecret) -> Mapping[str, str]:
    try:
        return {
            key: base64.b64decode(value, validate=True).decode()
            for key, value in (secret.data or {}).items()
            if key.endswith(".pem") or key in (PHASE, SINCE, REVISION)
        }
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadAuthority(f"Secret {_named(secret)} is damaged: {error}") from None


def _files(texts: Mapping[str, str], secret: StoredSecret) -> AuthorityFiles:
    missing = [key for key in (CERTIFICATE, KEY) if not texts.get(key)]
    if missing:
        plugged_in = secret.metadata.name == PLUGGED_IN
        raise BadAuthority(
            f"Secret {_named(secret)} lacks {' and '.join(missing)}",
            f"put {'it' if len(missing) == 1 else 'them'} there: docs/certificates.md"
            if plugged_in
            else "restore it from a backup; do not delete it",
        )
    return AuthorityFiles(texts[CERTIFICATE], texts[KEY], texts.get(ROOTS, ""), texts.get(CHAIN, ""))


def _named(secret: StoredSecret) -> str:
    return f"{secret.metadata.namespace}/{secret.metadata.name}"


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()

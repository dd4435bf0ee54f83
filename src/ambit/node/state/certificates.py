"""Certificates in the node's state file: a node that boots has those that are still valid."""

from ambit.agent.csr import Certificate, parsed
from ambit.core.identity import Identity
from ambit.node.state.database import StateNotWritten, transaction
from ambit.node.state.mesh import MeshState


class KeptCertificates:
    """`ambit.agent.certificates.Kept`."""

    def __init__(self, state: MeshState) -> None:
        self._state = state

    def load(self, identity: Identity) -> Certificate | None:
        row = self._state.database.execute(
            "SELECT key, chain, roots FROM certificate WHERE identity = ?", (identity.uri,)
        ).fetchone()
        try:
            return parsed(*row) if row is not None else None
        except ValueError:
            return None

    def save(self, certificate: Certificate) -> str:
        try:
            with transaction(self._state.database) as database:
                database.execute(
                    "INSERT OR REPLACE INTO certificate VALUES (?, ?, ?, ?)",
                    (certificate.identity.uri, certificate.key, certificate.chain, certificate.roots),
                )
        except StateNotWritten as problem:
            return problem.message
        return ""

    def drop(self, identity: Identity) -> None:
        with transaction(self._state.database) as database:
            database.execute("DELETE FROM certificate WHERE identity = ?", (identity.uri,))

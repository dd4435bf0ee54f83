"""One authority follows another: at each moment everybody trusts whoever may have signed what is in use."""

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.ca.authority import Authority, AuthorityFiles
from ambit.ca.bundle import certificates, damaged_blocks, joined
from ambit.ca.revocation import BadRevocation, ends, lists
from ambit.ca.trust import Phase, TrustState, Wanted, advance
from ambit.core.identity import Identity
from tests.ca.authorities import intermediate_of, revoked_by

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


def made() -> Authority:
    return Authority.create("cluster.local", NOW - dt.timedelta(days=1))


def files(authority: Authority) -> AuthorityFiles:
    return AuthorityFiles(authority.certificate, authority.key, authority.roots)


AUTHORITIES = [made() for _ in range(3)]
OLD, NEW, OTHER = (Wanted(files(each)) for each in AUTHORITIES)


def step(state: TrustState, wanted: Wanted, settled: bool = False) -> TrustState:
    return advance(state, wanted, settled=settled, now=NOW)


def test_an_authority_follows_another_in_three_steps() -> None:
    steady = TrustState.begin(OLD.files, NOW)
    assert step(steady, OLD, settled=True) == steady

    spreading = step(steady, NEW)
    assert spreading.phase is Phase.SPREADING and spreading.active == OLD.files
    assert len(certificates(spreading.roots)) == 2
    assert step(spreading, NEW) == spreading

    renewing = step(spreading, NEW, settled=True)
    assert renewing.phase is Phase.RENEWING and renewing.active == NEW.files
    assert renewing.roots == spreading.roots
    assert renewing.trust().digest != spreading.trust().digest
    assert step(renewing, NEW) == renewing

    done = step(renewing, NEW, settled=True)
    assert done == TrustState(NEW.files, AUTHORITIES[1].roots, "", Phase.STEADY, NOW)


def test_a_rotation_can_be_taken_back_before_anybody_signed_with_it() -> None:
    spreading = step(TrustState.begin(OLD.files, NOW), NEW)
    assert step(spreading, OLD) == TrustState.begin(OLD.files, NOW)


def test_another_wish_while_roots_are_spread_begins_anew() -> None:
    spreading = step(TrustState.begin(OLD.files, NOW), NEW)
    changed = step(spreading, OTHER, settled=True)
    assert changed.phase is Phase.SPREADING
    assert changed.roots == AUTHORITIES[0].roots + AUTHORITIES[2].roots


def test_another_wish_while_certificates_are_renewed_waits() -> None:
    renewing = step(step(TrustState.begin(OLD.files, NOW), NEW), NEW, settled=True)
    assert step(renewing, OTHER) == renewing
    after = step(renewing, OTHER, settled=True)
    assert (after.phase, after.active) == (Phase.STEADY, NEW.files)
    assert step(after, OTHER).phase is Phase.SPREADING


def test_roots_of_the_same_signer_follow_at_once() -> None:
    steady = TrustState.begin(OLD.files, NOW)
    more = Wanted(AuthorityFiles(OLD.files.certificate, OLD.files.key, OLD.files.roots + NEW.files.roots))
    both = step(steady, more)
    assert (both.phase, len(certificates(both.roots))) == (Phase.STEADY, 2)
    assert step(both, OLD).roots == OLD.files.roots


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=25))
def test_whoever_may_have_signed_is_trusted(wishes: list[tuple[int, bool]]) -> None:
    """A node that lags one acknowledged step behind still knows the root of every certificate in use."""
    state = TrustState.begin(OLD.files, NOW)
    spread = [state]
    """What nodes may hold: the newest settled state and all after it."""
    for index, settled in wishes:
        following = step(state, (OLD, NEW, OTHER)[index], settled)
        if settled:
            spread = [state]
        spread.append(following)
        state = following
        for signing in spread:
            root = signing.active.load().roots
            for trusting in spread:
                assert set(certificates(root)[:1]) <= set(certificates(trusting.roots))
    assert state.active.load().signer == state.trust().signer


def test_revocation_lists_are_complete_or_refused() -> None:
    root = AUTHORITIES[0]
    plugged = intermediate_of(root, NOW)
    state = TrustState.begin(plugged, NOW)
    other = intermediate_of(root, NOW).load()
    revoked = revoked_by(root, [other.path[0].serial_number], NOW, dt.timedelta(days=7))

    held = step(state, Wanted(plugged, revoked))
    assert held.phase is Phase.STEADY and held.trust().digest != state.trust().digest
    assert len(lists(held.revoked)) == 2, "the intermediate's own list is made, for we have its key"
    assert ends(held.revoked) == NOW + dt.timedelta(days=7)
    assert step(held, Wanted(plugged, revoked)) == held, "nothing changes by itself"
    assert step(held, Wanted(plugged)).revoked == ""

    only_between = plugged.load().empty_list(NOW)
    with pytest.raises(BadRevocation, match=r"no revocation list of O=cluster\.local"):
        step(state, Wanted(plugged, only_between))
    with pytest.raises(BadRevocation, match="cannot be read"):
        step(state, Wanted(plugged, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"))
    with pytest.raises(BadRevocation, match="no revocation list"):
        step(state, Wanted(plugged, "nonsense"))
    late = NOW + dt.timedelta(days=8)
    with pytest.raises(BadRevocation, match="ended at"):
        advance(state, Wanted(plugged, revoked), settled=False, now=late)


def test_a_forged_revocation_list_does_not_count() -> None:
    forger = made()
    state = TrustState.begin(OLD.files, NOW)
    forged = revoked_by(forger, [1], NOW, dt.timedelta(days=7))
    serials = [
        each.get_revoked_certificate_by_serial_number(1)
        for each in lists(step(state, Wanted(OLD.files, forged)).revoked)
    ]
    assert serials == [None]


def test_lists_of_both_authorities_while_one_follows_the_other() -> None:
    mine = revoked_by(AUTHORITIES[0], [1], NOW, dt.timedelta(days=7))
    theirs = revoked_by(AUTHORITIES[1], [2], NOW, dt.timedelta(days=7))
    steady = step(TrustState.begin(OLD.files, NOW), Wanted(OLD.files, mine))
    spreading = step(steady, Wanted(NEW.files, theirs))
    assert len(lists(spreading.revoked)) == 2
    renewing = step(spreading, Wanted(NEW.files, theirs), settled=True)
    assert renewing.revoked == spreading.revoked
    assert lists(step(renewing, Wanted(NEW.files, theirs), settled=True).revoked) == lists(theirs)


def test_damaged_roots_cost_the_others_nothing() -> None:
    damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    wanted = AuthorityFiles(OLD.files.certificate, OLD.files.key, damaged + OLD.files.roots)
    assert TrustState.begin(wanted, NOW).roots == OLD.files.roots


def test_a_truncated_root_costs_the_next_one_nothing() -> None:
    first, second = OLD.files.roots, NEW.files.roots
    text = first[: len(first) // 2] + "\n" + second + first.replace("MI", "!!", 1)
    assert joined(text) == second
    assert damaged_blocks(text) == (1, 3)
    assert damaged_blocks(first + second) == ()


def test_a_certificate_lives_as_long_as_the_mesh_allows() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    short = AUTHORITIES[0].trusting(AUTHORITIES[0].roots + AUTHORITIES[1].roots, dt.timedelta(seconds=60))
    chain = short.issue(Identity.parse("spiffe://cluster.local/ns/a/sa/b"), key, NOW, dt.timedelta(days=1))
    leaf = x509.load_pem_x509_certificate(chain[0].encode())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == dt.timedelta(seconds=66)
    assert len(certificates(chain[-1])) == 2

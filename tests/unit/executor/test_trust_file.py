"""The trust file: read in full, or refused with what to change."""

from pathlib import Path

import pytest

from executor.adapters.trust_file import TrustFileError, parse_trust, read_trust_file
from executor.domain.policy import Person as TrustedPerson
from executor.domain.policy import Policy, Trust, TrustedKey
from executor.domain.report import SelfApproval
from gonogo.signatures import ED25519, SSHSIG
from tests.unit.executor.house import Person, trust_text

OWNER = Person("owner")
OTHER = Person("other", scheme=ED25519)
GOOD = trust_text({"owner": [OWNER], "other": [OTHER]})


def test_the_whole_file() -> None:
    """Every value ends up where it belongs."""
    text = trust_text(
        {"owner": [OWNER], "other": [OTHER]},
        approvals_required=2,
        max_approval_seconds=60,
        hidden='[".env", "**/.env"]',
        volatile='[".git/index"]',
        max_content_bytes=10,
        max_change_bytes=2**40,
        max_dry_runs=3,
        may_dry_run='["spiffe://gonogo.local/orchestrator"]',
        report_seconds=100,
        checkpoint_seconds=200,
    )
    trust = parse_trust(text.encode())
    assert trust == Trust(
        executor_id="executor-test",
        orchestrators=("spiffe://gonogo.local/orchestrator",),
        policy=Policy(
            approvals_required=2,
            self_approval=SelfApproval.ALLOWED,
            max_approval_seconds=60,
            hidden=(".env", "**/.env"),
            volatile=(".git/index",),
            max_content_bytes=10,
            max_change_bytes=2**40,
            max_dry_runs=3,
            may_dry_run=("spiffe://gonogo.local/orchestrator",),
            report_seconds=100,
            checkpoint_seconds=200,
        ),
        persons=(
            TrustedPerson(person_id="owner", keys=(_key(OWNER, SSHSIG),)),
            TrustedPerson(person_id="other", keys=(_key(OTHER, ED25519),)),
        ),
    )


def test_the_strictest_where_nothing_is_said() -> None:
    """Self approval is refused unless the operator writes it out."""
    text = GOOD.replace('self_approval = "allowed"\n', "")
    assert parse_trust(text.encode()).policy == Policy(approvals_required=1)


def test_no_policy_is_not_in_force() -> None:
    """A file without a policy can be read, and nothing can be approved under it."""
    text = (
        GOOD.replace("[policy]\n", "")
        .replace("approvals_required = 1\n", "")
        .replace('self_approval = "allowed"\n', "")
    )
    assert not parse_trust(text.encode()).policy.in_force


def test_one_key_for_two_schemes() -> None:
    """A person may use one key with both schemes, each listed."""
    both = [OWNER, Person("owner", scheme=ED25519, key=OWNER.key)]
    [person] = parse_trust(trust_text({"owner": both}).encode()).persons
    assert [key.scheme for key in person.keys] == [SSHSIG, ED25519]


def test_the_policy_digest_covers_rules_and_persons() -> None:
    """Whoever changes a rule or a key changes what approvers see."""
    digests = {
        parse_trust(text.encode()).policy_digest
        for text in (
            GOOD,
            GOOD.replace("approvals_required = 1", "approvals_required = 2"),
            GOOD.replace('"allowed"', '"refused"'),
            trust_text({"owner": [OWNER]}),
            trust_text({"owner": [OTHER], "other": [OWNER]}),
            trust_text({"owner": [OWNER], "other": [OTHER]}, may_dry_run="[]"),
            trust_text({"owner": [OWNER], "other": [OTHER]}, report_seconds=60),
            trust_text({"owner": [OWNER], "other": [OTHER]}, checkpoint_seconds=60),
        )
    }
    assert len(digests) == 8


def test_who_may_dry_run() -> None:
    """All orchestrators of the file, those that the policy lists, or nobody."""
    persons = {"owner": [OWNER]}
    everybody = frozenset({"spiffe://gonogo.local/orchestrator"})
    assert parse_trust(trust_text(persons).encode()).dry_runners == everybody
    listed = trust_text(persons, may_dry_run='["spiffe://gonogo.local/orchestrator"]')
    assert parse_trust(listed.encode()).dry_runners == everybody
    assert parse_trust(trust_text(persons, may_dry_run="[]").encode()).dry_runners == frozenset()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "version", id="empty"),
        pytest.param("version = ", "not TOML", id="no TOML"),
        pytest.param(GOOD.replace("version = 1", "version = 2"), "version 2", id="later version"),
        pytest.param(GOOD.replace("version = 1", "version = true"), "version", id="true is no number"),
        pytest.param(GOOD.replace("version = 1", 'version = "1"'), "version", id="text is no number"),
        pytest.param(GOOD + "extra = 1\n", "unknown keys: extra", id="unknown key of a key"),
        pytest.param("extra = 1\n" + GOOD, "unknown keys: extra", id="unknown key of the file"),
        pytest.param(GOOD.replace("self_approval", "self_aproval"), "unknown keys: self_aproval", id="misspelt rule"),
        pytest.param(GOOD.replace('"allowed"', '"maybe"'), "self_approval", id="unknown value"),
        pytest.param(GOOD.replace('"allowed"', "true"), "self_approval", id="wrong type"),
        pytest.param(GOOD.replace("approvals_required = 1\n", ""), "approvals_required", id="missing rule"),
        pytest.param(GOOD.replace("required = 1", "required = 0"), "approvals_required", id="zero approvals"),
        pytest.param(GOOD.replace("required = 1", "required = -1"), "approvals_required", id="negative"),
        pytest.param(GOOD.replace("required = 1", "required = 1.0"), "approvals_required", id="float"),
        pytest.param(GOOD.replace('"sshsig"', '"minisign"'), "minisign", id="unknown scheme"),
        pytest.param(GOOD.replace("ssh-ed25519", "ssh-rsa"), "public key", id="no Ed25519 key"),
        pytest.param(GOOD.replace('"spiffe://', '"https://'), "orchestrator", id="no SPIFFE id"),
        pytest.param(GOOD.replace('id = "other"', 'id = "owner"'), "twice", id="one person twice"),
        pytest.param(GOOD.replace('id = "other"', 'id = ""'), "id in persons", id="no name"),
        pytest.param(GOOD.replace('executor_id = "executor-test"\n', ""), "executor_id", id="no executor id"),
        pytest.param(
            trust_text({"owner": [OWNER]}, may_dry_run='["spiffe://gonogo.local/other"]'),
            "may_dry_run",
            id="a dry runner that is no orchestrator",
        ),
        pytest.param(trust_text({"owner": [OWNER]}, report_seconds=0), "report_seconds", id="no time"),
        pytest.param(trust_text({"owner": [OWNER]}, checkpoint_seconds='"1d"'), "checkpoint_seconds", id="text"),
        pytest.param(trust_text({}), "persons", id="nobody"),
        pytest.param(trust_text({"owner": []}), "keys", id="no key"),
        pytest.param(trust_text({"owner": [OWNER, OWNER]}), "twice", id="one key twice"),
        pytest.param(
            trust_text({"owner": [OWNER], "other": [OWNER]}), "belongs to owner and to other", id="shared key"
        ),
        pytest.param(
            trust_text({"owner": [OWNER], "other": [Person("other", scheme=ED25519, key=OWNER.key)]}),
            "belongs to owner and to other",
            id="shared key under another scheme",
        ),
        pytest.param(
            GOOD.replace("[policy]", "policy = 1\n[other]"),
            "policy in the file is not a table",
            id="policy is a number",
        ),
    ],
)
def test_a_file_that_is_refused(text: str, says: str) -> None:
    """Whatever is not strictly such a file is refused, with what is wrong and a remedy."""
    with pytest.raises(TrustFileError) as caught:
        parse_trust(text.encode())
    assert says in str(caught.value)
    assert caught.value.fault.remedy


def test_bytes_that_are_not_text() -> None:
    """A file that is not UTF-8 is refused."""
    with pytest.raises(TrustFileError):
        parse_trust(b"\xff\xfe")


def test_no_file(tmp_path: Path) -> None:
    """A missing file is refused with the command that makes one."""
    with pytest.raises(TrustFileError) as caught:
        read_trust_file(tmp_path / "trust.toml")
    assert "gonogo init" in caught.value.fault.remedy


def _key(person: Person, scheme: str) -> TrustedKey:
    return TrustedKey(key_id=person.key.public.key_id, scheme=scheme, public_key=person.key.public.line)

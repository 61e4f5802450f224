"""The trust file: read in full, or refused with what to change."""

import ast
import inspect
from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from client.initialise import TRUST_FILE
from executor.adapters.trust_file import parse_trust, read_trust_file
from executor.adapters.trust_tables import TrustFileError
from executor.domain import outside_risk, risk
from executor.domain.policy import Limits, Orchestrator, SecretSource, Trust, limits_digest
from executor.domain.risk import RISK_FACTS
from gonogo.digests import digest
from gonogo.policy import Condition, Group, Key, KeyUse, PersonKind, Policy, ProposerKind, Requirement, Rule
from gonogo.policy import Person as TrustedPerson
from gonogo.policy_document import open_policy, seal_policy
from gonogo.signatures import ED25519, SSHSIG
from tests.unit.executor.house import Person, trust_text

OWNER = Person("owner")
OTHER = Person("other", scheme=ED25519)
BOT = Person("bot")
HARDWARE = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t"
    "AAAAIGYRKj0ExK2tLUgkzwRSUrcKOaQhuPmRZ3MRrpcGx1fyAAAABHNzaDo="
)
GOOD = trust_text({"owner": [OWNER], "other": [OTHER]})
AGENT = f"""
[[persons]]
id = "bot"
kind = "agent"
sponsor = "owner"
[[persons.keys]]
scheme = "sshsig"
public_key = "{BOT.key.public.line}"
use = "propose"
"""
GROUP = """
[[groups]]
id = "sre"
members = ["other", "owner"]
"""
RULE = """
[[rules]]
id = "production"
require = [{ count = 2, group = "sre" }]
min_ladder_level = "L3"
hardware_key = true
max_approval_seconds = 3600
refuse = true
approve_steps = true
[rules.when]
step_kinds = ["run_command", "write_file"]
risk_facts = ["runs_later"]
min_risk = "medium"
workspaces = ["site"]
labels = ["prod"]
min_changes = 3
min_bytes = 4096
days = ["sat", "sun"]
hours = "18:00-08:00"
proposers = ["agent", "unknown"]
"""
LABELS = """
[workspaces.site]
labels = ["prod", "eu"]
[workspaces.shop]
labels = []
"""
SECRET = """
[[secrets]]
name = "deploy-token"
workspaces = ["site"]
file = "/run/secrets/token"
[[secrets]]
name = "api"
workspaces = ["site", "shop"]
environment = "API_TOKEN"
"""
WHOLE = f'domains = ["example.org"]\n{GOOD}{AGENT}{GROUP}{RULE}{LABELS}{SECRET}'


def _with_rule(old: str, new: str) -> str:
    return f"{GOOD}{GROUP}{RULE.replace(old, new)}{LABELS}"


def test_the_whole_file() -> None:
    """Every value of [policy] ends up where it belongs; persons are sorted."""
    limits = {
        "hidden": '[".env", "**/.env"]',
        "volatile": '[".git/index"]',
        "max_content_bytes": 10,
        "max_change_bytes": 2**40,
        "max_dry_runs": 3,
        "may_dry_run": '["spiffe://gonogo.local/orchestrator"]',
        "report_seconds": 100,
        "checkpoint_seconds": 200,
    }
    text = trust_text({"owner": [OWNER], "other": [OTHER]}, approvals_required=2, max_approval_seconds=60, **limits)
    expected = Limits(
        hidden=(".env", "**/.env"),
        volatile=(".git/index",),
        max_content_bytes=10,
        max_change_bytes=2**40,
        max_dry_runs=3,
        may_dry_run=("spiffe://gonogo.local/orchestrator",),
        report_seconds=100,
        checkpoint_seconds=200,
    )
    assert parse_trust(text.encode()) == Trust(
        executor_id="executor-test",
        version=1,
        expires_at=datetime(2100, 1, 1, tzinfo=UTC),
        orchestrators=(Orchestrator(identity="spiffe://gonogo.local/orchestrator"),),
        limits=expected,
        policy=Policy(
            executor_id="executor-test",
            trust_version=1,
            expires_at=datetime(2100, 1, 1, tzinfo=UTC),
            approvals_required=2,
            self_approval=True,
            max_approval_seconds=60,
            persons=(
                TrustedPerson(person_id="other", keys=(_key(OTHER, ED25519),)),
                TrustedPerson(person_id="owner", keys=(_key(OWNER, SSHSIG),)),
            ),
            limits_digest=limits_digest(expected),
        ),
    )


def test_agents_groups_rules_labels_and_secrets() -> None:
    """Everything beyond persons and [policy] ends up where it belongs."""
    trust = parse_trust(WHOLE.encode())
    assert trust.policy.person("bot") == TrustedPerson(
        person_id="bot", kind=PersonKind.AGENT, sponsor="owner", keys=(_key(BOT, SSHSIG, use=KeyUse.PROPOSE),)
    )
    assert trust.policy.groups == (Group(group_id="sre", members=("other", "owner")),)
    assert trust.policy.rules == (
        Rule(
            rule_id="production",
            when=Condition(
                step_kinds=("run_command", "write_file"),
                risk_facts=("runs_later",),
                min_risk="medium",
                workspaces=("site",),
                labels=("prod",),
                min_changes=3,
                min_bytes=4096,
                days=("sat", "sun"),
                hours=(time(18), time(8)),
                proposers=(ProposerKind.AGENT, ProposerKind.UNKNOWN),
            ),
            require=(Requirement(count=2, group="sre"),),
            min_ladder_level=3,
            hardware_key=True,
            max_approval_seconds=3600,
            refuse=True,
            approve_steps=True,
        ),
    )
    assert trust.policy.labels == {"site": ("prod", "eu"), "shop": ()}
    assert trust.secrets == (
        SecretSource(name="api", workspaces=("site", "shop"), environment="API_TOKEN"),
        SecretSource(name="deploy-token", workspaces=("site",), file="/run/secrets/token"),
    )
    assert trust.domains == ("example.org",)


def test_the_sealed_policy_comes_back() -> None:
    """What is read, sealed and opened again is the very same policy."""
    policy = parse_trust(WHOLE.encode()).policy
    assert open_policy(seal_policy(policy)) == policy


def test_a_hardware_key_is_known_by_its_type() -> None:
    """Nobody writes into the file that a key is in hardware: its type says so."""
    text = GOOD + f'[[persons.keys]]\nscheme = "sshsig"\npublic_key = "{HARDWARE}"\n'
    other = parse_trust(text.encode()).policy.person("other")
    assert other is not None
    assert [key.hardware for key in other.keys] == [False, True]


def test_an_orchestrator_with_the_key_of_its_log() -> None:
    """An orchestrator is named by its id alone, or with the key that its checkpoints are signed with."""
    line = OWNER.key.public.line
    table = f'[{{ id = "spiffe://gonogo.local/orchestrator", log_key = "{line} x" }}]'
    text = GOOD.replace('["spiffe://gonogo.local/orchestrator"]', table)
    [found] = parse_trust(text.encode()).orchestrators
    assert found == Orchestrator(identity="spiffe://gonogo.local/orchestrator", log_key=line)


def test_hours_to_midnight() -> None:
    """24:00 is the end of a day, and 00:00 the beginning of the next."""
    rule = RULE.replace("18:00-08:00", "18:00-24:00")
    [found] = parse_trust(f"{GOOD}{GROUP}{rule}{LABELS}".encode()).policy.rules
    assert found.when.hours == (time(18), time(0))


def test_rules_may_decide_alone() -> None:
    """Where rules ask for approvals, approvals_required may be 0 or left out."""
    for text in (
        GOOD.replace("approvals_required = 1\n", ""),
        GOOD.replace("required = 1", "required = 0"),
    ):
        trust = parse_trust(f"{text}{GROUP}{RULE}{LABELS}".encode())
        assert trust.policy.approvals_required == 0
        assert trust.policy.in_force


def test_every_fact_of_risk_can_be_named() -> None:
    """The list of facts that rules may name is the list of those that the executor finds."""
    trees = [ast.parse(inspect.getsource(module)) for module in (risk, outside_risk)]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "_fact" and isinstance(call.args[0], ast.Constant)
    }
    assert named == set(RISK_FACTS)


def test_the_strictest_where_nothing_is_said() -> None:
    """Self approval is refused unless the operator writes it out; of limits the built-in ones hold."""
    trust = parse_trust(GOOD.replace('self_approval = "allowed"\n', "").encode())
    assert not trust.policy.self_approval
    assert trust.limits == Limits()


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
    [person] = parse_trust(trust_text({"owner": both}).encode()).policy.persons
    assert [key.scheme for key in person.keys] == [SSHSIG, ED25519]


def test_the_sealed_policy_covers_rules_persons_and_limits() -> None:
    """Whoever changes anything that a decision or a dry run depends on changes what approvers see."""
    texts = (
        GOOD,
        GOOD.replace("approvals_required = 1", "approvals_required = 2"),
        GOOD.replace('"allowed"', '"refused"'),
        GOOD.replace("version = 1", "version = 2"),
        GOOD.replace("2100", "2101"),
        trust_text({"owner": [OWNER]}),
        trust_text({"owner": [OTHER], "other": [OWNER]}),
        trust_text({"owner": [OWNER], "other": [OTHER]}, may_dry_run="[]"),
        trust_text({"owner": [OWNER], "other": [OTHER]}, report_seconds=60),
        trust_text({"owner": [OWNER], "other": [OTHER]}, checkpoint_seconds=60),
        trust_text({"owner": [OWNER], "other": [OTHER]}, hidden='["secret"]'),
        GOOD + AGENT,
        GOOD + GROUP,
        GOOD + LABELS,
        GOOD + SECRET,
        GOOD + GROUP + RULE + LABELS,
        'domains = ["example.org"]\n' + GOOD,
    )
    assert len({digest(seal_policy(parse_trust(text.encode()).policy)) for text in texts}) == len(texts)


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
        pytest.param(GOOD.replace("version = 1", "version = 0"), "version", id="no version"),
        pytest.param(GOOD.replace("expires = 2100-01-01T00:00:00Z\n", ""), "expires in the file", id="no end"),
        pytest.param(GOOD.replace("2100-01-01T00:00:00Z", "2100-01-01T00:00:00"), "not a moment", id="local time"),
        pytest.param(GOOD.replace("2100-01-01T00:00:00Z", '"2100-01-01T00:00:00Z"'), "not a moment", id="time as text"),
        pytest.param(
            GOOD.replace("2100-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00"), "not a moment", id="after all time"
        ),
        pytest.param(GOOD.replace("version = 1", f"version = {'1' * 5_000}"), "not TOML", id="a very long number"),
        pytest.param(GOOD.replace("version = 1", "version = true"), "version", id="true is no number"),
        pytest.param(GOOD.replace("version = 1", 'version = "1"'), "version", id="text is no number"),
        pytest.param(GOOD + "extra = 1\n", "unknown keys: extra", id="unknown key of a key"),
        pytest.param("extra = 1\n" + GOOD, "unknown keys: extra", id="unknown key of the file"),
        pytest.param(GOOD.replace("self_approval", "self_aproval"), "unknown keys: self_aproval", id="misspelt rule"),
        pytest.param(GOOD.replace('"allowed"', '"maybe"'), "self_approval", id="unknown value"),
        pytest.param(GOOD.replace('"allowed"', "true"), "self_approval", id="wrong type"),
        pytest.param(GOOD.replace("approvals_required = 1\n", ""), "approvals_required", id="nobody decides"),
        pytest.param(GOOD.replace("required = 1", "required = 0"), "approvals_required", id="zero approvals"),
        pytest.param(trust_text({"owner": [OWNER]}, hidden='["/etc"]'), "hidden in policy", id="an absolute pattern"),
        pytest.param(GOOD + AGENT.replace('"propose"', '"approve"'), "agents never approve", id="an agent approves"),
        pytest.param(GOOD + AGENT.replace('use = "propose"', ""), "agents never approve", id="an agent by default"),
        pytest.param(GOOD + AGENT.replace('sponsor = "owner"', ""), "an agent without", id="an agent alone"),
        pytest.param(GOOD + AGENT.replace('kind = "agent"', ""), "a person with", id="a person with a sponsor"),
        pytest.param(GOOD + AGENT.replace('"owner"', '"nobody"'), "no person of this file", id="unknown sponsor"),
        pytest.param(GOOD + AGENT.replace('"owner"', '"bot"'), "no person of this file", id="an agent for itself"),
        pytest.param(GOOD + AGENT.replace('"agent"', '"robot"'), "robot", id="unknown kind"),
        pytest.param(GOOD + AGENT.replace('"propose"', '"sign"'), "sign", id="unknown use"),
        pytest.param(
            GOOD + f'[[persons.keys]]\nscheme = "sshsig"\npublic_key = "{OTHER.key.public.line}"\nuse = "propose"\n',
            "to approve and to propose",
            id="one key for two uses",
        ),
        pytest.param(
            GOOD + f'[[persons.keys]]\nscheme = "ed25519"\npublic_key = "{HARDWARE}"\n',
            "does not sign under ed25519",
            id="a hardware key under the plain scheme",
        ),
        pytest.param(GOOD + GROUP.replace('"other"', '"nobody"'), "'nobody'", id="unknown member"),
        pytest.param(
            GOOD + AGENT + GROUP.replace('"other"', '"bot"'), "agents never approve", id="an agent in a group"
        ),
        pytest.param(GOOD + GROUP.replace('"other"', '"owner"'), "twice", id="a member twice"),
        pytest.param(GOOD + GROUP + GROUP, "a group twice", id="a group twice"),
        pytest.param(GOOD + RULE + LABELS, "the group 'sre'", id="a rule of an unknown group"),
        pytest.param(GOOD + GROUP + RULE, "the label 'prod'", id="a rule of an unknown label"),
        pytest.param(GOOD + GROUP + RULE + RULE + LABELS, "two rules of one id", id="a rule twice"),
        pytest.param(_with_rule("run_command", "run_comand"), "run_comand", id="unknown kind of step"),
        pytest.param(_with_rule("runs_later", "runs_never"), "runs_never", id="unknown fact of risk"),
        pytest.param(_with_rule('"medium"', '"severe"'), "severe", id="unknown level of risk"),
        pytest.param(_with_rule('"sat"', '"saturday"'), "saturday", id="unknown day"),
        pytest.param(_with_rule('"sat"', '"sun"'), "twice", id="a day twice"),
        pytest.param(_with_rule("18:00-08:00", "18-08"), "18-08", id="hours without minutes"),
        pytest.param(_with_rule("18:00-08:00", "08:00-08:00"), "begins when it ends", id="no hours"),
        pytest.param(_with_rule('"unknown"', '"somebody"'), "somebody", id="unknown kind of proposer"),
        pytest.param(_with_rule('"L3"', '"L4"'), "L4", id="unknown level"),
        pytest.param(_with_rule("count = 2", "count = 0"), "count in", id="nobody is asked"),
        pytest.param(_with_rule("min_changes = 3", "min_changes = 0"), "min_changes", id="at least nothing"),
        pytest.param(_with_rule("refuse = true", 'refuse = "yes"'), "true or false", id="yes is no flag"),
        pytest.param(_with_rule("min_bytes", "min_byte"), "unknown keys: min_byte", id="misspelt condition"),
        pytest.param(
            _with_rule("hours = ", "hour = "), "when in rules in the file, entry 1", id="where it is misspelt"
        ),
        pytest.param(GOOD + '[[rules]]\nid = "x"\n', "asks for nothing", id="a rule that asks for nothing"),
        pytest.param(GOOD + '[[rules]]\nid = "x"\nrefuse = false\n', "asks for nothing", id="a rule that does nothing"),
        pytest.param(
            GOOD.partition("[policy]")[0] + GOOD[GOOD.index("[[persons]]") :] + '[[rules]]\nid = "x"\nrefuse = true\n',
            "no table [policy]",
            id="rules without a policy",
        ),
        pytest.param(GOOD + SECRET.replace('"/run/', '"run/'), "no absolute path", id="a relative path"),
        pytest.param(GOOD + SECRET.replace("API_TOKEN", "API-TOKEN"), "environment variable", id="no variable"),
        pytest.param(GOOD + SECRET.replace('"api"', '"deploy-token"'), "a secret twice", id="a secret twice"),
        pytest.param(GOOD + SECRET.replace('environment = "API_TOKEN"', ""), "no source", id="no source"),
        pytest.param(GOOD + SECRET + 'file = "/x"\n', "or two", id="two sources"),
        pytest.param(GOOD + SECRET.replace("file =", "value ="), "unknown keys: value", id="the value itself"),
        pytest.param("domains = [1]\n" + GOOD, "domains", id="a domain is a text"),
        pytest.param(GOOD + LABELS.replace('"eu"', '"prod"'), "a label twice", id="a label twice"),
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


def test_the_documents_example_is_a_trust_file() -> None:
    """What the documentation shows can be copied: with real keys it is taken."""
    text = (Path(__file__).parents[3] / "docs" / "trust-file.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    for person in (OWNER, OTHER, BOT):
        example = example.replace("ssh-ed25519 AAAA…", person.key.public.line, 1)
    trust = parse_trust(example.encode())
    assert [one.person_id for one in trust.policy.persons] == ["alice", "alice-agent"]
    assert [rule.rule_id for rule in trust.policy.rules] == ["production", "requests-one-by-one"]


def test_what_init_suggests_is_a_trust_file() -> None:
    """The rules that stand in a new trust file as comments are taken once somebody takes the marks away."""
    text = TRUST_FILE.format(
        expires="2100-01-01T00:00:00Z",
        executor_id="executor-test",
        log_key=OTHER.key.public.line,
        person="owner",
        public_key=OWNER.key.public.line,
        agent="owner-agent",
        agent_key=BOT.key.public.line,
    )
    head, _, suggested = text.partition("# [[groups]]")
    lines = [line.removeprefix("# ") for line in f"# [[groups]]{suggested}".splitlines()]
    rules = "\n".join(line for line in lines if not line.startswith(("A workspace", "What steps", "#")))
    trust = parse_trust(f"{head}{rules}\n".encode())
    assert [rule.rule_id for rule in trust.policy.rules] == ["production"]


def test_bytes_that_are_not_text() -> None:
    """A file that is not UTF-8 is refused."""
    with pytest.raises(TrustFileError):
        parse_trust(b"\xff\xfe")


def test_no_file(tmp_path: Path) -> None:
    """A missing file is refused with the command that makes one."""
    with pytest.raises(TrustFileError) as caught:
        read_trust_file(tmp_path / "trust.toml")
    assert "gonogo init" in caught.value.fault.remedy


def _key(person: Person, scheme: str, use: KeyUse = KeyUse.APPROVE) -> Key:
    return Key(key_id=person.key.public.key_id, scheme=scheme, public_key=person.key.public.line, use=use)

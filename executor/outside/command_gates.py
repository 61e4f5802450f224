"""Whether sandboxed commands have a network, and the proxy that is all they see of it."""

from dataclasses import dataclass, field

from executor.domain.cancel import Cancel
from executor.domain.plan import NetworkAccess, Plan, Scope
from executor.outside.addresses import Lookup, Pinned, Url, check_named, pin, system_lookup
from executor.outside.proxy import Proxy, ProxyLimits
from executor.outside.proxy_request import USUAL_PORTS
from executor.runner.command_network import CommandGate
from executor.runner.trust import TrustInForce

OFF_IN_DRY_RUN = (
    "commands had no network: the trust file's table [network] does not say commands_in_dry_run = true; what they "
    "would have fetched is missing in what this report shows"
)
NOTHING_LISTED = "commands had no network: scope.domains and the trust file's domains must both name what they reach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Makes the proxies through which programs reach what a scope and the trust file both list.

    Every connection is judged by the trust file as it is then.
    """

    trust: TrustInForce
    limits: ProxyLimits = field(default_factory=ProxyLimits)
    ports: frozenset[int] = USUAL_PORTS
    lookup: Lookup = system_lookup

    def proxy(self, scope: Scope) -> Proxy:
        """Return a proxy for one run under a scope."""

        def reach(url: Url, cancel: Cancel) -> Pinned:
            trust = self.trust.last().trust
            check_named(url, scope, trust)
            return pin(url, trust.network.private_addresses, lookup=self.lookup, cancel=cancel)

        return Proxy(reach, limits=self.limits, ports=self.ports)

    def lead_anywhere(self, scope: Scope) -> bool:
        """Tell whether both lists name anything at all."""
        return bool(scope.domains and self.trust.last().trust.domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandGates:
    """The port `executor.runner.command_network.CommandNetwork`; one for dry runs, one for executions."""

    doors: Doors
    dry_run: bool

    def gate(self, plan: Plan) -> CommandGate:
        """Return a proxy of its own for each command, where scope and policy both allow it."""
        if plan.scope.network is not NetworkAccess.LISTED_DOMAINS:
            return CommandGate()
        if self.dry_run and not self.doors.trust.last().trust.network.commands_in_dry_run:
            return CommandGate(why_none=OFF_IN_DRY_RUN)
        if not self.doors.lead_anywhere(plan.scope):
            return CommandGate(why_none=NOTHING_LISTED)
        proxy = self.doors.proxy(plan.scope)
        return CommandGate(gateway=proxy, told=proxy.diary.lines)

"""One way to say that something is not what the contract says."""

from orchestrator.domain.errors import ContractError, Reason


def contract_error(message: str) -> ContractError:
    """Say that something is not what the contract says."""
    return ContractError(
        Reason.MALFORMED, message, "Use client, orchestrator and executor of the same version; send no unknown fields."
    )

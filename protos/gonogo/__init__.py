"""The contract that orchestrator, executor and client share, and nothing else that they share.

`v1` holds the generated messages. Beside it: `digests` and `safe_text` (standard library only), `sealing` (writing a
document once, reading it strictly) and `signatures` (Ed25519 and SSHSIG over the same bytes).
"""

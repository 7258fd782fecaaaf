"""Whether a backbone is what its card says, and wired up right: small questions, each answered by measuring."""

"""Speed beside the machine's limits: what ``infinilm bench`` runs, and the scripts in ``benchmarks/`` with it."""

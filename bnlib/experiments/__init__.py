"""Reruns of the papers' experiments: one module for each chapter, and the runner and the ledger they share."""

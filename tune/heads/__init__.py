"""Searches over fusions and heads: embeddings are extracted once and mapped by every trial."""

"""Measurements of what the README claims, on a real Kafka, each with its outputs checked. Nothing of the product imports this."""

"""The decision: lattice and rails, policies, draws and offers, explanations, and the engine that ties a batch together.

Pure: no Faust, no Kafka, no clock, no environment, no global randomness. Worker and backtest call `pricing.engine`.
"""

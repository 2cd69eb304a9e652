"""The live shell: Faust app, batched transport, state stores, topics, commit, subscriber, settings.

Alone knows Faust, Kafka, RocksDB, clocks and the environment. Decides nothing: what an event does is in pricing.engine,
and in what order events are applied is in contracts.merge; both are shared with the backtest.
"""

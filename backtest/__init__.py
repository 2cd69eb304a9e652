"""The offline shell: logs imported, generated and perturbed; the replay of a log through the engine that workers run.

Alone with contracts.log it reads and writes Parquet. Does not know Kafka or Faust, and shares no code with streams.
"""

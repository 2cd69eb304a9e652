"""What is known of a user: rolling windows, affinities, offers, recent ids, token history. The fold of events into it.

Pure: no clock, no broker. Does not choose prices (pricing) and does not know where a state is kept (streams).
"""

"""What crosses a border: events, consents, catalogue items, policies, price updates, decisions, errors, the merge order.

Pure: no Faust, no Kafka client, no clock, no environment, no randomness. Everything here is either a frozen message, the
function that turns bytes into one, or the order in which messages are applied.
"""

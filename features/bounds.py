"""How large a user's state can get: the stated bound in bytes of one value in the store and in the changelog.

MessagePack sizes. Source: https://github.com/msgpack/msgpack/blob/master/spec.md. A string of n characters takes at most
4n bytes of UTF-8 and a prefix of 3; an integer or a float at most 9; an array or map of up to 65,535 entries 3.
"""

from __future__ import annotations

from contracts.semantics import Semantics
from features.affinities import AFFINITIES_MAX
from features.recent import ID_BYTES
from features.session import SESSION_ITEMS_MAX
from features.state import EXPOSURE_IDS_MAX, DrawRef, Offer, SessionItem, UserState
from features.tokens import HEADER_BYTES
from features.windows import DAYS, HOURS, MINUTES, TILE_BYTES

_UTF8 = 4
_NUMBER, _STRING, _BYTES, _CONTAINER = 9, 3, 5, 3
_ID = _UTF8 * 128
"""An item id, contracts.events.Id."""
_LABEL = _UTF8 * 256
"""A category or brand, contracts.catalogue.Label."""
_DRAW_ID, _MARKET = 32, _UTF8 * 16

_OFFER = _CONTAINER + _NUMBER * len(Offer.__struct_fields__) + _DRAW_ID + _MARKET
_SESSION_ITEM = _CONTAINER + _NUMBER * len(SessionItem.__struct_fields__)
_DRAW = _CONTAINER + _NUMBER * len(DrawRef.__struct_fields__) + _STRING + _ID + _BYTES + EXPOSURE_IDS_MAX * ID_BYTES
_FIXED = 1 + _CONTAINER + _NUMBER * len(UserState.__struct_fields__)


def state_bytes_max(semantics: Semantics) -> int:
    """Return the most bytes that `encode_state` gives for any user under `semantics`.

    At the defaults 151 KB, half of it for 128 item ids of 512 bytes; a full state with ids of 7 bytes has about 10 KB.
    """
    tiles = (MINUTES + HOURS + DAYS) * TILE_BYTES
    affinities = 2 * AFFINITIES_MAX * (_STRING + _LABEL + _NUMBER)
    session = SESSION_ITEMS_MAX * (_STRING + _ID + _SESSION_ITEM)
    offers = semantics.offers_max * (_STRING + _ID + _OFFER)
    draws = semantics.offers_max * _DRAW
    recent = semantics.recent_ids_max * ID_BYTES
    history = semantics.history_events_max * (HEADER_BYTES + _ID)
    return _FIXED + tiles + affinities + session + offers + draws + recent + history

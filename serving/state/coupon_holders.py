"""Under which names a shopper's uses of an offer stand in the coupon ledger: made with the data key
of the subject, another one for every offer. At an erasure the key is destroyed, and with it every
way from the person to their uses, and from one use to another."""

import hashlib
import hmac

from serving.state.control_store import ControlStore


class CouponHolders:
    """Makes the names from the keys in `control`."""

    def __init__(self, control: ControlStore) -> None:
        self._control = control

    def names(self, subject_id: str, offer_id: str) -> tuple[str, ...]:
        """The subject's own name, then those of whom it was before, as a visitor; empty where the
        subject is not there (any more). Raises StoreError."""
        made = []
        for one in self._control.histories(subject_id):
            key = self._control.subject_key(one)
            if key is not None:
                said = b"tillwise:coupon\0" + offer_id.encode()
                made.append(hmac.new(key.data_key, said, hashlib.sha256).hexdigest())
        return tuple(made)

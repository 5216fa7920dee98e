"""Trying to get a key out. What a module says of a key is not what it does with it.

NSS softokn 3.87, for one, reports NEVER_EXTRACTABLE and then lets anyone wrap the key under another and
unwrap it in the clear. So every way is tried, on a key made for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from pkcs11.types import Object, Session

    from hsm.model import KeyRef

_WRAPS: Final[tuple[tuple[Mechanism, bytes | None], ...]] = (
    (Mechanism.AES_KEY_WRAP, None),
    (Mechanism.AES_KEY_WRAP_PAD, None),
    (Mechanism.AES_KEY_WRAP_KWP, None),
    (Mechanism.AES_ECB, None),
    (Mechanism.AES_CBC, bytes(16)),
    (Mechanism.AES_CBC_PAD, bytes(16)),
)
# What a binding or a module may throw at a refused attempt; anything it throws means that it was refused.
_REFUSALS: Final = (PKCS11Error, AttributeError, TypeError, ValueError, NotImplementedError)


def attempts(session: Session, key: Object) -> list[str]:
    """Try to steal a key, and say which ways succeeded; an empty list is what one wants.

    The key may be worth less afterwards, so give one that was made for this.
    """
    ways: dict[str, Callable[[], object]] = {
        "read its value": lambda: _read(key),
        "copy it as extractable": lambda: _copied(key, {Attribute.EXTRACTABLE: True}),
        "copy it as not sensitive": lambda: _copied(key, {Attribute.SENSITIVE: False}),
    }
    for mechanism, parameter in _WRAPS:
        ways[f"wrap it by {mechanism.name}"] = _wrapping(session, key, mechanism, parameter)
    # Last, as these change the key.
    ways["make it extractable"] = lambda: _set(key, Attribute.EXTRACTABLE, value=True)
    ways["make it not sensitive"] = lambda: _set(key, Attribute.SENSITIVE, value=False)
    return [name for name, way in ways.items() if _succeeds(way)]


def attempts_on(session: Session, ref: KeyRef) -> list[str]:
    """The same for a key on the token."""
    template = {Attribute.LABEL: ref.label, Attribute.ID: ref.object_id}
    hidden = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY)
    things = list(session.get_objects(template))
    return [way for thing in things if thing.object_class in hidden for way in attempts(session, thing)]


def _succeeds(way: Callable[[], object]) -> bool:
    try:
        way()
    except _REFUSALS:
        return False
    return True


def _read(key: Object) -> None:
    if not key[Attribute.VALUE]:
        _refuse()


def _refuse() -> None:
    raise ValueError("nothing was given")


def _copied(key: Object, changes: dict[Attribute, Any]) -> None:
    copy: Object = key.copy({Attribute.TOKEN: False, **changes})
    try:
        if any(copy[attribute] is not value for attribute, value in changes.items()):
            _refuse()
    finally:
        copy.destroy()


def _set(key: Object, attribute: Attribute, *, value: bool) -> None:
    key[attribute] = value
    if key[attribute] is not value:
        _refuse()


def _wrapping(
    session: Session, key: Object, mechanism: Mechanism, parameter: bytes | None
) -> Callable[[], object]:
    def way() -> None:
        other: Any = session.generate_key(
            KeyType.AES,
            256,
            id=os.urandom(16),
            label="strongroom-thief",
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP | MechanismFlag.DECRYPT,
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        try:
            if not other.wrap_key(key, mechanism=mechanism, mechanism_param=parameter):
                _refuse()
        finally:
            other.destroy()

    return way

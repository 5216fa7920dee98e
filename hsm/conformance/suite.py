"""All tests of the suite. Import them into a module in which the fixture `uri` names a backend."""

from hsm.conformance.data_keys import *  # noqa: F403
from hsm.conformance.hard_cases import *  # noqa: F403
from hsm.conformance.key_life import *  # noqa: F403
from hsm.conformance.other_uses import *  # noqa: F403
from hsm.conformance.support import *  # noqa: F403
from hsm.conformance.wrapped_keys import *  # noqa: F403

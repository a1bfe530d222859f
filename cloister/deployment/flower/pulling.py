"""What a member pushed, made a message: by Flower's classes, but for what it says of itself.

Flower inflates whatever object lies under a message's id, and takes sender and question from inside
it, where a member writes them. The SuperLink knows both: it holds a node to its own questions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Metadata
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

log = logging.getLogger(__name__)


def read_pulled(metadata: Metadata, contents: Mapping[str, bytes]) -> Message:
    """The message that lies in a member's objects.

    Args:
        metadata: As the SuperLink has it: who sent it, and what it answers.
        contents: Every object of it, by id.

    Returns:
        Whatever the objects are, a message of this sender to this question; one without records
        where they are no message or cannot be read, which counts nowhere.
    """
    own = metadata_from_proto(metadata)
    try:
        found = inflate_object_from_contents(metadata.message_id, dict(contents))
        if not isinstance(found, Message):
            raise TypeError(f"{type(found).__name__} in place of a message")
        if found.has_content():
            if not isinstance(found.content, RecordDict):
                raise TypeError("a message of other content than records")
            return make_message(metadata=own, content=found.content)
        return make_message(metadata=own, error=found.error)
    except Exception:  # of a foreign message: it must not cost the others theirs
        log.warning("what node %d sent is no message", own.src_node_id, exc_info=True)
        return make_message(metadata=own, content=RecordDict())


def not_there(metadata: Metadata) -> Message:
    """Flower's error for a message whose objects never came."""
    error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "its objects did not come")
    return make_message(metadata=metadata_from_proto(metadata), error=error)

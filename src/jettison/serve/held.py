"""The beginning of a stream, held back until there is content: so long another arm may answer."""

from typing import Any

from jettison.serve.sse import DONE, data_of, has_content, is_garbled, read_chunk, text_in


class Held:
    """Frames of a stream that has not yet had any content, and of what came in one piece with the first."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self.frames: list[bytes] = []
        self.texts: list[str] = []
        self.usage: Any = None
        self.is_ready = self.is_done = False
        self.error: Any = None
        """Said before any content."""
        self.has_error = self.is_garbled = False
        """Whether an error, or an event that is no JSON, came; nothing after it is taken."""

    def take(self, frame: bytes) -> None:
        if self.has_error or self.is_garbled:
            return
        data = data_of(frame)
        chunk = None if data == DONE else read_chunk(data)
        if chunk is None:
            self.is_done = self.is_done or data == DONE
            self.is_garbled = self._is_json and not self.is_done and is_garbled(data)
            if not self.is_garbled:
                self.frames.append(frame)
                self.is_ready = True  # the end, or of an API we do not know: not ours to hold back
            return
        self.frames.append(frame)
        if chunk.error is not None:
            self.has_error = True
            self.error = None if self.is_ready else chunk.error
        self.usage = chunk.usage or self.usage
        if text := text_in(chunk):
            self.texts.append(text)
        self.is_ready = self.is_ready or has_content(chunk)

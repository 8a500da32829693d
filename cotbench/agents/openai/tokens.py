"""The tokenizer of a served model, used on this side. Invariant: the token ids are those of the `hf:` agent, and one thread at
a time uses the tokenizer, because the fast ones change their state with every call.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cotbench.agents.hf import loading
from cotbench.agents.hf.pretrained import first_line, load_config, load_tokenizer
from cotbench.agents.tokenization.chat_template import Chat, describe_template, template_of
from cotbench.agents.tokenization.template_clock import reads_clock
from cotbench.agents.tokenization.token_ids import prefill_ids
from cotbench.errors import AgentError, MissingExtraError
from cotbench.prompting.elicitation import Message
from cotbench.prompting.generation import Prefill
from cotbench.prompting.parsing import USUAL_TAGS, Tags


class ServerTokenizer:
    """Converts texts to token ids and back.

    Args:
        source: a folder, or a name on the hub or in its cache.

    Raises:
        AgentError: no tokenizer can be loaded from there.
    """

    def __init__(self, source: str) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self.source = source
        where = str(Path(source).expanduser())
        if not Path(where).is_dir():
            loading.require_hub(source, source, None)
            where = source
        try:
            self._tokenizer: Any = load_tokenizer(where)
        except AgentError:
            raise
        except Exception as error:
            raise AgentError(f"cannot load the tokenizer of {source!r} ({first_line(error)})") from error
        self._chat = Chat(self._tokenizer)
        self._lock = threading.Lock()
        self.context = _context(where)

    @property
    def description(self) -> dict[str, Any]:
        """The tokenizer as the manifest describes it."""
        vocabulary = json.dumps(self._tokenizer.get_vocab(), sort_keys=True)
        return {
            "tokenizer": self.source,
            "tokenizer_sha256": hashlib.sha256(vocabulary.encode()).hexdigest(),
            **describe_template(self._tokenizer),
        }

    @property
    def begin(self) -> str:
        """Return the token that some tokenizers put before every text; empty where there is none."""
        return str(self._tokenizer.bos_token or "")

    def prompt(self, messages: Sequence[Message], tags: Tags = USUAL_TAGS) -> list[int]:
        """Return the ids of the prompt `p`; see `Chat.with_tags`."""
        with self._lock:
            return self._chat.with_tags(tags).prompt_ids(messages)

    def prompt_text(self, messages: Sequence[Message], tags: Tags = USUAL_TAGS) -> str:
        """Return the prompt `p` as text."""
        with self._lock:
            return self._chat.with_tags(tags).prompt_text(messages)

    def template_difference(
        self, sent: Sequence[dict[str, str]], messages: Sequence[Message], opening: str, tags: Tags = USUAL_TAGS
    ) -> str:
        """Return why a server that renders the chat template itself makes another prompt; see `Chat.template_difference`."""
        with self._lock:
            return self._chat.with_tags(tags).template_difference(sent, messages, opening)

    @property
    def reads_clock(self) -> bool:
        """Return whether the chat template writes the date of today."""
        return reads_clock(template_of(self._tokenizer))

    def opened(self, opened: Prefill) -> list[int]:
        """Return the ids of the assistant's turn so far, encoded piece by piece."""
        with self._lock:
            return prefill_ids(self._chat, opened)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text that stands behind another."""
        with self._lock:
            return self._chat.encode(text)

    def encode_whole(self, text: str) -> list[int]:
        """Return the ids of a text that stands alone, encoded as a whole."""
        with self._lock:
            return self._chat.encode_whole(text)

    def growth(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Return the decoded text after each of some ids: as many texts as ids."""
        with self._lock:
            return tuple(self._chat.decode(ids[:count]) for count in range(1, len(ids) + 1))

    def merges(self, text: str, prompt: Sequence[int], opened: Prefill) -> bool:
        """Return whether a prompt sent as text has other tokens than its pieces.

        Args:
            text: the prompt with the opened turn, as text.
            prompt: the ids of the prompt.
            opened: the opened turn.
        """
        return self.encode_whole(text) != [*prompt, *self.opened(opened)]


def find_tokens(model: str, wanted: str | None) -> ServerTokenizer | str:
    """Return the tokenizer of a served model, or why there is none.

    Args:
        model: the server's name for it; tried where it is a folder, or has the form of a hub name.
        wanted: the source that the user names; then it must be there.

    Raises:
        MissingExtraError: one is wanted, and transformers is not installed.
        AgentError: one is wanted, and cannot be loaded.
    """
    if find_spec("transformers") is None:
        if wanted is not None:
            raise MissingExtraError(f"tokenizer={wanted}", "hf")
        return "no tokenizer: the extra 'hf' is not installed"
    if wanted is not None:
        return ServerTokenizer(wanted)
    if not (Path(model).expanduser().is_dir() or model.count("/") == 1):
        return f"no tokenizer: {model!r} is neither a folder nor a hub name; give ?tokenizer=FOLDER"
    try:
        return ServerTokenizer(model)
    except AgentError:
        return f"no tokenizer: that of {model!r} cannot be loaded; give ?tokenizer=FOLDER"


def _context(where: str) -> int | None:
    """Return the longest sequence by the model's configuration; None where there is none beside the tokenizer."""
    try:
        config = load_config(where).get_text_config()
    except Exception:  # A folder with a tokenizer alone, or a model that transformers does not know.
        return None
    longest = getattr(config, "max_position_embeddings", None)
    return longest if isinstance(longest, int) else None

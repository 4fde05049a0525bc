"""OpenAI's chat completions to Anthropic's messages API (version 2023-06-01), and back."""

from serve_app.relay.hosted.anthropic.answer import answer_to_openai, error_to_openai
from serve_app.relay.hosted.anthropic.request import to_messages
from serve_app.relay.hosted.anthropic.stream import StreamTranslator
from serve_app.relay.hosted.untranslatable import Untranslatable

__all__ = ["StreamTranslator", "Untranslatable", "answer_to_openai", "error_to_openai", "to_messages"]

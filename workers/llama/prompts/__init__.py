"""From a conversation to a prompt, and from the answer's text to tool calls."""

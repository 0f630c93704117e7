"""Texts to vectors, beside the chats."""

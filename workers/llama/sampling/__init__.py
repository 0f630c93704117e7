"""How the next token is chosen: wishes, grammars, and the choice itself."""

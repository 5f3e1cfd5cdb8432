"""The steps, a module each; a released step is never changed."""

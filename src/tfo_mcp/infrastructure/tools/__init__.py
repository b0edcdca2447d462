"""The tools of this server: each module gives its `Tool`s, which the composition root registers."""

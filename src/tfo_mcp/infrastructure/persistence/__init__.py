"""Sessions, conversations and their events on disk.

`storage` holds the opening state and is all that start-up imports; SQLAlchemy comes in with `sqlite` and
`schema`, in a thread, when storage is opened.
"""

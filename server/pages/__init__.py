"""The operators' page: /fleet, made on the server.

    routes ─▶ views ─▶ rendering ─▶ templates/, static/
       │        └── overview, drawing
       └── session

Works without scripts; with them what is shown stays fresh. Says nothing to who is not signed in.
"""

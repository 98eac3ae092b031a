"""From a :class:`vestige.record.Record` to something a person reads: one HTML file or a terminal.

``html.render`` draws the page, ``folder.write`` and ``folder.load`` keep ``report.json`` and
``report.html``, ``evidence.Evidence`` holds the pictures that a run kept apart from its record, and
``terminal.show`` prints the same record to a console.
"""

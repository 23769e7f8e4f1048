"""What a report consists of.

* ``collect.py``: run folders to agents: configurations, metrics, scores, and what is missing.
* ``numbers.py``: the statistics of every region and agent, as `dreamtune compare` has them.
* ``standings.py``: how these are shown.
* ``blocks.py``: what a section is made of: texts, tables, figures, pictures.
* ``svg.py``: Matplotlib figures as inline SVG that follows the page's colors, light or dark.
* ``charts.py``: learning curves, interval estimates, performance profiles, returns over one feature.
* ``worlds.py``, ``maps.py``: returns by context, as heat maps over pairs of features or lines over one.
* ``pictures.py``: dreams and other pictures that a run's commands have made.
* ``sections.py``: the sections of a report, a list.
* ``page.py``: sections to one HTML file, from ``report.html.jinja``, ``report.css`` and ``report.js``.
"""

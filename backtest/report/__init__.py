"""The report on a backtest: figures computed from the tables of a run, files of them, and one page made of nothing else.

Begin reading at `figures` (what a figure is) and `study` (which ones there are); `page` shows them.
"""

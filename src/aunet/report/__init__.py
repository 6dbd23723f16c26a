"""What people see: a passage with its units and bits, in the terminal and as a page, and the report of the demo."""

from aunet.report.html import Comparison, Report, passage_html, report_html
from aunet.report.passage import Character, Passage, Unit
from aunet.report.terminal import render

__all__ = ["Character", "Comparison", "Passage", "Report", "Unit", "passage_html", "render", "report_html"]

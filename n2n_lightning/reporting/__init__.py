"""What ``report.py`` puts on its page: figures, the report's claims, sentences, and the page itself."""

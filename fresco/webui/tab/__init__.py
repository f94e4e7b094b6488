"""The tab: its page, and answers to the page's questions."""

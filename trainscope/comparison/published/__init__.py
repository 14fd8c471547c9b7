"""Published rows as run cards; `trainscope.comparison.cards.published` lists them."""

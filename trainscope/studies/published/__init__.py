"""Published rows as run cards; `trainscope.studies.cards.published` lists them."""

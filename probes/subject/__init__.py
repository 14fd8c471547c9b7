"""What every probe measures: a network lent with its samples, its parameters and its passes."""

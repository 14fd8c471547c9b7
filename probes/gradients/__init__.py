"""The gradient of the mean loss and of every sample, by whichever way is the cheapest."""

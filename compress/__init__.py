"""From a training run to a bundle: the exported graph, int8, the golden sample, the accuracy of both."""

"""The composition of a worker: the only place that knows concrete classes."""

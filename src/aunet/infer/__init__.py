"""Running a model: cached state, generation, sampling."""

"""From a picture to its depth map: the estimators, the pool that holds them and the cache of maps."""

"""From samples to shards: tar writing, shard boundaries, the manifest, and the job that ties them together."""

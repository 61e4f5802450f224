"""`make image-test`: the pair from its images, as deploy/compose.yaml runs it, and what must not be possible there."""

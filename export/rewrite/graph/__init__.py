"""What several passes share: questions asked of a graph, and builders of its nodes. No pass."""

"""How good a recommender is: metrics, frozen protocols, baselines, and the table of all of them."""
